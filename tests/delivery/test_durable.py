"""One sink's turn after the other, without threads or waiting: `turn` is called by hand."""

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import pytest

from forwarder.contracts import Done, Later, Outcome, Refused
from forwarder.delivery.durable import Delivery
from forwarder.delivery.offering import BROKEN_DELAYS_S, MIN_PAUSE_S
from forwarder.errors import Overloaded, ShuttingDown
from forwarder.events.friction import FrictionEvent
from forwarder.telemetry import Telemetry

WAIT_S = 20.0
STORED_S = 1_750_000_000.0


def event(number: int, revision: int = 0) -> FrictionEvent:
    return FrictionEvent(
        entity_ref="component:shop/cart", type="kubectl-exec", severity="high", actor="jane", workflow="debug",
        description=f"event {number}", timestamp="2025-06-15T12:00:00Z", points=10, id=str(uuid.UUID(int=number)),
        revision=revision, audit_id="a", verb="create", resource="pods")  # fmt: skip


class FakeQueue:
    """An outbox in memory: what is due, and what was answered."""

    def __init__(self, *rows: tuple[int, bool, FrictionEvent]) -> None:
        self.rows = [(*row, STORED_S) for row in rows]
        self.remembered: list[bytes] = []
        self.settled: list[tuple[int, Outcome]] = []
        self.failures: list[Exception] = []
        self.limits: list[int] = []
        self.changed = threading.Event()

    def due(self, sink: str, limit: int) -> list[tuple[int, bool, FrictionEvent, float]]:
        self.limits.append(limit)
        found, self.rows = self.rows[:limit], self.rows[limit:]
        return found

    def memory(self, sink: str) -> bytes:
        return self.remembered[-1] if self.remembered else b""

    def settle(self, sink: str, outcomes: Sequence[tuple[int, Outcome]], memory: bytes | None = None) -> "Future[None]":
        future: Future[None] = Future()
        if self.failures:
            future.set_exception(self.failures.pop(0))
        else:
            self.settled += outcomes
            self.remembered += [] if memory is None else [memory]
            future.set_result(None)
        return future

    def wait(self, sink: str) -> None:
        self.changed.wait(WAIT_S)
        self.changed.clear()

    def wake(self) -> None:
        self.changed.set()


class FakeSink:
    """Answers with what `answer` says."""

    name = "slack"
    takes_updates = True
    required = False

    def __init__(self, answer: Callable[[FrictionEvent], Outcome] = lambda _: Done()) -> None:
        self.answer = answer
        self.given: list[FrictionEvent] = []
        self.closed = 0

    def deliver(self, events: Sequence[FrictionEvent]) -> list[Outcome]:
        self.given += events
        return [self.answer(item) for item in events]

    def close(self) -> None:
        self.closed += 1


def rows(*numbers: int) -> list[tuple[int, bool, FrictionEvent]]:
    return [(number, False, event(number)) for number in numbers]


def test_each_event_gets_its_own_outcome() -> None:
    """In order, by seq, and put-off ones are counted."""
    answers: dict[str, Outcome] = {"event 1": Done(), "event 2": Later(5.0), "event 3": Refused("no")}
    queue, telemetry = FakeQueue(*rows(1, 2, 3)), Telemetry()
    delivery = Delivery(queue, FakeSink(lambda item: answers[item.description]), telemetry)
    assert delivery.turn() == 0.0
    assert queue.settled == [(1, Done()), (2, Later(5.0)), (3, Refused("no"))]
    assert telemetry.value("forwarder_sink_retries", sink="slack") == 1
    assert delivery.turn() is None


def test_updates_are_done_without_sending_when_the_sink_takes_none() -> None:
    """A sink may learn of its peer that it cannot take them; first revisions of either number still go out."""
    queue, sink = FakeQueue((1, False, event(1, 1)), (2, True, event(2, 1))), FakeSink()
    sink.takes_updates = False
    Delivery(queue, sink, Telemetry()).turn()
    assert [item.description for item in sink.given] == ["event 1"]
    assert queue.settled == [(1, Done()), (2, Done())]


def test_a_batch_of_updates_only_is_not_offered_at_all() -> None:
    """A sink is never asked about nothing."""
    queue, sink = FakeQueue((1, True, event(1, 1))), FakeSink()
    sink.takes_updates = False
    assert Delivery(queue, sink, Telemetry()).turn() == 0.0
    assert sink.given == []
    assert queue.settled == [(1, Done())]


def test_what_a_sink_does_not_want_is_settled_and_counted() -> None:
    """It is told when the event came into the outbox, so that an event that waited here is not taken for an old one."""
    queue, sink, telemetry = FakeQueue(*rows(1, 2)), FakeSink(), Telemetry()
    asked: list[float] = []

    def wants(item: FrictionEvent, stored_s: float) -> bool:
        asked.append(stored_s)
        return item.description == "event 2"

    sink.wants = wants  # type: ignore[attr-defined]
    Delivery(queue, sink, telemetry).turn()
    assert [item.description for item in sink.given] == ["event 2"]
    assert queue.settled == [(1, Done()), (2, Done())]
    assert asked == [STORED_S, STORED_S]
    assert telemetry.value("forwarder_sink_unwanted", sink="slack") == 1


def test_what_is_held_is_no_trouble(caplog) -> None:
    """No retry is counted, the sink is not left alone, and nothing is said."""
    queue, telemetry = FakeQueue(*rows(1, 2, 3)), Telemetry()
    delivery = Delivery(queue, FakeSink(lambda _: Later(300.0, held=True)), telemetry)
    for _ in range(3):
        queue.rows = [(number, False, event(number), STORED_S) for number in (1, 2)]
        assert delivery.turn() == 0.0
    assert telemetry.value("forwarder_sink_retries", sink="slack") == 0
    assert caplog.text == ""


def test_nothing_is_stored_about_an_event_whose_turn_comes_next() -> None:
    """Held for 0 s: it is due as before."""
    answers: dict[str, Outcome] = {"event 1": Done(), "event 2": Later(0.0, held=True)}
    queue = FakeQueue(*rows(1, 2))
    assert Delivery(queue, FakeSink(lambda item: answers[item.description]), Telemetry()).turn() == 0.0
    assert queue.settled == [(1, Done())]


def test_a_sinks_memory_is_stored_with_the_answers_it_belongs_to() -> None:
    """Only when it changed; and it is there again before `prepare`."""

    class Remembering(FakeSink):
        memory = b""
        found: bytes | None = None

        def prepare(self) -> None:
            self.found = self.memory

        def deliver(self, events: Sequence[FrictionEvent]) -> list[Outcome]:
            self.memory = events[0].description.encode()
            return super().deliver(events)

    queue, sink = FakeQueue(*rows(1)), Remembering()
    queue.remembered = [b"before"]
    delivery = Delivery(queue, sink, Telemetry())
    delivery._remember()
    delivery._offering.prepare()
    delivery.turn()
    queue.rows = [(2, False, event(1), STORED_S)]
    delivery.turn()
    assert sink.found == b"before"
    assert queue.remembered == [b"before", b"event 1"]


def test_a_sink_says_how_much_it_likes_to_be_given() -> None:
    """And may change its mind between two batches."""
    queue, sink = FakeQueue(*rows(1, 2, 3)), FakeSink()
    delivery = Delivery(queue, sink, Telemetry())
    delivery.turn()
    sink.batch_events = 5
    delivery.turn()
    assert queue.limits == [200, 5]


@pytest.mark.parametrize(
    "answer",
    [pytest.param(lambda _: 1 / 0, id="raises"), pytest.param(None, id="answers-too-little")],
)
def test_a_broken_sink_loses_nothing_and_quotes_nothing(answer, caplog) -> None:
    """A bug means later, ever more seldom; the log says where, and never what the exception quoted."""
    queue, sink = FakeQueue(*rows(1), *rows(2), *rows(3), *rows(4)), FakeSink(answer)
    if answer is None:
        sink.deliver = lambda events: []
    sink.batch_events = 1
    delivery = Delivery(queue, sink, Telemetry())
    with caplog.at_level(logging.DEBUG):
        for _ in range(4):
            delivery.turn()
    expected = [*BROKEN_DELAYS_S, BROKEN_DELAYS_S[-1]]
    assert [outcome for _, outcome in queue.settled] == [Later(delay_s) for delay_s in expected]
    assert "which is a bug" in caplog.text
    assert ".py:" in caplog.text


def test_the_text_of_a_sinks_exception_is_not_logged(caplog) -> None:
    """It may hold an event, or a token out of a URL."""

    def leak(item: FrictionEvent) -> Outcome:
        raise ValueError(f"https://hooks.example/T0KEN refused {item.actor}")

    with caplog.at_level(logging.DEBUG):
        Delivery(FakeQueue(*rows(1)), FakeSink(leak), Telemetry()).turn()
    assert "ValueError" in caplog.text
    assert "T0KEN" not in caplog.text
    assert "jane" not in caplog.text


def test_one_batch_put_off_does_not_stop_the_next(caplog) -> None:
    """It may be about these events; only a second batch in a row makes the sink be left alone for a while."""
    queue, sink = FakeQueue(*rows(1, 2, 3, 4)), FakeSink(lambda _: Later(7.0, "down"))
    sink.batch_events = 1
    delivery = Delivery(queue, sink, Telemetry())
    assert [delivery.turn(), delivery.turn(), delivery.turn()] == [0.0, 7.0, 7.0]
    sink.answer = lambda _: Done()
    assert delivery.turn() == 0.0
    queue.rows = rows(5)
    sink.answer = lambda _: Later(7.0)
    assert delivery.turn() == 0.0


def test_later_without_a_delay_does_not_keep_a_core_busy() -> None:
    """A sink that always says "now again" is asked a few times a second."""
    queue, sink = FakeQueue(*rows(1, 2)), FakeSink(lambda _: Later(0.0))
    sink.batch_events = 1
    delivery = Delivery(queue, sink, Telemetry())
    assert [delivery.turn(), delivery.turn()] == [0.0, MIN_PAUSE_S]


def test_trouble_is_said_when_it_begins_and_when_it_ends(caplog) -> None:
    """Two lines for an outage, whatever its length; a sink that paces itself has no trouble."""
    queue, sink = FakeQueue(*rows(1, 2, 3, 4, 5)), FakeSink()
    sink.batch_events = 1
    delivery = Delivery(queue, sink, Telemetry())
    with caplog.at_level(logging.INFO):
        for answer in (Later(1.0), Later(1.0, "no\x1b route"), Later(1.0, "no route"), Done(), Done()):
            sink.answer = lambda _, answer=answer: answer
            delivery.turn()
    assert caplog.messages == [
        "the sink slack puts events off: no  route; they wait in the outbox",
        "the sink slack takes events again",
    ]


def test_answers_are_stored_again_when_the_disk_could_not_take_them(monkeypatch) -> None:
    """They are kept, so that what was delivered is not sent a second time."""
    monkeypatch.setattr("forwarder.delivery.durable.STORE_AGAIN_S", 0.0)
    queue, sink = FakeQueue(*rows(1)), FakeSink()
    queue.failures = [Overloaded("disk_full"), Overloaded("disk_full")]
    Delivery(queue, sink, Telemetry()).turn()
    assert len(sink.given) == 1
    assert queue.settled == [(1, Done())]


def test_a_closed_outbox_ends_the_delivery() -> None:
    """What it could not store is offered again after the next start."""
    queue = FakeQueue(*rows(1))
    queue.failures = [ShuttingDown("closed")]
    with pytest.raises(ShuttingDown):
        Delivery(queue, FakeSink(), Telemetry()).turn()


def test_the_thread_bears_the_sinks_name_delivers_what_is_due_and_closes_the_sink() -> None:
    """`stop` goes on until nothing is due; `prepare` comes first; all of it in one thread."""
    queue, sink = FakeQueue(*rows(*range(1, 501))), FakeSink()
    names: list[str] = []
    sink.prepare = lambda: names.append(threading.current_thread().name)
    delivery = Delivery(queue, sink, Telemetry())
    delivery.start()
    delivery.stop_soon()
    assert delivery.stop(WAIT_S)
    assert names == ["sink slack"]
    assert len(queue.settled) == 500
    assert sink.closed == 1


def test_stopping_does_not_wait_for_a_sink_that_wants_to_be_left_alone() -> None:
    """It is down; what it did not take is in the outbox."""
    queue, sink = FakeQueue(*rows(*range(1, 1001))), FakeSink(lambda _: Later(3600.0, "down"))
    delivery = Delivery(queue, sink, Telemetry())
    delivery.start()
    assert delivery.stop(WAIT_S)
    assert len(queue.settled) == 400
    assert sink.closed == 1


def test_stopping_gives_up_on_a_sink_that_hangs() -> None:
    """The thread is left behind, and the caller is told."""
    go = threading.Event()
    sink = FakeSink(lambda _: Done() if go.wait(WAIT_S) else Refused("waited for nothing"))
    delivery = Delivery(FakeQueue(*rows(1)), sink, Telemetry())
    delivery.start()
    assert delivery.stop(0.01) is False
    go.set()
    assert delivery.stop(WAIT_S)


def test_a_prepare_that_raises_does_not_stop_the_delivery(caplog) -> None:
    """It is a bug of the sink, and its events still go out."""
    queue, sink = FakeQueue(*rows(1)), FakeSink()
    sink.prepare = lambda: 1 / 0
    delivery = Delivery(queue, sink, Telemetry())
    with caplog.at_level(logging.ERROR):
        delivery.start()
        assert delivery.stop(WAIT_S)
    assert queue.settled == [(1, Done())]
    assert "ZeroDivisionError" in caplog.text
