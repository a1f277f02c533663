"""The outbox as a whole: all or nothing, a limit that lifts again, waiting without polling."""

import os
import threading

import pytest

from forwarder.contracts import Done, Later, Refused
from forwarder.errors import ConfigError, Overloaded, ShuttingDown
from forwarder.outbox import CommitResult, Outbox, SinkInfo, file, retry_dead
from forwarder.telemetry import Telemetry

BACKEND = SinkInfo("backend")
WAIT_S = 20.0


def big(bench, number: int):
    """About 10 kB that hardly compress."""
    return bench.event(number, command=os.urandom(5_000).hex())


def test_constructing_has_no_side_effects(tmp_path) -> None:
    """Nothing is created, locked or started before `open`."""
    threads = threading.active_count()
    Outbox(tmp_path / "new" / "outbox.db", [BACKEND], telemetry=Telemetry())
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == threads


def test_a_limit_too_small_to_work_is_refused(tmp_path) -> None:
    """With the name of the setting."""
    with pytest.raises(ConfigError, match=r"outbox\.max_bytes"):
        Outbox(tmp_path / "outbox.db", [], telemetry=Telemetry(), max_bytes=1000)


def test_nothing_to_store_needs_no_commit(bench) -> None:
    """A batch that gave neither event nor dead letter is answered at once, even by an outbox that is not open."""
    outbox = Outbox(bench.path, [BACKEND], telemetry=Telemetry())
    assert outbox.commit([]).result(0) == CommitResult()


def test_a_full_outbox_refuses_and_a_drained_one_accepts_again(bench) -> None:
    """The limit is about space in use, so what was delivered makes room although the file does not shrink at once."""
    outbox = bench.open(BACKEND, max_bytes=1 << 20)
    stored = 0
    while outbox.ledger().bytes < 1 << 20:
        stored += bench.commit(big(bench, stored)).new
    with pytest.raises(Overloaded) as caught:
        bench.commit(bench.event(9999))
    assert caught.value.reason == "outbox_full"
    assert 50 < stored < 110
    assert outbox.ledger().new == stored
    while bench.answer("backend", Done()):
        pass
    assert bench.commit(big(bench, 5000)).new == 1
    assert bench.balanced()


def test_a_full_disk_keeps_nothing_of_a_batch(bench, monkeypatch) -> None:
    """SQLite's own "disk is full", met in the middle of a batch: refused whole, its neighbours are not."""
    monkeypatch.setattr(file, "HEADROOM_BYTES", 0)
    outbox = bench.open(BACKEND, max_bytes=1 << 20)
    bench.commit(bench.event(1))
    too_much = outbox.commit([big(bench, number) for number in range(100, 300)])
    neighbour = outbox.commit([bench.event(2)])
    with pytest.raises(Overloaded) as caught:
        too_much.result(WAIT_S)
    assert caught.value.reason == "disk_full"
    assert neighbour.result(WAIT_S).new == 1
    assert outbox.ledger().new == outbox.ledger().detected == 2
    assert bench.balanced()


def test_an_outbox_that_was_removed_takes_nothing_more(bench, caplog) -> None:
    """What went into a file without a name would be gone after a restart; what is in it still goes out."""
    outbox = bench.open(BACKEND)
    bench.commit(bench.event(1))
    away = bench.path.with_name("away.db")
    bench.path.rename(away)
    for _ in range(2):
        with pytest.raises(Overloaded, match="outbox_gone"):
            bench.commit(bench.event(2))
        bench.path.touch()  # nor is another file of that name ours
    assert "was removed or replaced" in caplog.text
    assert bench.answer("backend", Done()) == 1
    away.rename(bench.path)
    assert bench.commit(bench.event(2)).new == 1
    assert outbox.ledger().new == 2
    assert bench.balanced()


def test_answers_still_fit_when_events_no_longer_do(bench) -> None:
    """A full outbox must be able to drain: there is headroom for outcomes beyond the limit."""
    outbox = bench.open(BACKEND, max_bytes=1 << 20)
    bench.commit(*(big(bench, number) for number in range(150)))
    with pytest.raises(Overloaded):
        bench.commit(bench.event(9999))
    assert bench.answer("backend", Later(0.0)) == 150
    assert bench.answer("backend", Done()) == 150
    assert outbox.ledger().sinks[0].delivered == 150


def test_space_goes_back_to_the_file_system(bench) -> None:
    """After an outage is over the file shrinks; `tick` does it in small steps."""
    outbox = bench.open(BACKEND, max_bytes=32 << 20)
    for start in range(0, 1000, 100):
        bench.commit(*(big(bench, start + number) for number in range(100)))
    largest = bench.sql("PRAGMA page_count")[0][0]
    while bench.answer("backend", Done()):
        pass
    bench.close()
    connection = file.create(bench.path, max_bytes=32 << 20)
    for _ in range(10):
        outbox.tick(connection)
    connection.close()
    assert bench.sql("PRAGMA page_count")[0][0] < largest / 2


class Waiting:
    """A sink that waits, in a thread, so that a test fails instead of hanging."""

    def __init__(self, outbox) -> None:
        self._thread = threading.Thread(target=outbox.wait, args=("backend",), daemon=True)
        self._thread.start()

    def ended(self, within_s: float = WAIT_S) -> bool:
        self._thread.join(within_s)
        return not self._thread.is_alive()


def test_waiting_ends_with_a_commit(bench) -> None:
    """A sink that found nothing sleeps until there is something, without polling."""
    outbox = bench.open(BACKEND)
    assert outbox.due("backend", 10) == []
    waiting = Waiting(outbox)
    bench.commit(bench.event(1))
    assert waiting.ended()
    assert bench.due("backend") == ["event 1"]


def test_a_commit_between_looking_and_waiting_is_not_missed(bench) -> None:
    """The race that would leave an event lying until the next one comes."""
    outbox = bench.open(BACKEND)
    assert outbox.due("backend", 10) == []
    bench.commit(bench.event(1))
    assert Waiting(outbox).ended()


def test_waiting_ends_when_a_postponed_event_is_due(bench, clock) -> None:
    """Its time is part of the wait."""
    outbox = bench.open(BACKEND)
    bench.commit(bench.event(1))
    bench.answer("backend", Later(30.0))
    assert outbox.due("backend", 10) == []
    clock.now += 30
    assert Waiting(outbox).ended()
    assert bench.due("backend") == ["event 1"]


def test_waiting_ends_when_asked_to(bench) -> None:
    """`wake` is how a delivery that stops gets its thread back; one that came before the wait counts too."""
    outbox = bench.open(BACKEND)
    assert outbox.due("backend", 10) == []
    waiting = Waiting(outbox)
    outbox.wake()
    assert waiting.ended()
    assert Waiting(outbox).ended()


def test_another_process_that_retries_wakes_the_sinks(bench) -> None:
    """The writer sees that somebody else wrote to the file."""
    outbox = bench.open(BACKEND)
    bench.commit(bench.event(1))
    bench.answer("backend", Refused("no"))
    assert outbox.due("backend", 10) == []
    retry_dead(bench.path)
    assert Waiting(outbox).ended()
    assert bench.due("backend") == ["event 1"]


def test_a_sink_that_outlives_the_outbox_is_told(bench) -> None:
    """A delivery whose deadline passed may still look for work: it ends instead of crashing."""
    outbox = bench.open(BACKEND)
    bench.close()
    with pytest.raises(ShuttingDown):
        outbox.due("backend", 10)
    with pytest.raises(ShuttingDown):
        outbox.settle("backend", [(1, Done())]).result(0)


def test_test_events_pass_like_others(bench) -> None:
    """What `forwarder doctor` sends goes the whole way and keeps its mark."""
    outbox = bench.open(BACKEND)
    assert bench.commit(bench.event(1, test=True)).new == 1
    assert outbox.due("backend", 1)[0][2].test is True
