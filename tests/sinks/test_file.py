"""A rotating file: whole lines only, whatever was in the way."""

import json
import os
from pathlib import Path

import pytest

from forwarder.contracts import Done, Later
from forwarder.errors import ConfigError
from forwarder.events.audit import decode
from forwarder.events.outgoing import OutgoingEvent
from forwarder.sinks.file import FileSink, FileSinkSettings


def sink(path: Path, **settings) -> FileSink:
    return FileSink("copy", FileSinkSettings(path=str(path), **settings))


def numbers(path: Path) -> list[int]:
    return [int(json.loads(line)["description"].split()[1]) for line in path.read_text().splitlines()]


def test_friction_events_are_lines_of_json_that_only_we_may_read(tmp_path, event) -> None:
    """The folder is made where it is missing."""
    path = tmp_path / "new" / "friction.jsonl"
    one = sink(path)
    assert one.deliver([event(1), event(2)]) == [Done(), Done()]
    one.close()
    assert numbers(path) == [1, 2]
    assert path.stat().st_mode & 0o777 == 0o600


def test_audit_events_are_written_redacted(tmp_path) -> None:
    """What the stream gives is what stands there."""
    secret = {"apiVersion": "audit.k8s.io/v1", "auditID": "a", "stage": "ResponseComplete", "verb": "create",
              "requestURI": "/x", "objectRef": {"resource": "secrets"}, "requestObject": {"data": {"p": "UGxhbnRlZA=="}}}  # fmt: skip
    line = json.dumps(secret).encode()
    sink(tmp_path / "a").deliver([OutgoingEvent(decode(line), line)])
    assert "UGxhbnRlZA" not in (tmp_path / "a").read_text()


def test_rotation_keeps_so_many_and_no_line_is_split_or_lost_between_them(tmp_path, event) -> None:
    """The newest is .1."""
    one = sink(tmp_path / "f", max_bytes=4096, keep_files=3)
    for number in range(0, 40, 4):
        assert one.deliver([event(number + step) for step in range(4)]) == [Done()] * 4
    files = [tmp_path / name for name in ("f.3", "f.2", "f.1", "f")]
    assert all(file.stat().st_size <= 4096 for file in files)
    found = [number for file in files for number in numbers(file)]
    assert found == list(range(found[0], 40))
    assert not (tmp_path / "f.4").exists()


def test_a_line_larger_than_a_file_has_one_of_its_own(tmp_path, event) -> None:
    """It is not refused."""
    one = sink(tmp_path / "f", max_bytes=4096, keep_files=9)
    assert one.deliver([event(1), event(2, user_agent="x" * 9000), event(3)]) == [Done()] * 3
    assert [numbers(tmp_path / name) for name in ("f.2", "f.1", "f")] == [[1], [2], [3]]


def test_nothing_is_kept_where_nobody_wants_it(tmp_path, event) -> None:
    """keep_files: 0."""
    one = sink(tmp_path / "f", max_bytes=4096, keep_files=0)
    for number in range(40):
        one.deliver([event(number)])
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_half_a_line_of_a_kill_is_taken_back_at_the_next_start(tmp_path, event) -> None:
    """Its event was not acknowledged and comes again."""
    path = tmp_path / "f"
    sink(path).deliver([event(1)])
    with open(path, "ab") as file:
        file.write(b'{"description":"event 2","half' + b"x" * 100_000)
    sink(path).deliver([event(2)])
    assert numbers(path) == [1, 2]
    path.write_bytes(b"no line break at all")
    sink(path).deliver([event(3)])
    assert numbers(path) == [3]


def test_a_full_disk_leaves_whole_lines_and_the_rest_waits(tmp_path, event, monkeypatch) -> None:
    """What the disk took of a batch that failed is taken back."""
    path = tmp_path / "f"
    one = sink(path)
    one.deliver([event(1)])
    real = os.write

    def full(file: int, data: bytes) -> int:
        real(file, bytes(data)[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    assert one.deliver([event(2), event(3)]) == [Later(5.0, f"{path}: No space left on device")] * 2
    monkeypatch.undo()
    assert numbers(path) == [1]
    assert one.deliver([event(2), event(3)]) == [Done()] * 2
    assert numbers(path) == [1, 2, 3]


def test_a_file_that_somebody_moved_is_begun_anew(tmp_path, event) -> None:
    """logrotate needs no signal."""
    one = sink(tmp_path / "f")
    one.deliver([event(1)])
    (tmp_path / "f").rename(tmp_path / "taken")
    one.deliver([event(2)])
    assert (numbers(tmp_path / "taken"), numbers(tmp_path / "f")) == ([1], [2])


def test_a_size_that_cannot_be_meant() -> None:
    """By name."""
    with pytest.raises(ConfigError, match="`max_bytes` must be at least"):
        sink(Path("/x"), max_bytes=10)
