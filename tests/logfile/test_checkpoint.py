"""The checkpoint on disk: round trip, refusal, and what a crash leaves."""

import os
import stat

import pytest

from forwarder.errors import ConfigError
from forwarder.logfile import checkpoint
from forwarder.logfile.checkpoint import Checkpoint, Head, Mark, head_of

MARK = Mark(name="/var/log/audit.log", device=1, inode=2, offset=3, head=Head(4, "ab"), skipping=True, current=False)


def test_what_was_saved_is_loaded(tmp_path):
    """Every field survives, in a file that only its owner may read, and nothing else is left in the folder."""
    path = tmp_path / "file.json"
    saved = Checkpoint(path="/var/log/audit.log", files=[MARK])
    checkpoint.save(path, Checkpoint(path="older", files=[]))
    checkpoint.save(path, saved)
    assert checkpoint.load(path) == saved
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_crash_before_the_rename_leaves_the_old_one(tmp_path, monkeypatch):
    """The new content never stands under the final name before it is complete and on disk."""
    path = tmp_path / "file.json"
    old = Checkpoint(path="old", files=[MARK])
    checkpoint.save(path, old)
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor))[1])

    def crash(_source, _target):
        assert len(synced) == 1, "the content must be on disk before it gets its name"
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, Checkpoint(path="new", files=[]))
    assert checkpoint.load(path) == old


def test_no_checkpoint_yet(tmp_path):
    """A file that is not there is a first start, not an error."""
    assert checkpoint.load(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 1}', b'{"version": "1", "path": "a", "files": []}', b"\xff\x00", b"[" * 100_000],
    ids=["empty", "cut", "list", "incomplete", "wrong type", "binary", "deep"],
)
def test_a_damaged_checkpoint_is_a_value_error(tmp_path, content):
    """Whatever stands in the file: the caller can tell damage from absence, and decides."""
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(path)


def test_a_newer_version_is_refused(tmp_path):
    """A downgrade must not misread positions; the message says what to do."""
    path = tmp_path / "file.json"
    path.write_bytes(b'{"version": 9, "something": "else"}')
    with pytest.raises(ConfigError, match=r"file\.json: the checkpoint has version 9.*update"):
        checkpoint.load(path)


def test_the_head_carries_its_length():
    """So that a file that grew can still be compared with what it was."""
    assert head_of(b"abc").length == 3
    assert head_of(b"abc") != head_of(b"abcdef")


def test_several_paths_stand_in_one_file(tmp_path):
    """Those behind the first, too; a file without them is as good."""
    path = tmp_path / "file.json"
    saved = Checkpoint(path="/a", files=[MARK], more=[Checkpoint(path="/b", files=[MARK])])
    checkpoint.save(path, saved)
    assert checkpoint.load(path) == saved
    path.write_text('{"version": 1, "path": "/a", "files": []}')
    assert checkpoint.load(path) == Checkpoint(path="/a", files=[])
