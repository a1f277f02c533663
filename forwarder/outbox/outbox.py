"""The outbox itself: opens the file, takes batches in, gives each sink its turn, stores what the sinks answered."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import msgspec

from forwarder.contracts import DeadLetter, Outcome, Refused
from forwarder.errors import ConfigError, Overloaded, ShuttingDown
from forwarder.events import friction
from forwarder.events.friction import FrictionEvent
from forwarder.outbox import admission, backlog, deadletters, file, ledger
from forwarder.outbox.admission import CommitResult
from forwarder.outbox.books import Books, SinkInfo
from forwarder.outbox.notices import Notices
from forwarder.outbox.writer import Job, Writer, failed
from forwarder.telemetry import Telemetry

log = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 1 << 30  # over a million events; what a small volume has room for
MIN_MAX_BYTES = 1 << 20  # less has no room for ids, dead letters and events at once
DEFAULT_SEEN_DAYS = 35  # longer than a log is usually kept (30 days), so reading all of it again doubles nothing
PRUNE_EVERY_S = 60.0
VACUUM_PAGES = 512  # given back to the file system per tick: 2 MiB, a few milliseconds
VACUUM_SHARE = 4  # and only while more than 1/4 of the file is free: pages that will be used again soon stay

_FULL = "the outbox is full (%d of %d bytes): acknowledgements wait until its sinks take events; see `forwarder status`"
_GONE = (
    "the outbox %s was removed or replaced under the running process: acknowledgements wait, what is in it still goes"
    " out; put it back, or restart to begin a new one"
)
_BACKLOG = "%d events wait for the sink %s, its limit: acknowledgements wait until it takes some"
_PUSHED_OUT = (
    "too many events wait for the sink %s: the oldest became dead letters (%d now);"
    " `forwarder dead retry` once it works"
)
_REFUSED = "the sink %s refused %d events for good; `forwarder dead list` shows why"
_EVICTED = "the oldest dead letters had to go (%d now): see `forwarder dead list` and what makes them"
_FORGOTTEN = (
    "the outbox remembers as many event ids as `outbox.max_bytes` allows; the oldest are forgotten early: "
    "a log that is read again may count twice"
)


class Outbox:
    """Constructed without side effects; `open` before use, `close` at the end. Any thread may call any method.

    max_bytes: used space at which batches are refused (Overloaded); free pages inside the file do not count, so a
    drained outbox accepts again. One batch may overshoot it. seen_days: how long ids are remembered, by event time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sinks: Sequence[SinkInfo],
        *,
        telemetry: Telemetry,
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], float] = time.time,
        seen_days: float = DEFAULT_SEEN_DAYS,
    ) -> None:
        if max_bytes < MIN_MAX_BYTES:
            raise ConfigError(f"`outbox.max_bytes` must be at least {MIN_MAX_BYTES >> 20}MiB")
        self.path = Path(path)
        self._sinks = tuple(sinks)
        self._telemetry = telemetry
        self._max_bytes = max_bytes
        self._clock = clock
        self._seen_s = seen_days * 86_400
        self._lock = file.Lock(self.path)
        self._identity: tuple[int, int] | None = None
        self._writer = Writer(self)
        self._holds = {info.name: info.holds for info in self._sinks}
        self._readers: dict[str, _Reader] = {}  # one per sink, so that no sink waits for another
        self._next_prune = time.monotonic() + PRUNE_EVERY_S
        self._data_version = -1
        self._changed = threading.Condition()
        self._generation = 0  # rises whenever something may have become due
        self._turns: dict[str, tuple[int, float | None]] = {}  # by sink: generation and next due time at its last look
        self._notices = Notices(log)

    def open(self) -> None:
        """Raises ConfigError when the file is in use, damaged, newer than this program or out of reach."""
        file.make_folder(self.path)
        self._lock.acquire()
        connection: sqlite3.Connection | None = None
        try:
            connection = file.create(self.path, max_bytes=self._max_bytes)
            self._identity = file.identity(self.path)
            connection.execute("BEGIN IMMEDIATE")
            backlog.register(connection, self._sinks, self._clock())
            connection.execute("COMMIT")
            for info in self._sinks:
                self._readers[info.name] = _Reader(file.attach(self.path))
        except (sqlite3.Error, ConfigError) as error:
            if connection is not None:
                connection.close()
            self._close_readers()
            self._lock.release()
            raise file.unusable(self.path, error) if isinstance(error, sqlite3.Error) else error from None
        self._writer.start(connection)

    def close(self) -> None:
        """Finish what is queued, then let go of the file; whoever comes later is told ShuttingDown."""
        self._close_readers()  # before the writer: the last connection tidies the file up, and a reader could not
        self._writer.stop()
        self._lock.release()

    def _close_readers(self) -> None:
        for reader in self._readers.values():
            with reader.lock:
                reader.closed = True
                reader.connection.close()

    # --- events in ---------------------------------------------------------------------------------------------------

    def commit(
        self,
        events: Sequence[FrictionEvent],
        dead: Sequence[DeadLetter] = (),
        directed: Sequence[tuple[str, FrictionEvent]] = (),
    ) -> "Future[CommitResult]":
        """Store one batch, all of it or nothing. directed: (sink, event) of events that are for one sink alone.

        The future is answered when it is durable; it raises

        Overloaded: full, disk full, locked or gone, a required sink's backlog at its cap, or the queue too long; `reason`
        says which.
        ShuttingDown: after close. ValueError: an id is no UUID, or a text no Unicode.
        """
        if not events and not dead and not directed:
            done: Future[CommitResult] = Future()
            done.set_result(CommitResult())
            return done
        now = self._clock()
        try:
            rows = [admission.row(event, now) for event in events]
            single = [(sink, admission.row(event, now)) for sink, event in directed]
        except ValueError:
            return failed(ValueError("an event cannot be stored: its id is no UUID, or a text no Unicode"))

        def run(books: Books) -> CommitResult:
            self._refuse_when_gone()
            self._refuse_when_full(books, events=bool(rows or single))
            return admission.admit(books, rows, dead, seen_s=self._seen_s, directed=single)

        payloads = [*rows, *(row for _, row in single)]
        size = sum(len(row.payload) for row in payloads) + sum(
            len(item.payload or b"") + len(item.head) for item in dead
        )
        return self._writer.submit(Job(run, _same, size_bytes=size, capped=True))

    def _refuse_when_gone(self) -> None:
        """SQLite would go on writing to a file without a name, and all of it would be gone after a restart."""
        if file.identity(self.path) != self._identity:
            self._notices.say(logging.ERROR, "gone", _GONE, self.path)
            raise Overloaded("outbox_gone")

    def _refuse_when_full(self, books: Books, *, events: bool) -> None:
        used = ledger.used_bytes(books.connection)
        if used >= self._max_bytes:
            self._notices.say(logging.WARNING, "full", _FULL, used, self._max_bytes)
            raise Overloaded("outbox_full")
        for book in books.sinks.values():
            if events and book.info.required and book.waiting >= book.info.max_waiting_events:
                name = book.info.name
                self._notices.say(logging.WARNING, f"backlog {name}", _BACKLOG, book.waiting, name)
                raise Overloaded("sink_backlog")

    # --- events out: what a delivery thread calls --------------------------------------------------------------------

    def due(self, sink: str, limit: int) -> list[tuple[int, bool, FrictionEvent, float]]:
        """Up to `limit` events to offer `sink` now, oldest first: (seq, whether it is an update, event, when stored).

        Raises Overloaded when the file cannot be read now, ShuttingDown after close.
        """
        with self._changed:
            generation = self._generation
        found: list[tuple[int, bool, FrictionEvent, float]] = []
        unreadable: list[tuple[int, Outcome]] = []
        reader = self._readers[sink]
        with reader.lock:
            if reader.closed:
                raise ShuttingDown("the outbox is closed")
            try:
                rows = backlog.due(reader.connection, sink, limit, self._clock(), holds=self._holds[sink])
                next_due_at = None if rows else backlog.next_due_at(reader.connection, sink)
            except sqlite3.Error as error:
                raise (file.overloaded(error) or Overloaded("disk_error")) from error
        for seq, kind, payload, stored_s in rows:
            try:
                found.append((seq, bool(kind), friction.decode(payload), stored_s))
            except msgspec.DecodeError:
                unreadable.append((seq, Refused("the stored event cannot be read")))
        if unreadable:
            self.settle(sink, unreadable)
        self._turns[sink] = (generation, next_due_at)
        return found

    def settle(self, sink: str, outcomes: Sequence[tuple[int, Outcome]], memory: bytes | None = None) -> "Future[None]":
        """Store what `sink` answered, by seq, and with it the sink's memory where one is given.

        The future is answered when that is durable, and may raise Overloaded.
        """
        return self._writer.submit(Job(lambda books: backlog.settle(books, sink, outcomes, memory), lambda _: None))

    def memory(self, sink: str) -> bytes:
        """What `sink` stored for itself; empty when nothing. Raises Overloaded, ShuttingDown like `due`."""
        reader = self._readers[sink]
        with reader.lock:
            if reader.closed:
                raise ShuttingDown("the outbox is closed")
            try:
                return backlog.memory(reader.connection, sink)
            except sqlite3.Error as error:
                raise (file.overloaded(error) or Overloaded("disk_error")) from error

    def wait(self, sink: str) -> None:
        """Return when something may be due for `sink` that was not at its last `due`, or when `wake` is called."""
        generation, next_due_at = self._turns.get(sink, (-1, None))
        with self._changed:
            timeout_s = None if next_due_at is None else max(0.0, next_due_at - self._clock())
            self._changed.wait_for(lambda: self._generation != generation, timeout_s)

    def wake(self) -> None:
        """Make every `wait` return."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def prune(self) -> "Future[bool]":
        """Forget ids whose time is over; done by itself once a minute. True when there are more to forget."""

        def run(books: Books) -> bool:
            return admission.prune(books, seen_s=self._seen_s, max_bytes=self._max_bytes)

        return self._writer.submit(Job(run, self._pruned))

    def _pruned(self, more: bool) -> bool:
        self._next_prune = 0.0 if more else time.monotonic() + PRUNE_EVERY_S
        return more

    def ledger(self) -> ledger.Ledger:
        """The sums as they stand on the disk."""
        return ledger.read_ledger(self.path, now=self._clock())

    # --- in the writer's thread (writer.Keeper) ----------------------------------------------------------------------

    def books(self, connection: sqlite3.Connection) -> Books:
        return Books(connection, self._sinks, self._clock())

    def tidy(self, books: Books) -> bool:
        left_over = backlog.tidy(books)
        deadletters.enforce_cap(books, max_bytes=self._max_bytes)
        return left_over

    def committed(self, books: Books, seconds: float) -> None:
        self._telemetry["forwarder_outbox_commit_seconds"].observe(seconds)
        if lost := books.counts["dead_evicted"]:
            self._telemetry["forwarder_dead_letters_evicted"].inc(lost)
            self._notices.say(logging.ERROR, "evicted", _EVICTED, lost)
        for name, events in books.pushed_out.items():
            self._notices.say(logging.ERROR, f"pushed out {name}", _PUSHED_OUT, name, events)
        for name, events in books.refused.items():
            self._notices.say(logging.ERROR, f"refused {name}", _REFUSED, name, events)
        if books.forgotten:
            self._notices.say(logging.WARNING, "forgotten", _FORGOTTEN)
        self.wake()

    def tick(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:  # another process wrote: dead letters are due again
            self._data_version = version
            self.wake()
        if time.monotonic() >= self._next_prune:
            self._next_prune = time.monotonic() + PRUNE_EVERY_S
            self.prune()
        free, pages = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count"))
        if free > VACUUM_PAGES and free * VACUUM_SHARE > pages:
            # Not `execute`: it takes one step of a statement without columns, and each step frees one page.
            connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")


class _Reader:
    """A sink's own read connection. The lock is only ever contended by `close`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.closed = False


def _same(result: CommitResult) -> CommitResult:
    return result
