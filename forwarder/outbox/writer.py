"""The writer thread: turns all the jobs that wait into one transaction.

One fsync serves every batch and every sink's answer that came while the last one ran. A transaction that fails is
undone whole and its jobs are run again one by one, so a job that cannot be stored fails alone (where another process
keeps the file locked they fail together: each would wait as long for itself). A future is answered
only after COMMIT has returned, that is: after the bytes are on the disk.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from forwarder.errors import Overloaded, ShuttingDown
from forwarder.outbox import file
from forwarder.outbox.books import Books
from forwarder.outbox.notices import Notices

log = logging.getLogger(__name__)

T = TypeVar("T")
A = TypeVar("A")

MAX_QUEUED_BYTES = (
    32 << 20
)  # waiting for the writer: seconds of work even on a slow disk; longer would look like a hang
MAX_QUEUED_JOBS = 4_096  # a batch costs memory even when it is small
MAX_GROUP_BYTES = 8 << 20  # one transaction: its first batch waits for its last
MAX_GROUP_JOBS = 256
BUSY_S = 0.01  # so soon after a commit, jobs come in such numbers that it pays to wait for more of them
GATHER_S = 0.004  # then this long: a commit costs half a millisecond of CPU, and acks may take a hundred
TICK_S = 1.0  # how soon a retry from the command line is noticed, and how often leftovers are seen to

_CANNOT_STORE = (
    "the outbox cannot store anything (%s: %s): acknowledgements wait, nothing is lost; free space or repair the disk"
)


class Keeper(Protocol):
    """What the writer serves. All of it is called in the writer's thread."""

    def books(self, connection: sqlite3.Connection) -> Books:
        """The books of the transaction that has just begun."""

    def tidy(self, books: Books) -> bool:
        """The last work before COMMIT; True when some was left for the next transaction."""

    def committed(self, books: Books, seconds: float) -> None:
        """After COMMIT, before any job of the group is answered."""

    def tick(self, connection: sqlite3.Connection) -> None:
        """About once in TICK_S, outside of a transaction."""


class Job(Generic[T, A]):
    """`run` works in the transaction; `after` turns its result into the answer, once that is durable.

    A `run` that raises Overloaded must not have written anything. capped: refused when the queue is too long.
    """

    __slots__ = ("after", "capped", "future", "run", "size_bytes")

    def __init__(
        self, run: Callable[[Books], T], after: Callable[[T], A], *, size_bytes: int = 0, capped: bool = False
    ) -> None:
        self.run = run
        self.after = after
        self.size_bytes = size_bytes
        self.capped = capped
        self.future: Future[A] = Future()


class Writer:
    """Owns the connection from `start` to the end of `stop`."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._connection: sqlite3.Connection | None = None
        self._jobs: deque[Job[Any, Any]] = deque()
        self._queued_bytes = 0
        self._committed_at = -BUSY_S
        self._closed = True
        self._work = threading.Condition()
        self._notices = Notices(log)
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self, connection: sqlite3.Connection) -> None:
        """Begin to work."""
        self._connection = connection
        self._closed = False
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued and close the connection; jobs that come later are answered with ShuttingDown."""
        with self._work:
            self._closed = True
            self._work.notify()
        if self._thread.is_alive():
            self._thread.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def submit(self, job: Job[T, A]) -> "Future[A]":
        """Queue a job; its future raises Overloaded when the queue is too long for a capped one."""
        with self._work:
            if self._closed:
                return failed(ShuttingDown("the outbox is closed"))
            too_long = self._queued_bytes + job.size_bytes > MAX_QUEUED_BYTES or len(self._jobs) >= MAX_QUEUED_JOBS
            if job.capped and self._jobs and too_long:
                return failed(Overloaded("outbox_queue"))
            self._jobs.append(job)
            self._queued_bytes += job.size_bytes
            self._work.notify()
        return job.future

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        next_tick = 0.0
        left_over = False
        while (group := self._take(0.0 if left_over else TICK_S)) is not None:
            if group or left_over:
                left_over = self._transact(group)
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + TICK_S
                self._tick()

    def _take(self, timeout_s: float) -> list[Job[Any, Any]] | None:
        """The jobs of the next transaction; [] after `timeout_s` without any; None when closed and empty."""
        with self._work:
            self._work.wait_for(lambda: self._jobs or self._closed, timeout_s)
            if not self._jobs:
                return None if self._closed else []
            if time.monotonic() - self._committed_at < BUSY_S:
                self._work.wait_for(lambda: self._closed or len(self._jobs) >= MAX_GROUP_JOBS, GATHER_S)
            group: list[Job[Any, Any]] = []
            taken = size = 0
            while self._jobs and taken < MAX_GROUP_JOBS:
                job = self._jobs[0]
                if taken and size + job.size_bytes > MAX_GROUP_BYTES:
                    break
                self._jobs.popleft()
                taken += 1
                size += job.size_bytes
                if job.future.set_running_or_notify_cancel():
                    group.append(job)
            self._queued_bytes -= size
            return group

    def _transact(self, jobs: list[Job[Any, Any]]) -> bool:
        """Run the jobs in one transaction; True when tidying was not finished."""
        began = time.perf_counter()
        try:
            with self._transaction() as books:
                results = [_result(job, books) for job in jobs]
                left_over = self._keeper.tidy(books)
        except Exception as error:  # noqa: BLE001 - the thread must live; whoever waits for the job gets the error
            if len(jobs) > 1 and not file.locked(error):
                return sum(self._transact([job]) for job in jobs) > 0  # each of them, whatever the others say
            self._fail(jobs, error)
            return False
        self._committed_at = time.monotonic()
        self._keeper.committed(books, time.perf_counter() - began)
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Overloaded):
                job.future.set_exception(result)
            else:
                job.future.set_result(job.after(result))
        return left_over

    @contextmanager
    def _transaction(self) -> Iterator[Books]:
        connection = self._connection
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        try:
            books = self._keeper.books(connection)
            yield books
            books.write()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk makes SQLite roll back by itself
                connection.execute("ROLLBACK")
            raise

    def _fail(self, jobs: list[Job[Any, Any]], error: Exception) -> None:
        refusal = file.overloaded(error) if isinstance(error, sqlite3.Error) else None
        if refusal is not None:
            self._notices.say(logging.ERROR, refusal.reason, _CANNOT_STORE, refusal.reason, error)
        else:
            self._notices.say(logging.ERROR, "bug", "the outbox failed", exc_info=error)
        for job in jobs:
            job.future.set_exception(Overloaded(refusal.reason) if refusal is not None else error)

    def _tick(self) -> None:
        assert self._connection is not None
        try:
            self._keeper.tick(self._connection)
        except sqlite3.Error as error:
            self._fail([], error)


def failed(error: Exception) -> "Future[Any]":
    """A future that is answered already."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _result(job: Job[T, Any], books: Books) -> T | Overloaded:
    try:
        return job.run(books)
    except Overloaded as error:
        return error
