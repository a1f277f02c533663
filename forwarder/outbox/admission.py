"""Events come in: new, an update, a duplicate, or expired; exactly one of them for each event that was detected.

`seen` keeps the highest revision of every id for as long as an old log may be read again; what is older than that by
its own timestamp cannot be told from a duplicate any more, and is counted as expired.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime

import msgspec

from forwarder.contracts import DeadLetter
from forwarder.events import friction
from forwarder.events.friction import FrictionEvent
from forwarder.outbox import deadletters
from forwarder.outbox.books import NEW, UPDATE, Books

SEEN_ROW_BYTES = 90  # one id with its index entry on half-filled pages, measured; only used to turn bytes into rows
SEEN_SHARE = 2  # at most 1/2 of max_bytes for ids, so that they alone never make an outbox full
PRUNE_ROWS = 5_000  # at most this many at once: a few milliseconds, so that a commit hardly waits


class Row(msgspec.Struct, frozen=True, gc=False):
    """One event as it is stored. at: its own time, Unix seconds."""

    id: bytes
    revision: int
    at: float
    payload: bytes


class CommitResult(msgspec.Struct, frozen=True):
    """What became of the events of one batch; the sum is their number."""

    new: int = 0
    update: int = 0
    duplicate: int = 0
    expired: int = 0


def row(event: FrictionEvent, now: float) -> Row:
    """Raises ValueError when the id is no UUID. An event whose timestamp cannot be read counts as of now."""
    return Row(
        id=uuid.UUID(event.id).bytes,
        revision=event.revision,
        at=_unix_seconds(event.timestamp, now),
        payload=friction.encode(event),
    )


def _unix_seconds(timestamp: str, now: float) -> float:
    try:
        moment = datetime.fromisoformat(timestamp)
        return moment.timestamp() if moment.tzinfo else now
    except (ValueError, OverflowError):
        return now


def admit(
    books: Books,
    rows: Sequence[Row],
    dead: Sequence[DeadLetter],
    *,
    seen_s: float,
    directed: Sequence[tuple[str, Row]] = (),
) -> CommitResult:
    """Store one batch in the open transaction. directed: (sink, row) of events that are for one sink alone; they are no
    friction, so the result counts none of them.
    """
    execute = books.connection.execute
    horizon = books.now - seen_s
    new = update = duplicate = expired = 0
    for event in rows:
        if event.at < horizon:
            expired += 1
            continue
        known = execute("SELECT revision FROM seen WHERE id = ?", (event.id,)).fetchone()
        if known is None:
            execute("INSERT INTO seen VALUES (?, ?, ?)", (event.id, event.revision, event.at))
            new += 1
        elif known[0] < event.revision:
            execute("UPDATE seen SET revision = ? WHERE id = ?", (event.revision, event.id))
            update += 1
        else:
            duplicate += 1
            continue
        execute(
            "INSERT INTO events (id, revision, kind, at, payload) VALUES (?, ?, ?, ?, ?)",
            (event.id, event.revision, NEW if known is None else UPDATE, books.now, event.payload),
        )
    for sink, event in directed:
        book = books.sinks[sink]
        if event.at < horizon or execute("SELECT 1 FROM seen WHERE id = ?", (event.id,)).fetchone():
            continue
        execute("INSERT INTO seen VALUES (?, ?, ?)", (event.id, event.revision, event.at))
        execute(
            "INSERT INTO events (id, revision, kind, target, at, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (event.id, event.revision, NEW, book.key, books.now, event.payload),
        )
        book.eligible += 1
        books.counts["seen_rows"] += 1
    result = CommitResult(new, update, duplicate, expired)
    for book in books.sinks.values():
        book.eligible += new + (update if book.info.takes_updates else 0)
    books.counts["seen_rows"] += new
    books.counts["detected"] += len(rows)  # counted, not summed up: the ledger compares the two
    for name, value in msgspec.structs.asdict(result).items():
        books.counts[name] += value
    deadletters.add_records(books, dead)
    return result


def prune(books: Books, *, seen_s: float, max_bytes: int) -> bool:
    """Forget ids whose time is over, oldest first; True when there are more to forget.

    Beyond their share of the file ids are forgotten early: a re-read log might then count an event twice, which our
    backend notices, while refusing to take new events would help nobody.
    """
    execute = books.connection.execute
    old = execute(
        "DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE at < ? ORDER BY at LIMIT ?)",
        (books.now - seen_s, PRUNE_ROWS),
    ).rowcount
    books.counts["seen_rows"] -= old
    excess = books.ledger("seen_rows") - max_bytes // SEEN_SHARE // SEEN_ROW_BYTES
    if excess > 0:
        early = execute(
            "DELETE FROM seen WHERE id IN (SELECT id FROM seen ORDER BY at LIMIT ?)", (min(excess, PRUNE_ROWS),)
        ).rowcount
        books.counts["seen_rows"] -= early
        books.forgotten += early
    return old == PRUNE_ROWS or excess > PRUNE_ROWS
