"""The ledger: what came in and what became of it, read from the file by any process at any time.

    detected = new + update + duplicate + expired
    per sink: eligible = delivered + waiting + dead

`eligible`, `delivered` and `dead` are counters; `waiting` is counted from the rows. So the second equation is a check
that can fail, and not a definition.
"""

import os
import sqlite3
import time
from pathlib import Path

import msgspec

from forwarder.outbox import backlog, file
from forwarder.telemetry import Telemetry


class SinkLedger(msgspec.Struct, frozen=True, kw_only=True):
    """One sink. active: still configured. oldest_waiting_s: age of what waits longest, None when nothing waits."""

    name: str
    active: bool
    eligible: int
    delivered: int
    waiting: int
    dead: int
    oldest_waiting_s: float | None = None


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """All sums of one outbox at one moment. dead_letters: those kept. bytes: used space of the file."""

    detected: int
    new: int
    update: int
    duplicate: int
    expired: int
    sinks: tuple[SinkLedger, ...]
    dead_letters: int
    dead_letters_evicted: int
    bytes: int

    @property
    def oldest_waiting_s(self) -> float | None:
        """Age of what waits longest for any sink, seconds."""
        return max((sink.oldest_waiting_s for sink in self.sinks if sink.oldest_waiting_s is not None), default=None)

    def balanced(self) -> list[str]:
        """The equations that do not hold, in words with their numbers; empty when all is well."""
        wrong = []
        if self.detected != self.new + self.update + self.duplicate + self.expired:
            wrong.append(
                f"detected {self.detected} is not new {self.new} + update {self.update}"
                f" + duplicate {self.duplicate} + expired {self.expired}"
            )
        wrong += [
            f"sink {sink.name}: eligible {sink.eligible} is not delivered {sink.delivered}"
            f" + waiting {sink.waiting} + dead {sink.dead}"
            for sink in self.sinks
            if sink.eligible != sink.delivered + sink.waiting + sink.dead
        ]
        return wrong


def read_ledger(path: str | os.PathLike[str], *, now: float | None = None) -> Ledger:
    """The ledger of the outbox at `path`, whether its service runs or not. Raises ConfigError when there is none."""
    connection = file.attach(path)
    try:
        connection.execute("BEGIN")  # one snapshot for all sums
        return _read(connection, time.time() if now is None else now)
    except sqlite3.Error as error:
        raise file.unusable(Path(path), error) from None
    finally:
        connection.close()


def show(ledger: Ledger, telemetry: Telemetry) -> None:
    """Put the durable sums into the gauges."""
    for sink in ledger.sinks:
        for number in ("eligible", "delivered", "waiting", "dead"):
            telemetry[f"forwarder_sink_{number}"].labels(sink.name).set(getattr(sink, number))
        telemetry["forwarder_sink_oldest_seconds"].labels(sink.name).set(sink.oldest_waiting_s or 0)
    telemetry["forwarder_dead_letters"].set(ledger.dead_letters)
    telemetry["forwarder_outbox_bytes"].set(ledger.bytes)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Space in use. Free pages inside the file do not count: they are used again before the file grows."""
    pages, free, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page_bytes)


def _read(connection: sqlite3.Connection, now: float) -> Ledger:
    sums = dict(connection.execute("SELECT name, value FROM ledger"))
    rows = connection.execute(
        "SELECT key, name, active, takes_updates, cursor, eligible, delivered, dead FROM sinks ORDER BY key"
    ).fetchall()
    sinks = []
    for key, name, active, updates, cursor, eligible, delivered, dead in rows:
        waiting = backlog.count(connection, key, cursor, updates) if active else 0
        at = backlog.oldest_at(connection, key, cursor, updates) if active else None
        oldest_s = None if at is None else max(0.0, now - at)
        sinks.append(
            SinkLedger(
                name=name,
                active=bool(active),
                eligible=eligible,
                delivered=delivered,
                waiting=waiting,
                dead=dead,
                oldest_waiting_s=oldest_s,
            )
        )
    return Ledger(
        **{name: sums.get(name, 0) for name in ("detected", "new", "update", "duplicate", "expired")},
        sinks=tuple(sinks),
        dead_letters=connection.execute("SELECT count(*) FROM dead_letters").fetchone()[0],
        dead_letters_evicted=sums.get("dead_evicted", 0),
        bytes=used_bytes(connection),
    )
