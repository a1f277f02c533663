"""The writer thread: groups, failures that stay alone, a queue with an end."""

import logging
import sqlite3
import threading
import time
from concurrent.futures import CancelledError
from contextlib import closing

import pytest

from forwarder.errors import Overloaded, ShuttingDown
from forwarder.outbox import CommitResult, SinkInfo, file, writer
from forwarder.outbox.writer import Job

BACKEND = SinkInfo("backend")
WAIT_S = 20.0


class Hold:
    """A job that keeps the writer busy until it is let go, so that what comes meanwhile forms one group."""

    def __init__(self, outbox) -> None:
        self._outbox = outbox
        self._begun, self._go = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self._outbox._writer.submit(Job(lambda _: self._begun.set() or self._go.wait(WAIT_S), lambda _: None))
        assert self._begun.wait(WAIT_S)

    def __exit__(self, *_: object) -> None:
        self._go.set()


def commits(bench) -> float:
    """Transactions so far."""
    family = next(iter(bench.telemetry["forwarder_outbox_commit_seconds"].collect()))
    return next(sample.value for sample in family.samples if sample.name.endswith("_count"))


def test_all_that_waits_shares_one_transaction(bench) -> None:
    """One fsync for fifty batches and a sink's answer."""
    outbox = bench.open(BACKEND)
    bench.commit(bench.event(0))
    ((seq, *_),) = outbox.due("backend", 1)
    before = commits(bench)
    with Hold(outbox):
        futures = [outbox.commit([bench.event(number)]) for number in range(1, 51)]
        futures.append(outbox.settle("backend", [(seq, ...)]))
    for future in futures:
        future.result(WAIT_S)
    assert commits(bench) == before + 2  # the job that held it, and the group


def test_a_job_that_fails_fails_alone(bench, caplog) -> None:
    """Its neighbours are stored once, and in their order."""
    outbox = bench.open(BACKEND)

    def broken(books):
        books.connection.execute("INSERT INTO events (id, revision, kind, at, payload) VALUES (x'00', 0, 0, 0, x'7b')")
        raise RuntimeError("a bug")

    with caplog.at_level(logging.ERROR), Hold(outbox):
        first = outbox.commit([bench.event(1)])
        bad = outbox._writer.submit(Job(broken, lambda _: None))
        second = outbox.commit([bench.event(2)])
    assert first.result(WAIT_S) == second.result(WAIT_S) == CommitResult(new=1)
    with pytest.raises(RuntimeError):
        bad.result(WAIT_S)
    assert bench.due("backend") == ["event 1", "event 2"]
    assert "the outbox failed" in caplog.text
    assert bench.balanced()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (sqlite3.SQLITE_FULL, "disk_full"),
        (sqlite3.SQLITE_IOERR_WRITE, "disk_error"),
        (sqlite3.SQLITE_CORRUPT_INDEX, "outbox_damaged"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "outbox_locked"),
    ],
)
def test_a_disk_that_fails_makes_senders_wait(bench, caplog, code, reason) -> None:
    """The sender is told to try again, the operator what is wrong; the thread lives and works when the disk does."""
    outbox = bench.open(BACKEND)

    def failing(books):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = code
        raise error

    with caplog.at_level(logging.ERROR):
        future = outbox._writer.submit(Job(failing, lambda _: None))
        with pytest.raises(Overloaded) as caught:
            future.result(WAIT_S)
    assert caught.value.reason == reason
    assert "nothing is lost" in caplog.text
    assert bench.commit(bench.event(1)).new == 1


def test_what_another_process_keeps_locked_fails_together(bench, monkeypatch) -> None:
    """Each job alone would wait as long as the first did, and a stop would take minutes."""
    monkeypatch.setattr(file, "BUSY_TIMEOUT_S", 0.2)
    outbox = bench.open(BACKEND)
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        futures = [outbox.commit([bench.event(number)]) for number in range(50)]
        began = time.monotonic()
        bench.close()
        assert time.monotonic() - began < 3
    assert {future.exception(0).reason for future in futures} == {"outbox_locked"}
    bench.open(BACKEND)
    assert bench.commit(*map(bench.event, range(50))).new == 50


def test_the_queue_has_an_end(bench, monkeypatch) -> None:
    """When the writer does not keep up, batches are refused; a sink's answers are not: they make room."""
    monkeypatch.setattr(writer, "MAX_QUEUED_JOBS", 3)
    outbox = bench.open(BACKEND)
    with Hold(outbox):
        kept = [outbox.commit([bench.event(number)]) for number in range(3)]
        refused = outbox.commit([bench.event(9)])
        answered = outbox.settle("backend", [])
        with pytest.raises(Overloaded) as caught:
            refused.result(0)
    assert caught.value.reason == "outbox_queue"
    assert [future.result(WAIT_S).new for future in kept] == [1, 1, 1]
    assert answered.result(WAIT_S) is None


def test_the_queue_has_an_end_in_bytes(bench, monkeypatch) -> None:
    """One batch is always taken, however large; a second one beside it is not."""
    monkeypatch.setattr(writer, "MAX_QUEUED_BYTES", 100)
    outbox = bench.open(BACKEND)
    with Hold(outbox):
        kept, refused = outbox.commit([bench.event(1)]), outbox.commit([bench.event(2)])
        with pytest.raises(Overloaded):
            refused.result(0)
    assert kept.result(WAIT_S).new == 1


def test_taken_jobs_make_room(bench, monkeypatch) -> None:
    """The queue's bytes go down as they went up: it never fills by mere use."""
    monkeypatch.setattr(writer, "MAX_QUEUED_BYTES", 2_000)
    outbox = bench.open(BACKEND)
    for start in range(0, 100, 2):
        with Hold(outbox):
            futures = [outbox.commit([bench.event(start)]), outbox.commit([bench.event(start + 1)])]
        assert [future.result(WAIT_S).new for future in futures] == [1, 1]


def test_a_batch_that_was_given_up_in_the_queue_is_not_kept(bench) -> None:
    """Cancelled before its turn: nothing of it is stored, its neighbours are."""
    outbox = bench.open(BACKEND)
    with Hold(outbox):
        given_up, kept = outbox.commit([bench.event(1)]), outbox.commit([bench.event(2)])
        assert given_up.cancel()
    assert kept.result(WAIT_S).new == 1
    with pytest.raises(CancelledError):
        given_up.result(0)
    assert bench.due("backend") == ["event 2"]


def test_closing_finishes_what_is_queued_and_takes_no_more(bench) -> None:
    """A commit before close is durable; one after it is told that we are going."""
    outbox = bench.open(BACKEND)
    futures = [outbox.commit([bench.event(number)]) for number in range(100)]
    bench.close()
    assert sum(future.result(0).new for future in futures) == 100
    with pytest.raises(ShuttingDown):
        outbox.commit([bench.event(1)]).result(0)
    bench.open(BACKEND)
    assert bench.outbox.ledger().new == 100
