"""Events go out: what is due for a sink, what it answered, and what no sink needs any more.

For each sink a cursor says that everything up to it is settled. Beyond it, at most LOOKAHEAD_EVENTS far, `outcomes`
holds a row for each event that is settled out of turn or put off, so one refused or slow event stops nobody behind it.
After every transaction the first row beyond a cursor is one that still waits, or there is none. An event that was put
off again and again while thousands behind it went out becomes a dead letter: it would hold up the rest in the end.
"""

import logging
import sqlite3
from collections.abc import Iterable, Sequence

from forwarder.contracts import Done, Later, Outcome, Refused
from forwarder.outbox import deadletters
from forwarder.outbox.books import Books, SinkBook, SinkInfo

log = logging.getLogger(__name__)

LOOKAHEAD_EVENTS = 5_000  # rows that one stubborn event can leave behind it; 200 kB of outcomes, 25 usual batches
HOLDING_LOOKAHEAD_EVENTS = 50_000  # of a sink that holds events on purpose: a busy night; looking at all takes 50 ms
OVERTAKEN_ATTEMPTS = 10  # with the usual back-off more than a minute of trying, while others got through
TRIM_ROWS = 5_000  # deleted at once: a few milliseconds, so that a commit hardly waits
MAX_POSTPONED_S = 3600.0  # a due time further away comes from a clock that was set back: offer the event now

# Which rows of `events` a sink with this key is to get.
_FOR_SINK = "(events.target = 0 AND events.kind <= :updates OR events.target = :key)"
_SETTLED = "EXISTS (SELECT 1 FROM outcomes WHERE sink = :key AND outcomes.seq = events.seq AND due_at IS NULL)"
# NOT INDEXED: walk the rows in order of seq, as they are read in order and a few at a time.
_WAITING = f"FROM events NOT INDEXED WHERE events.seq > :cursor AND {_FOR_SINK} AND NOT {_SETTLED}"
_COUNT = (
    "SELECT (SELECT count(*) FROM events WHERE target = 0 AND kind = 0 AND seq > :cursor)"
    " + (SELECT count(*) FROM events WHERE target = 0 AND kind = 1 AND seq > :cursor AND :updates)"
    " + (SELECT count(*) FROM events WHERE target = :key AND seq > :cursor)"
    " - (SELECT count(*) FROM outcomes WHERE sink = :key AND seq > :cursor AND due_at IS NULL)"
)


# --- who gets what ---------------------------------------------------------------------------------------------------


def register(connection: sqlite3.Connection, sinks: Iterable[SinkInfo], now: float) -> None:
    """Make the file's sinks those of the configuration; part of the caller's transaction.

    A new sink starts at the present end. What still waits for one that is no longer configured becomes dead letters.
    What was put off is due at once: the operator may have restarted because the cause is mended.
    """
    sinks = list(sinks)
    connection.execute("UPDATE outcomes SET due_at = ? WHERE due_at > ?", (now, now))
    _retire(connection, {info.name for info in sinks}, now)
    for info in sinks:
        row = connection.execute(
            "SELECT active, key, cursor, takes_updates FROM sinks WHERE name = ?", (info.name,)
        ).fetchone()
        if row is None or not row[0]:
            end = Books(connection, (), now).last_seq()
            connection.execute(
                "INSERT INTO sinks (name, active, takes_updates, cursor) VALUES (?, 1, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET active = 1, takes_updates = excluded.takes_updates,"
                " cursor = excluded.cursor",
                (info.name, info.takes_updates, end),
            )
        elif bool(row[3]) != info.takes_updates:
            _, key, cursor, before = row
            change = count(connection, key, cursor, info.takes_updates) - count(connection, key, cursor, bool(before))
            connection.execute(
                "UPDATE sinks SET takes_updates = ?, eligible = eligible + ? WHERE key = ?",
                (info.takes_updates, change, key),
            )


def _retire(connection: sqlite3.Connection, configured: set[str], now: float) -> None:
    for name, updates in connection.execute("SELECT name, takes_updates FROM sinks WHERE active").fetchall():
        if name in configured:
            continue
        books = Books(connection, [SinkInfo(name, takes_updates=bool(updates))], now)
        book = books.sinks[name]
        left = book.waiting
        _push_out(books, book, left, deadletters.SINK_REMOVED)
        connection.execute("DELETE FROM outcomes WHERE sink = ?", (book.key,))
        connection.execute("DELETE FROM sink_memory WHERE sink = ?", (book.key,))
        books.write()
        connection.execute("UPDATE sinks SET active = 0 WHERE key = ?", (book.key,))
        if left:
            log.error(
                "the sink %s is no longer configured; the %d events that waited for it are dead letters now", name, left
            )


def count(connection: sqlite3.Connection, key: int, cursor: int, takes_updates: bool) -> int:
    """How many rows wait for a sink, from the rows alone."""
    found = connection.execute(_COUNT, {"key": key, "cursor": cursor, "updates": takes_updates}).fetchone()[0]
    return int(found)


def oldest_at(connection: sqlite3.Connection, key: int, cursor: int, takes_updates: bool) -> float | None:
    """When the event that waits longest for a sink was stored, Unix seconds."""
    row = connection.execute(
        f"SELECT at {_WAITING} ORDER BY events.seq LIMIT 1",
        {"key": key, "cursor": cursor, "updates": takes_updates},
    ).fetchone()
    return row[0] if row else None


# --- a sink's turn ---------------------------------------------------------------------------------------------------


def due(
    connection: sqlite3.Connection, sink: str, limit: int, now: float, *, holds: bool = False
) -> list[tuple[int, int, bytes, float]]:
    """Up to `limit` rows (seq, kind, payload, when stored) that `sink` should be offered now, oldest first."""
    return connection.execute(
        "SELECT events.seq, events.kind, events.payload, events.at"
        " FROM sinks CROSS JOIN events NOT INDEXED"
        " LEFT JOIN outcomes ON outcomes.sink = sinks.key AND outcomes.seq = events.seq"
        " WHERE sinks.name = :sink AND events.seq > sinks.cursor AND events.seq <= sinks.cursor + :lookahead"
        " AND (events.target = 0 AND events.kind <= sinks.takes_updates OR events.target = sinks.key)"
        " AND (outcomes.seq IS NULL OR outcomes.due_at <= :now OR outcomes.due_at > :now + :furthest)"
        " ORDER BY events.seq LIMIT :limit",
        {"sink": sink, "limit": limit, "now": now, "lookahead": _lookahead(holds), "furthest": MAX_POSTPONED_S},
    ).fetchall()


def next_due_at(connection: sqlite3.Connection, sink: str) -> float | None:
    """When the next event that was put off is due, Unix seconds."""
    row = connection.execute(
        "SELECT min(due_at) FROM outcomes JOIN sinks ON sinks.key = outcomes.sink WHERE sinks.name = ?", (sink,)
    ).fetchone()
    return row[0] if row else None


def _lookahead(holds: bool) -> int:
    return HOLDING_LOOKAHEAD_EVENTS if holds else LOOKAHEAD_EVENTS


def memory(connection: sqlite3.Connection, sink: str) -> bytes:
    """What the sink stored for itself; empty when nothing."""
    row = connection.execute(
        "SELECT value FROM sink_memory JOIN sinks ON sinks.key = sink_memory.sink WHERE sinks.name = ?", (sink,)
    ).fetchone()
    return bytes(row[0]) if row else b""


def settle(books: Books, sink: str, outcomes: Sequence[tuple[int, Outcome]], remembered: bytes | None = None) -> None:
    """Store what a sink answered, by seq, and what it wants to find again after a restart.

    An answer about an event that is settled already changes nothing.
    """
    book = books.sinks[sink]
    execute = books.connection.execute
    if remembered is not None:
        execute("INSERT OR REPLACE INTO sink_memory VALUES (?, ?)", (book.key, remembered))
    for seq, outcome in outcomes:
        known = execute("SELECT due_at FROM outcomes WHERE sink = ? AND seq = ?", (book.key, seq)).fetchone()
        if seq <= book.cursor or (known is not None and known[0] is None):
            # It was pushed out while in flight, and arrived all the same: then it is no dead letter.
            if isinstance(outcome, Done) and deadletters.take_back(books, sink, seq):
                book.dead -= 1
                book.delivered += 1
            continue
        due_at: float | None = None
        tries = 1
        if isinstance(outcome, Done):
            book.delivered += 1
        elif isinstance(outcome, Refused):
            book.dead += 1
            books.refused[sink] += 1
            deadletters.add_delivery(books, sink, seq, outcome.reason)
        elif isinstance(outcome, Later):
            due_at = books.now + min(max(outcome.delay_s, 0.0), MAX_POSTPONED_S)
            tries = 0 if outcome.held else 1
        execute(
            "INSERT INTO outcomes VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET due_at = excluded.due_at, attempts = attempts + excluded.attempts",
            (book.key, seq, due_at, tries),
        )


# --- after each transaction's work -----------------------------------------------------------------------------------


def tidy(books: Books) -> bool:
    """Enforce the caps, move the cursors, drop rows that every sink is past; True when there are more to drop."""
    last = books.last_seq()
    for book in books.sinks.values():
        excess = book.waiting - book.info.max_waiting_events
        if excess > 0 and not book.info.required:
            books.pushed_out[book.info.name] += _push_out(books, book, excess, deadletters.BACKLOG_FULL)
        _advance(books, book, last)
        if last - book.cursor > _lookahead(book.info.holds) and _overtaken(books, book):
            books.refused[book.info.name] += _push_out(books, book, 1, deadletters.OVERTAKEN)
            _advance(books, book, last)
    floor = min((book.cursor for book in books.sinks.values()), default=last)
    first = books.connection.execute("SELECT min(seq) FROM events").fetchone()[0]
    if first is None or first > floor:
        return False
    books.connection.execute("DELETE FROM events WHERE seq <= ?", (min(floor, first + TRIM_ROWS - 1),))
    return bool(first + TRIM_ROWS - 1 < floor)


def _advance(books: Books, book: SinkBook, last: int) -> None:
    row = books.connection.execute(f"SELECT events.seq {_WAITING} ORDER BY events.seq LIMIT 1", _names(book)).fetchone()
    cursor = row[0] - 1 if row else last
    if cursor > book.cursor:
        book.cursor = cursor
        books.connection.execute("DELETE FROM outcomes WHERE sink = ? AND seq <= ?", (book.key, cursor))


def _overtaken(books: Books, book: SinkBook) -> bool:
    """Whether the first waiting event fails alone: often put off, and most of what follows it settled."""
    settled, attempts = books.connection.execute(
        "SELECT (SELECT count(*) FROM outcomes WHERE sink = :key AND due_at IS NULL),"
        " (SELECT attempts FROM outcomes WHERE sink = :key AND seq = :first AND due_at IS NOT NULL)",
        {"key": book.key, "first": book.cursor + 1},
    ).fetchone()
    return settled >= LOOKAHEAD_EVENTS // 2 and (attempts or 0) >= OVERTAKEN_ATTEMPTS


def _push_out(books: Books, book: SinkBook, events: int, reason: str) -> int:
    """Settle the oldest `events` waiting ones as dead letters; how many there were."""
    rows = books.connection.execute(f"SELECT events.seq {_WAITING} ORDER BY events.seq LIMIT :limit",
                                    {**_names(book), "limit": events}).fetchall()  # fmt: skip
    if not rows:
        return 0
    # Only as many as can be kept at all are copied; the others would push each other out again at once.
    keep = rows[-deadletters.MAX_DEAD_LETTERS :]
    for (seq,) in keep:
        deadletters.add_delivery(books, book.info.name, seq, reason)
    deadletters.evicted(books, len(rows) - len(keep))
    book.dead += len(rows)
    book.cursor = rows[-1][0]
    books.connection.execute("DELETE FROM outcomes WHERE sink = ? AND seq <= ?", (book.key, book.cursor))
    return len(rows)


def _names(book: SinkBook) -> dict[str, int]:
    return {"key": book.key, "cursor": book.cursor, "updates": int(book.info.takes_updates)}
