"""Durable delivery: takes what is due from the outbox, offers it, and stores what the sink answered.

What a sink answered is stored before anything else is offered to it; while the disk cannot take the answers they are
kept here, so that nothing is sent again for that alone. Beside what `offering` names, a sink of friction events may have

    wants(event, stored_s)  whether to offer it this event, which came into the outbox at that Unix time; what it does not
                            want is settled as done, and counted
    memory                  bytes that it wants to find again after a restart: set before `prepare`, and when it has
                            changed, stored in the same transaction as the answers it belongs to
"""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Protocol

from forwarder.contracts import Done, Later, Outcome, Sink
from forwarder.delivery.offering import Offering
from forwarder.errors import Overloaded, ShuttingDown
from forwarder.events.friction import FrictionEvent
from forwarder.telemetry import Telemetry

log = logging.getLogger(__name__)

STORE_AGAIN_S = 1.0  # between two attempts to store answers on a disk that cannot take them


class Queue(Protocol):
    """What a delivery needs of the outbox."""

    def due(self, sink: str, limit: int) -> Sequence[tuple[int, bool, FrictionEvent, float]]:
        """Up to `limit` events to offer now, oldest first: (seq, whether it is an update, event, when it was stored).

        May raise Overloaded.
        """

    def settle(self, sink: str, outcomes: Sequence[tuple[int, Outcome]], memory: bytes | None = None) -> "Future[None]":
        """Answered when the outcomes, and the sink's memory where one is given, are durable; all of it or nothing.

        May raise Overloaded (try again) or ShuttingDown.
        """

    def memory(self, sink: str) -> bytes:
        """What was last stored as the sink's memory; empty when nothing was. May raise Overloaded."""

    def wait(self, sink: str) -> None:
        """Return when something may be due that was not at the last `due`."""

    def wake(self) -> None:
        """Make every `wait` return."""


class Delivery:
    """`start` once; `stop` once, before the outbox is closed."""

    def __init__(self, outbox: Queue, sink: Sink, telemetry: Telemetry) -> None:
        self.sink = sink
        self._queue = outbox
        self._offering: Offering[FrictionEvent] = Offering(sink, telemetry, "in the outbox")
        self._unwanted = telemetry["forwarder_sink_unwanted"].labels(sink=sink.name)
        self._memory: bytes | None = None  # as it is stored
        self._stopping = threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop_soon(self) -> None:
        """Stop when nothing is due any more; returns at once, so that several deliveries can finish side by side."""
        self._stopping.set()
        self._queue.wake()

    def stop(self, deadline_s: float) -> bool:
        """Go on until nothing is due or half of `deadline_s` has passed, then close the sink; the other half is for the
        call that is under way.

        True when the thread has ended. False when the sink hangs: what it holds is offered again after the next start.
        """
        self._give_up_at = time.monotonic() + deadline_s / 2
        self.stop_soon()
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def turn(self) -> float | None:
        """One batch: offer and store. None when nothing was due, else how long to leave the sink alone, seconds.

        Raises Overloaded when the outbox cannot be read, ShuttingDown when the answers could not be stored any more.
        """
        batch = self._queue.due(self.sink.name, self._offering.batch_events)
        if not batch:
            return None
        # What the sink learned of its peer since it was configured may be that the peer cannot take updates.
        fitting = [item for item in batch if self.sink.takes_updates or not item[1]]
        wants = getattr(self.sink, "wants", None)
        offered = fitting if wants is None else [item for item in fitting if wants(item[2], item[3])]
        self._unwanted.inc(len(fitting) - len(offered))
        outcomes = self._offering.offer([item[2] for item in offered]) if offered else []
        answers = dict(zip((item[0] for item in offered), outcomes, strict=True))
        self._store([(item[0], answers.get(item[0], Done())) for item in batch])
        return self._offering.pause_s(outcomes)

    # --- private -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._remember()
            self._offering.prepare()
            while not (self._stopping.is_set() and time.monotonic() >= self._give_up_at):
                try:
                    pause_s = self.turn()
                except Overloaded:
                    pause_s = STORE_AGAIN_S
                if pause_s and self._stopping.wait(pause_s):
                    return  # it wants to be left alone, and there is no time for that
                if pause_s is None:
                    if self._stopping.is_set():
                        return
                    self._queue.wait(self.sink.name)
        except ShuttingDown:
            log.warning("the sink %s was not done when the outbox closed; its events are offered again", self.sink.name)
        finally:
            self.sink.close()

    def _remember(self) -> None:
        """Give the sink its memory, where it has one."""
        while hasattr(self.sink, "memory") and self._memory is None:
            try:
                self._memory = self.sink.memory = self._queue.memory(self.sink.name)
            except Overloaded:
                if self._stopping.wait(STORE_AGAIN_S):
                    raise ShuttingDown("the outbox cannot be read") from None

    def _store(self, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        memory = getattr(self.sink, "memory", None)
        changed = memory if memory != self._memory else None
        stored = [item for item in outcomes if not _still_due(item[1])]
        while stored or changed is not None:
            try:
                self._queue.settle(self.sink.name, stored, changed).result()
                self._memory = memory
                return
            except CancelledError:
                raise ShuttingDown("the outbox is closed") from None
            except Overloaded:
                if self._stopping.wait(STORE_AGAIN_S) and time.monotonic() >= self._give_up_at:
                    raise ShuttingDown("the disk cannot take the answers") from None


def _still_due(outcome: Outcome) -> bool:
    return isinstance(outcome, Later) and outcome.held and outcome.delay_s <= 0
