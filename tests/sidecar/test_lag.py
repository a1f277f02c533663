"""How far the log has been read, by Fluent Bit's own table."""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from forwarder.sidecar.lag import log_lag, log_trouble


def database(path: Path, offsets: dict[int, int]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE in_tail_files (id INTEGER, name TEXT, offset INTEGER, inode INTEGER)")
        connection.executemany("INSERT INTO in_tail_files (inode, offset) VALUES (?, ?)", offsets.items())


def test_it_is_what_no_position_covers_yet(tmp_path: Path) -> None:
    """A rotated file counts by its inode, one that is not in the table as a whole."""
    for name, size in (("audit.log", 100), ("audit-1T1.log", 50), ("audit-2T1.log", 30), ("other.log", 9)):
        (tmp_path / name).write_bytes(bytes(size))
    inodes = {name: os.stat(tmp_path / name).st_ino for name in ("audit.log", "audit-1T1.log")}
    patterns = f"{tmp_path}/audit.log,{tmp_path}/audit-[0-9]*T*.log"
    assert log_lag(tmp_path / "tail.db", patterns) == 180
    database(tmp_path / "tail.db", {inodes["audit.log"]: 60, inodes["audit-1T1.log"]: 50})
    assert log_lag(tmp_path / "tail.db", patterns) == 40 + 0 + 30


def test_a_table_that_cannot_be_read_is_no_number(tmp_path: Path) -> None:
    """Rather no value than a wrong one."""
    (tmp_path / "tail.db").write_bytes(b"no database at all, but long enough to be read as one" * 20)
    assert log_lag(tmp_path / "tail.db", f"{tmp_path}/*.log") is None


def test_a_log_that_cannot_be_followed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not there, or not for us; each with what to do."""
    path = tmp_path / "audit.log"
    assert "is not there yet; does kube-apiserver write to it" in log_trouble(path)
    path.touch()
    assert log_trouble(path) == ""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not be read by uid" in log_trouble(path)
