"""Dead letters from outside: list them, show one, make deliveries due again; beside the service or while it is down.

A delivery that is retried becomes an event row for its sink alone, so the ledger stays balanced: dead - 1, waiting + 1.
A record cannot be retried here: its line has to pass detection again, so whoever asks replays the payload it finds.
All functions raise ConfigError when there is no outbox that can be used at `path`.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from forwarder.outbox import file

RETRY_ROWS = 500  # per transaction: the service's own commits get their turn in between

Kind = Literal["record", "delivery"]
AnyPath = str | os.PathLike[str]


class StoredDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. at: Unix seconds. name: the source or sink. event_id: of the friction event, deliveries only.

    payload: the line where it was kept, or the event's JSON.
    """

    id: int
    at: float
    kind: Kind
    name: str
    reason: str
    size_bytes: int
    offset_bytes: int
    sha256: str
    head: str
    payload: bytes | None
    event_id: str


class RetryResult(msgspec.Struct, frozen=True):
    """put_back: due again. records: lines, which have to be replayed instead. no_sink: their sink is not configured."""

    put_back: int = 0
    records: int = 0
    no_sink: int = 0


_COLUMNS = "id, at, kind, name, reason, size_bytes, offset_bytes, sha256, head, payload, event_id"


def dead_letters(
    path: AnyPath, *, limit: int = 100, kind: Kind | None = None, name: str | None = None
) -> list[StoredDeadLetter]:
    """The newest `limit` dead letters, newest first."""
    with _session(path) as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM dead_letters"  # noqa: S608 - constants
            " WHERE (:kind IS NULL OR kind = :kind) AND (:name IS NULL OR name = :name) ORDER BY id DESC LIMIT :limit",
            {"kind": kind, "name": name, "limit": limit},
        ).fetchall()
    return [_stored(row) for row in rows]


def dead_letter(path: AnyPath, letter_id: int) -> StoredDeadLetter | None:
    """The dead letter with this number, with its payload where one was kept."""
    with _session(path) as connection:
        query = f"SELECT {_COLUMNS} FROM dead_letters WHERE id = ?"  # noqa: S608 - constants
        row = connection.execute(query, (letter_id,)).fetchone()
    return _stored(row) if row else None


def forget_dead(path: AnyPath, ids: Iterable[int]) -> int:
    """Drop dead letters that a person has dealt with (a record that was replayed); how many there were.

    A delivery stays counted as dead: forgetting it delivers nothing.
    """
    with _session(path, write=True) as connection:
        found = 0
        for letter_id in ids:
            connection.execute("BEGIN IMMEDIATE")
            found += _remove(connection, letter_id)
            connection.execute("COMMIT")
    return found


def retry_dead(path: AnyPath, ids: Sequence[int] | None = None, *, sink: str | None = None) -> RetryResult:
    """Make deliveries due again: those with these numbers (None: all), of one sink where it is named.

    Works while the service runs, which notices within a second: each transaction here is short and waits its turn.
    """
    put_back = records = no_sink = 0
    with _session(path, write=True) as connection:
        if ids is None:
            found = connection.execute("SELECT id FROM dead_letters WHERE kind = 'delivery' ORDER BY id").fetchall()
            ids = [row[0] for row in found]
        for start in range(0, len(ids), RETRY_ROWS):
            connection.execute("BEGIN IMMEDIATE")
            for letter_id in ids[start : start + RETRY_ROWS]:
                row = connection.execute(
                    "SELECT kind, name, payload, event_id, event_kind, revision FROM dead_letters WHERE id = ?",
                    (letter_id,),
                ).fetchone()
                if row is None or (sink is not None and row[1] != sink):
                    continue
                if row[0] == "record":
                    records += 1
                elif _put_back(connection, row):
                    _remove(connection, letter_id)
                    put_back += 1
                else:
                    no_sink += 1
            connection.execute("COMMIT")
    return RetryResult(put_back, records, no_sink)


def _put_back(connection: sqlite3.Connection, row: tuple[str, str, bytes, str, int, int]) -> bool:
    _, name, payload, event_id, kind, revision = row
    found = connection.execute(
        "UPDATE sinks SET dead = dead - 1 WHERE name = ? AND active RETURNING key", (name,)
    ).fetchone()
    if found is None:
        return False
    connection.execute(
        "INSERT INTO events (id, revision, kind, target, at, payload) VALUES (?, ?, ?, ?, ?, ?)",
        (bytes.fromhex(event_id.replace("-", "")), revision, kind, found[0], time.time(), payload),
    )
    return True


def _remove(connection: sqlite3.Connection, letter_id: int) -> int:
    row = connection.execute("DELETE FROM dead_letters WHERE id = ? RETURNING cost_bytes", (letter_id,)).fetchone()
    if row is None:
        return 0
    connection.execute("UPDATE ledger SET value = value - 1 WHERE name = 'dead_rows'")
    connection.execute("UPDATE ledger SET value = value - ? WHERE name = 'dead_bytes'", row)
    return 1


@contextlib.contextmanager
def _session(path: AnyPath, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """SQLite's errors come out as ConfigError; closing undoes what was not committed."""
    with contextlib.closing(file.attach(path, write=write)) as connection:
        try:
            yield connection
        except sqlite3.Error as error:
            raise file.unusable(Path(path), error) from None


def _stored(row: tuple[object, ...]) -> StoredDeadLetter:
    return msgspec.convert(dict(zip(_COLUMNS.split(", "), row, strict=True)), StoredDeadLetter)
