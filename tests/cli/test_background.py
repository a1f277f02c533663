"""Finding a process again: never another one that got its number."""

import os
from pathlib import Path

import pytest

from forwarder.cli import background
from forwarder.cli.background import (
    Running,
    find_running,
    make_data_dir,
    process_began,
    read_run_file,
    remove_run_file,
    write_run_file,
)
from forwarder.errors import ConfigError


@pytest.fixture
def me() -> Running:
    """This very process."""
    return Running(pid=os.getpid(), began=process_began(os.getpid()), backend="127.0.0.1:8000")


def test_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Which one, why, and what to do; not the bare words of the system."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file: it is no folder; choose another with --data-dir"):
        make_data_dir(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"below: cannot write it: Not a directory; choose a folder"):
        make_data_dir(tmp_path / "file" / "below")


def test_a_living_process_is_found(tmp_path: Path, me: Running) -> None:
    """What was written is read back while the process lives."""
    write_run_file(tmp_path, me)
    assert find_running(tmp_path) == me
    assert [path.name for path in tmp_path.iterdir()] == [background.RUN_FILE]


def test_a_number_that_changed_hands_is_not_the_process(tmp_path: Path, me: Running) -> None:
    """The same pid with another start time belongs to somebody else: not running, and nothing is signalled."""
    other = Running(pid=me.pid, began="1")
    write_run_file(tmp_path, other)
    assert find_running(tmp_path) is None
    assert background._terminate(other) is False


def test_a_process_that_ended_is_not_found(tmp_path: Path) -> None:
    """A number that nobody has means that it ended."""
    write_run_file(tmp_path, Running(pid=2**22 + 1, began="1"))
    assert find_running(tmp_path) is None
    assert process_began(2**22 + 1) == ""
    assert background._terminate(Running(pid=2**22 + 1, began="1")) is False


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"])
def test_a_broken_run_file_means_not_running(tmp_path: Path, content: bytes) -> None:
    """A file that a crash or a person left is no error."""
    (tmp_path / background.RUN_FILE).write_bytes(content)
    assert find_running(tmp_path) is None


def test_only_the_own_run_file_is_removed(tmp_path: Path, me: Running) -> None:
    """A process that ends late does not hide the one that was started after it."""
    write_run_file(tmp_path, me)
    remove_run_file(tmp_path, me.pid + 1)
    assert read_run_file(tmp_path) == me
    remove_run_file(tmp_path, me.pid)
    assert read_run_file(tmp_path) is None


def test_the_last_lines() -> None:
    """As many as asked for, none for 0."""
    assert background._last_lines(b"a\nb\nc\n", 2) == ["b", "c"]
    assert background._last_lines(b"a\n", 0) == []
