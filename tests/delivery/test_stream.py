"""The audit stream to a sink: what is acknowledged was taken, what is dropped is counted, nothing grows without bound."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import pytest

from forwarder.contracts import Done, Later, Outcome, Refused, StreamSettings
from forwarder.delivery.stream import Stream
from forwarder.errors import ConfigError, Overloaded, ShuttingDown
from forwarder.events.audit import decode
from forwarder.events.outgoing import OutgoingEvent
from forwarder.telemetry import Telemetry

WAIT_S = 20.0


def event(number: int, verb: str = "get") -> OutgoingEvent:
    line = b'{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"%d","stage":"ResponseComplete","verb":"%s"}' % (
        number,
        verb.encode(),
    )
    return OutgoingEvent(decode(line), line)


def events(*numbers: int) -> list[OutgoingEvent]:
    return [event(number) for number in numbers]


class Sink:
    """Takes what it is given once `open` is set; answers as `answer` says."""

    name = "tail"
    batch_events = 4

    def __init__(self) -> None:
        self.open = threading.Event()
        self.offered = threading.Semaphore(0)
        self.taken: list[str] = []
        self.closed = False
        self.answer: Callable[[Sequence[OutgoingEvent]], Sequence[Outcome]] = lambda given: [Done()] * len(given)

    def deliver(self, given: Sequence[OutgoingEvent]) -> Sequence[Outcome]:
        self.offered.release()
        assert self.open.wait(WAIT_S)
        answers = self.answer(given)
        self.taken += [e.event.audit_id for e, answer in zip(given, answers, strict=True) if isinstance(answer, Done)]
        return answers

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[Stream, Sink, Telemetry]]]:
    started: list[tuple[Stream, Sink]] = []

    def build(wants: Callable[[Any], bool] = lambda _: True, **settings: Any) -> tuple[Stream, Sink, Telemetry]:
        sink, telemetry = Sink(), Telemetry()
        stream = Stream(sink, StreamSettings(stream="audit", **settings), wants, telemetry)
        stream.start()
        started.append((stream, sink))
        return stream, sink, telemetry

    yield build
    for stream, sink in started:
        sink.open.set()
        stream.stop_soon(0.0)
        assert stream.join(WAIT_S)
        assert sink.closed


def count(telemetry: Telemetry, result: str) -> float:
    return telemetry.value("forwarder_stream_events", sink="tail", result=result)


def test_a_blocking_stream_answers_when_the_sink_has_everything(make: Any) -> None:
    """Not before the last event of the batch was taken."""
    stream, sink, telemetry = make(when_down="block")
    taken = stream.put(events(*range(9)))
    assert taken is not None
    assert sink.offered.acquire(timeout=WAIT_S)
    assert not taken.done()
    sink.open.set()
    assert taken.result(WAIT_S) is None
    assert sink.taken == [str(number) for number in range(9)]
    assert count(telemetry, "delivered") == 9


def test_a_refused_event_is_counted_and_holds_nothing_up(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Offered again it would be refused again; the batch is acknowledged."""
    stream, sink, telemetry = make(when_down="block")
    sink.answer = lambda given: [Refused("too large"), *[Done()] * (len(given) - 1)]
    sink.open.set()
    stream.put(events(1, 2)).result(WAIT_S)
    assert (count(telemetry, "refused"), count(telemetry, "delivered")) == (1, 1)
    assert "refused audit events for good: too large" in caplog.text


def test_what_is_put_off_is_offered_again_in_order(make: Any) -> None:
    """Events behind it wait their turn."""
    stream, sink, _ = make(when_down="block")
    answers: list[Callable[[Any], list[Outcome]]] = [lambda given: [Done(), *[Later(0.0)] * (len(given) - 1)]]
    sink.answer = lambda given: answers.pop()(given) if answers else [Done()] * len(given)
    sink.open.set()
    stream.put(events(1, 2, 3, 4, 5)).result(WAIT_S)
    assert sink.taken == ["1", "2", "3", "4", "5"]


def test_a_full_queue_refuses_the_batch_of_a_blocking_stream(make: Any) -> None:
    """Its sender keeps it; nothing of it is queued. One batch alone always fits."""
    stream, sink, _ = make(when_down="block", queue_events=5)
    first = stream.put(events(*range(9)))
    assert sink.offered.acquire(timeout=WAIT_S)
    with pytest.raises(Overloaded):
        stream.put(events(20, 21))
    sink.open.set()
    assert first is not None
    first.result(WAIT_S)
    assert "20" not in sink.taken


def test_what_a_sender_gave_up_waiting_for_is_not_sent(make: Any) -> None:
    """It sends it again; only what was under way by then comes twice."""
    stream, sink, _ = make(when_down="block")
    taken = stream.put(events(*range(9)))
    assert sink.offered.acquire(timeout=WAIT_S)
    assert taken is not None
    assert taken.cancel()
    sink.open.set()
    stream.put(events(100)).result(WAIT_S)
    assert sink.taken == ["0", "1", "2", "3", "100"]


@pytest.mark.parametrize("bound", [{"queue_events": 3}, {"queue_bytes": sum(e.size_bytes for e in events(7, 8, 9))}])
def test_a_dropping_stream_keeps_the_newest_and_counts_the_rest(
    make: Any, bound: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """`put` never waits, whatever the sink does."""
    stream, sink, telemetry = make(**bound)
    assert stream.put(events(0)) is None
    assert sink.offered.acquire(timeout=WAIT_S)
    assert stream.put(events(*range(1, 10))) is None
    assert telemetry.value("forwarder_stream_waiting", sink="tail") == 3
    sink.open.set()
    stream.stop_soon(WAIT_S)
    assert stream.join(WAIT_S)
    assert sink.taken == ["0", "7", "8", "9"]
    assert (count(telemetry, "dropped"), count(telemetry, "delivered")) == (6, 4)
    assert "6 audit events were dropped" in caplog.text


def test_only_what_the_sink_wants_is_queued(make: Any) -> None:
    """A batch without any such event has nothing to wait for."""
    stream, sink, _ = make(wants=lambda e: e.verb == "delete", when_down="block")
    sink.open.set()
    assert stream.put(events(1, 2)) is None
    stream.put([event(3), event(4, "delete")]).result(WAIT_S)
    assert sink.taken == ["4"]


def test_what_is_left_at_the_end_is_lost_loudly_or_not_acknowledged(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A dropping stream says how many; a blocking one leaves them to their sender."""
    dropping, sink, telemetry = make()
    sink.answer = lambda given: [Later(60.0)] * len(given)
    sink.open.set()
    dropping.put(events(1, 2))
    blocking, other, _ = make(when_down="block")
    other.answer = lambda given: [Later(60.0)] * len(given)
    other.open.set()
    taken = blocking.put(events(3))
    assert sink.offered.acquire(timeout=WAIT_S)
    assert other.offered.acquire(timeout=WAIT_S)
    for stream in (dropping, blocking):
        stream.stop_soon(0.0)
        assert stream.join(WAIT_S)
    assert count(telemetry, "dropped") == 2
    assert "2 audit events before the end; they are lost" in caplog.text
    with pytest.raises(CancelledError):
        taken.result(WAIT_S)
    with pytest.raises(ShuttingDown):
        blocking.put(events(4))


def test_lines_leave_as_they_came_where_the_operator_said_so(make: Any) -> None:
    """`redact: false` is for a sink that is as trusted as the log."""
    stream, sink, _ = make(redact=False, when_down="block")
    seen: list[bytes] = []
    sink.answer = lambda given: [seen.append(e.json) or Done() for e in given]
    sink.open.set()
    line = b'{"kind":"Event","auditID":"1","verb":"get","userAgent":"curl password=hunter2"}'
    stream.put([OutgoingEvent(decode(line), line)]).result(WAIT_S)
    assert seen == [line]


def test_a_size_that_is_none_is_refused_at_the_start() -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match="queue_bytes"):
        Stream(Sink(), StreamSettings(queue_bytes="much"), lambda _: True, Telemetry())
