"""The audit stream to one sink: a queue in memory with a bound, and a thread that empties it.

An audit stream carries every line, a hundred times what the outbox takes, so it is not written to disk again: it was on
its sender's disk, and stays there until it is acknowledged. `when_down` says which of two promises the sink makes:

- `block`: `put` answers with a future, done when the sink has taken (or refused) every event of it; the batch is
  acknowledged after that. A full queue refuses the batch. Nothing is lost, and a dead sink makes all senders wait.
- `drop`: `put` returns at once; where the queue is full its oldest events are dropped, counted and said.

The ledger of a stream, per process: put = delivered + refused + dropped + waiting (+ what a sender gave up waiting for
and sends again).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from forwarder.contracts import AuditSink, Later, Outcome, Refused, StreamSettings
from forwarder.delivery.offering import Offering, plain
from forwarder.errors import Overloaded, ShuttingDown
from forwarder.events.audit import AuditEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.settings import parse_bytes
from forwarder.telemetry import Telemetry

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0  # for a sender whose batch found the queue full
SAY_EVERY_S = 60.0  # how often a log line repeats that events are dropped


class _Ticket:
    """A batch that waits to be taken. left: how many of its events are still to go."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.taken: Future[None] = Future()


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    event: OutgoingEvent
    size_bytes: int
    ticket: _Ticket | None


class Stream:
    """`start` once; `put` from any thread; `stop` once, after the sources stopped."""

    def __init__(
        self, sink: AuditSink, settings: StreamSettings, wants: Callable[[AuditEvent], bool], telemetry: Telemetry
    ) -> None:
        """wants: which events this sink gets; given what was received, before redaction. Raises ConfigError for a size."""
        self.sink = sink
        self._settings = settings
        self._wants = wants
        self._max_bytes = parse_bytes(settings.queue_bytes, where=f"sinks.{sink.name}.queue_bytes")
        self._offering: Offering[OutgoingEvent] = Offering(sink, telemetry, "in memory")
        counter: Any = telemetry["forwarder_stream_events"]
        self._counts = {result: counter.labels(sink.name, result) for result in ("delivered", "refused", "dropped")}
        self._waiting: Any = telemetry["forwarder_stream_waiting"].labels(sink.name)
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._give_up_at = float("inf")
        self._dropped_unsaid = 0
        self._say_again_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"stream {sink.name}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def put(self, events: Sequence[OutgoingEvent]) -> "Future[None] | None":
        """Queue those that the sink wants. None: nothing to wait for. Else done once the sink has them all; whoever gives
        up waiting cancels it, and what was not sent by then is not sent. Raises Overloaded, ShuttingDown (`block` only).
        """
        wanted = [event for event in events if self._wants(event.original)]
        if not wanted:
            return None
        if not self._settings.redact:
            wanted = [event.unredacted() for event in wanted]
        ticket = _Ticket(len(wanted)) if self._settings.when_down == "block" else None
        size_bytes = sum(event.size_bytes for event in wanted)
        with self._changed:
            if ticket:
                if self._stopping:
                    raise ShuttingDown("the stream is shutting down")
                # a batch alone always fits, however large: it is bounded by its source
                if self._queue and self._full(len(wanted), size_bytes):
                    raise Overloaded(f"the sink {self.sink.name} is behind", retry_after_s=RETRY_AFTER_S)
            self._queue.extend(_Waiting(event, event.size_bytes, ticket) for event in wanted)
            self._bytes += size_bytes
            if not ticket:
                self._make_room()
            self._waiting.set(len(self._queue))
            self._changed.notify()
        return ticket.taken if ticket else None

    def stop_soon(self, deadline_s: float) -> None:
        """Empty the queue, no longer than `deadline_s`, then end; returns at once."""
        with self._changed:
            self._stopping = True
            self._give_up_at = time.monotonic() + deadline_s
            self._changed.notify()

    def join(self, deadline_s: float) -> bool:
        """Whether the thread ended in time. A sink that hangs is left behind."""
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._offering.prepare()
        while batch := self._next():
            outcomes = self._offering.offer([waiting.event for waiting in batch])
            self._settle(batch, outcomes)
            self._pause(self._offering.pause_s(outcomes))
        self.sink.close()
        self._end()

    def _next(self) -> list[_Waiting]:
        """The next batch; [] when it is time to end."""
        with self._changed:
            while True:
                if time.monotonic() >= self._give_up_at or (self._stopping and not self._queue):
                    return []
                batch: list[_Waiting] = []
                while self._queue and len(batch) < self._offering.batch_events:
                    waiting = self._queue.popleft()
                    self._bytes -= waiting.size_bytes
                    if waiting.ticket is None or not waiting.ticket.taken.cancelled():
                        batch.append(waiting)
                self._waiting.set(len(self._queue))
                if batch:
                    return batch
                if not self._stopping:
                    self._changed.wait()

    def _settle(self, batch: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
        again: list[_Waiting] = []
        refused = next((outcome.reason for outcome in outcomes if isinstance(outcome, Refused)), "")
        if refused:
            log.error("the sink %s refused audit events for good: %s", self.sink.name, plain(refused))
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Later):
                again.append(waiting)
                continue
            self._counts["refused" if isinstance(outcome, Refused) else "delivered"].inc()
            if waiting.ticket:
                waiting.ticket.left -= 1
                if waiting.ticket.left == 0 and waiting.ticket.taken.set_running_or_notify_cancel():
                    waiting.ticket.taken.set_result(None)
        if again:
            with self._changed:
                self._queue.extendleft(reversed(again))
                self._bytes += sum(waiting.size_bytes for waiting in again)
                if self._settings.when_down == "drop":
                    self._make_room()
                self._waiting.set(len(self._queue))

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._changed:
            while (left_s := min(until, self._give_up_at) - time.monotonic()) > 0:
                self._changed.wait(left_s)

    def _end(self) -> None:
        """What is left is dropped, or comes again because it is not acknowledged."""
        with self._changed:
            left, self._queue, self._bytes = list(self._queue), deque(), 0
            self._waiting.set(0)
        lost = sum(waiting.ticket is None for waiting in left)
        for waiting in left:
            if waiting.ticket:
                waiting.ticket.taken.cancel()
        if lost:
            self._counts["dropped"].inc(lost)
            log.error("the sink %s did not take %d audit events before the end; they are lost", self.sink.name, lost)

    # --- the bound; the lock is held ---------------------------------------------------------------------------------

    def _full(self, more_events: int, more_bytes: int) -> bool:
        return (
            len(self._queue) + more_events > self._settings.queue_events or self._bytes + more_bytes > self._max_bytes
        )

    def _make_room(self) -> None:
        dropped = 0
        while len(self._queue) > 1 and self._full(0, 0):
            self._bytes -= self._queue.popleft().size_bytes
            dropped += 1
        if not dropped:
            return
        self._counts["dropped"].inc(dropped)
        self._dropped_unsaid += dropped
        now = time.monotonic()
        if now >= self._say_again_at:
            log.error("the sink %s is behind: %d audit events were dropped; see `when_down`",
                      self.sink.name, self._dropped_unsaid)  # fmt: skip
            self._dropped_unsaid, self._say_again_at = 0, now + SAY_EVERY_S
