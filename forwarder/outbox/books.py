"""The counters of one transaction: read from the file when it begins, written back before it commits.

Nothing of this is kept between two transactions. So a failed one leaves nothing to repair, and what another process
wrote in between (the command line retries a dead letter) is simply there.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable

import msgspec

NEW, UPDATE = 0, 1  # events.kind

DEFAULT_MAX_WAITING_EVENTS = 500_000  # about 350 MB at 700 bytes an event: a day and a half at five a second


class SinkInfo(msgspec.Struct, frozen=True):
    """What the outbox has to know of a sink.

    takes_updates: later revisions are offered to it too. required: when `max_waiting_events` wait for it, batches are
    refused as Overloaded, so acknowledgements wait; for other sinks the oldest events become dead letters.
    holds: it puts events off for its own reasons (grouping, quiet hours), so more of them may lie behind its cursor.
    """

    name: str
    takes_updates: bool = True
    required: bool = False
    max_waiting_events: int = DEFAULT_MAX_WAITING_EVENTS
    holds: bool = False


class SinkBook(msgspec.Struct):
    """One sink's row. `waiting` follows from the counters; the ledger counts the rows themselves to check it."""

    info: SinkInfo
    key: int
    cursor: int
    eligible: int
    delivered: int
    dead: int

    @property
    def waiting(self) -> int:
        return self.eligible - self.delivered - self.dead


class Books:
    """One transaction's view. `now`: Unix seconds; `counts`: what to add to the ledger."""

    def __init__(self, connection: sqlite3.Connection, sinks: Iterable[SinkInfo], now: float) -> None:
        self.connection = connection
        self.now = now
        self.counts: Counter[str] = Counter()
        self.pushed_out: Counter[str] = Counter()  # by sink: events that its full backlog turned into dead letters
        self.forgotten = 0  # ids forgotten before their time
        self.refused: Counter[str] = Counter()  # by sink: events that it will never take
        rows = connection.execute("SELECT name, key, cursor, eligible, delivered, dead FROM sinks WHERE active")
        known = {row[0]: row[1:] for row in rows}
        self.sinks = {info.name: SinkBook(info, *known[info.name]) for info in sinks if info.name in known}

    def ledger(self, name: str) -> int:
        """The durable value plus what this transaction adds."""
        row = self.connection.execute("SELECT value FROM ledger WHERE name = ?", (name,)).fetchone()
        return (row[0] if row else 0) + self.counts[name]

    def last_seq(self) -> int:
        """The seq of the newest event ever stored."""
        row = self.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return row[0] if row else 0

    def write(self) -> None:
        """Put everything back; the last step before COMMIT."""
        self.connection.executemany(
            "INSERT INTO ledger VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(name, value) for name, value in self.counts.items() if value],
        )
        self.connection.executemany(
            "UPDATE sinks SET cursor = ?, eligible = ?, delivered = ?, dead = ? WHERE key = ?",
            [(book.cursor, book.eligible, book.delivered, book.dead, book.key) for book in self.sinks.values()],
        )
