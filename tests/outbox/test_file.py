"""Who may open an outbox file, and what is said about one that cannot be used."""

import errno
import os
import sqlite3
import stat
from contextlib import closing

import pytest

from forwarder.errors import ConfigError
from forwarder.outbox import SinkInfo, read_ledger
from forwarder.outbox.file import SCHEMA_VERSION, Lock, overloaded

BACKEND = SinkInfo("backend")


def test_the_file_is_for_its_owner_alone(bench) -> None:
    """Commands and names of people are in it: 0600, whatever the umask, for the file, its log and its lock."""
    before = os.umask(0)
    try:
        bench.open(BACKEND)
        bench.commit(bench.event(1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in bench.path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes) == {"outbox.db", "outbox.db-wal", "outbox.db-shm", "outbox.db.lock"}
    assert set(modes.values()) == {0o600}


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path) -> None:
    """flock is per open file, so a second Lock stands for a second process."""
    first, second = Lock(tmp_path / "outbox.db"), Lock(tmp_path / "outbox.db")
    first.acquire()
    with pytest.raises(ConfigError, match=rf"in use by pid {os.getpid()}\b"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_lock_holds_where_no_byte_can_be_written(tmp_path, monkeypatch) -> None:
    """On a full disk the number of the process is missing, nothing else."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    first, second = Lock(tmp_path / "outbox.db"), Lock(tmp_path / "outbox.db")
    first.acquire()
    with pytest.raises(ConfigError, match="in use by pid unknown"):
        second.acquire()
    first.release()


def test_a_failed_open_gives_the_lock_back(bench) -> None:
    """After the cause is mended, the next start works."""
    bench.path.write_bytes(b"this is no database, and long enough to be sure of it. " * 20)
    with pytest.raises(ConfigError):
        bench.open(BACKEND)
    bench.path.unlink()
    bench.open(BACKEND)


def _garbage(path) -> None:
    path.write_bytes(os.urandom(8192))


def _torn(path) -> None:
    raw = bytearray(path.read_bytes())
    raw[100:] = b"\xff" * (len(raw) - 100)
    path.write_bytes(raw)


def _newer(path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def _foreign(path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE entities (name TEXT)")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(_garbage, "damaged", id="not-a-database"),
        pytest.param(_torn, "damaged", id="pages-overwritten"),
        pytest.param(_newer, "newer forwarder", id="a-newer-format"),
        pytest.param(_foreign, "no outbox", id="somebody-elses-database"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_left_alone(bench, spoil, words) -> None:
    """The error names the file and what to do, for the service and for the command line; not a byte is changed."""
    bench.open(BACKEND)
    bench.commit(bench.event(1))
    bench.close()
    spoil(bench.path)
    before = bench.path.read_bytes()
    with pytest.raises(ConfigError, match=words) as caught:
        bench.open(BACKEND)
    assert str(bench.path) in str(caught.value)
    with pytest.raises(ConfigError, match=words):
        read_ledger(bench.path)
    assert bench.path.read_bytes() == before


def test_a_kill_while_the_file_was_made_leaves_a_file_to_start_with(bench) -> None:
    """An empty file is no damage."""
    bench.path.touch()
    bench.open(BACKEND)
    assert bench.commit(bench.event(1)).new == 1


def test_folders_are_made(bench, tmp_path) -> None:
    """A fresh volume has no folder yet; it is made for its owner alone."""
    bench.path = tmp_path / "var" / "lib" / "outbox.db"
    bench.open(BACKEND)
    assert stat.S_IMODE(bench.path.parent.stat().st_mode) == 0o700


def test_a_place_that_cannot_be_written_is_a_settings_error(bench, tmp_path) -> None:
    """A file where the folder should be."""
    (tmp_path / "file").touch()
    bench.path = tmp_path / "file" / "outbox.db"
    with pytest.raises(ConfigError, match=r"`outbox\.path`"):
        bench.open(BACKEND)


def test_names_that_mean_something_in_an_address_are_just_names(bench, tmp_path) -> None:
    """The path is handed to SQLite as a URI; `?`, `#` and `%` in it must not be read as one."""
    bench.path = tmp_path / "a?mode=memory#b%20c.db"
    bench.open(BACKEND)
    bench.commit(bench.event(1))
    assert bench.path.is_file()
    assert read_ledger(bench.path).new == 1


def test_no_outbox_is_said_so(tmp_path) -> None:
    """Reading creates nothing."""
    with pytest.raises(ConfigError, match="there is no outbox here"):
        read_ledger(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []


def test_our_own_mistakes_are_not_taken_for_overload() -> None:
    """A sender must not try a bug again and again."""
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(":memory:").execute("SELECT nothing FROM nowhere")
    assert overloaded(caught.value) is None
