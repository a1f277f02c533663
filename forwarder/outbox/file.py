"""The outbox file: its schema, who may open it, and what its errors mean.

One service at a time owns the file (flock on `<file>.lock`, which the kernel drops when the process dies, however it
dies). The command line reads it beside the service, and writes to it in short transactions of its own: WAL lets one
writer and many readers work at once, and two writers wait for each other for up to BUSY_TIMEOUT_S.
"""

import contextlib
import fcntl
import os
import sqlite3
import urllib.parse
from pathlib import Path

from forwarder.errors import ConfigError, Overloaded

SCHEMA_VERSION = 1
APPLICATION_ID = 0x46724F78  # "FrOx": tells an outbox from any other SQLite file, such as the backend's

BUSY_TIMEOUT_S = 5.0  # longer than any transaction here; a source waits about as long for its acknowledgement
WAL_LIMIT_BYTES = 16 << 20  # the log is cut back to this after a burst; a usual group writes far less
HEADROOM_BYTES = 16 << 20  # beyond max_bytes: outcomes must still be written when events no longer may be

SCHEMA = """
CREATE TABLE ledger (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice: cursors outlive the rows
    id BLOB NOT NULL,
    revision INTEGER NOT NULL,
    kind INTEGER NOT NULL,                 -- 0 new: the first revision seen of its id; 1 update
    target INTEGER NOT NULL DEFAULT 0,     -- 0: every sink; else the one sink that a retried dead letter is for
    at REAL NOT NULL,                      -- when it was stored, Unix seconds
    payload BLOB NOT NULL                  -- the FrictionEvent as JSON
);
CREATE INDEX events_for ON events (target, kind); -- counts what waits without reading payloads
CREATE TABLE seen (id BLOB PRIMARY KEY, revision INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX seen_at ON seen (at);
CREATE TABLE sinks (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    active INTEGER NOT NULL,               -- whether the configuration still names it
    takes_updates INTEGER NOT NULL,
    cursor INTEGER NOT NULL,               -- every row up to here is settled for this sink
    eligible INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE outcomes (                    -- only rows beyond the sink's cursor
    sink INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    due_at REAL,                           -- NULL: settled; else put off until then, Unix seconds
    attempts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sink, seq)
) WITHOUT ROWID;
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    kind TEXT NOT NULL,                    -- record: a line nobody could read; delivery: an event a sink did not take
    name TEXT NOT NULL,                    -- the source or the sink
    reason TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    offset_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    head TEXT NOT NULL,
    payload BLOB,
    event_id TEXT NOT NULL DEFAULT '',
    seq INTEGER NOT NULL DEFAULT 0,
    event_kind INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 0,
    cost_bytes INTEGER NOT NULL            -- what it counts against the cap
);
CREATE INDEX dead_letters_for ON dead_letters (kind, name, seq);
"""

# What a sink remembers. Made where it is missing rather than counted as a new format: who does not know it needs it not.
MEMORY = "CREATE TABLE IF NOT EXISTS sink_memory (sink INTEGER PRIMARY KEY, value BLOB NOT NULL)"


def make_folder(path: Path) -> None:
    """The folder of the outbox, where it is missing. Raises ConfigError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _out_of_reach(path, error) from None


def _out_of_reach(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot open the outbox: {error.strerror}; set `outbox.path` to a place this user may write", where=str(path)
    )


class Lock:
    """The right to run a service on this outbox, given back by `release` or by the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._file: int | None = None

    def acquire(self) -> None:
        """Raises ConfigError when another process has it, naming that process."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _out_of_reach(self._path, error) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(file, 20, 0).decode("ascii", "replace").strip()
            os.close(file)
            raise ConfigError(
                f"the outbox is in use by pid {owner or 'unknown'}; stop that process or set another `outbox.path`",
                where=str(self._path),
            ) from None
        self._file = file
        with contextlib.suppress(OSError):  # the number is for people; on a full disk the lock holds without it
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """The file stays: removing it would let two processes lock two different files of one name."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def create(path: Path, *, max_bytes: int) -> sqlite3.Connection:
    """The service's own connection, the file made where it is missing. Raises ConfigError when it cannot be used."""
    try:
        # 0600 before SQLite opens it: it holds commands and names of people; -wal and -shm inherit the mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _out_of_reach(path, error) from None
    connection = _connect(path, "rw")
    try:
        return _prepare(connection, path, max_bytes)
    except sqlite3.Error as error:
        connection.close()
        raise unusable(path, error) from None
    except ConfigError:
        connection.close()
        raise


def _prepare(connection: sqlite3.Connection, path: Path, max_bytes: int) -> sqlite3.Connection:
    fresh = not connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_schema)").fetchone()[0]
    if fresh:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    else:
        check(connection, path)
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise ConfigError("this file system cannot hold an outbox (SQLite's WAL needs a local disk)", where=str(path))
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    if fresh:
        # One transaction, the marks included: a kill in the middle leaves an empty file, not half an outbox.
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    connection.execute(MEMORY)
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {(max_bytes + HEADROOM_BYTES) // page_bytes}")
    return connection


def attach(path: str | os.PathLike[str], *, write: bool = False) -> sqlite3.Connection:
    """A connection beside the service, or while it is down. Raises ConfigError when there is no outbox to use."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError("there is no outbox here; has `forwarder` run with this `outbox.path`?", where=str(path))
    try:
        connection = _connect(path, "rw" if write else "ro")
    except sqlite3.Error as error:
        raise unusable(path, error) from None
    try:
        check(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise unusable(path, error) from None
    except ConfigError:
        connection.close()
        raise
    return connection


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises ConfigError unless the open file is an outbox of a version that this program knows."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise ConfigError("this is an SQLite file, but no outbox; set another `outbox.path`", where=str(path))
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"a newer forwarder wrote this outbox (format {version}, this one reads {SCHEMA_VERSION}); "
            "run that version again, or let it deliver everything first",
            where=str(path),
        )


def unusable(path: Path, error: sqlite3.Error) -> ConfigError:
    """The ConfigError for a file that SQLite cannot use."""
    code = _code(error)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        words = "the outbox is damaged; move it aside (with its -wal file) and start again with an empty one"
    elif code == sqlite3.SQLITE_FULL:
        words = "no space left for the outbox; make room on its disk, or set another `outbox.path`"
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        words = "another program keeps the outbox locked"
    else:
        words = f"cannot open the outbox: {error}"
    return ConfigError(words, where=str(path))


_OVERLOADED = {
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_IOERR: "disk_error",
    sqlite3.SQLITE_BUSY: "outbox_locked",
    sqlite3.SQLITE_LOCKED: "outbox_locked",
    sqlite3.SQLITE_READONLY: "disk_read_only",
    sqlite3.SQLITE_CANTOPEN: "disk_error",
    sqlite3.SQLITE_CORRUPT: "outbox_damaged",
    sqlite3.SQLITE_NOTADB: "outbox_damaged",
}


def overloaded(error: sqlite3.Error) -> Overloaded | None:
    """What a source is told about a failed write: nothing was kept, try again; None when the error is our own bug."""
    reason = _OVERLOADED.get(_code(error))
    return Overloaded(reason) if reason else None


def locked(error: Exception) -> bool:
    """Whether another process keeps the file for itself: whatever is tried next would wait as long, and fail."""
    return isinstance(error, sqlite3.Error) and _OVERLOADED.get(_code(error)) == "outbox_locked"


def identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at `path`; None when there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _code(error: sqlite3.Error) -> int:
    """The primary result code; extended ones carry it in their low byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{urllib.parse.quote(str(path.absolute()))}?mode={mode}"
    # Handed between threads (opened by one, used by another), never used by two at once.
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
