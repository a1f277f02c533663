"""Delivery: one thread per sink that takes what is due from the outbox, offers it, and stores what the sink answered.

A sink that is down, slow or broken delays nobody but itself. What it answered is stored before anything else is offered
to it; while the disk cannot take the answers they are kept here, so that nothing is sent again for that alone. A sink
may have two things beyond the Sink protocol: `prepare()`, called once, first, in its thread; and `batch_events`, how many
events it likes to be given at once, read anew for every batch.
"""

import logging
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Protocol

from forwarder.contracts import Done, Later, Outcome, Sink
from forwarder.errors import Overloaded, ShuttingDown
from forwarder.events.friction import FrictionEvent
from forwarder.telemetry import Telemetry

log = logging.getLogger(__name__)

BATCH_EVENTS = 200  # about 150 kB of JSON; one round trip and one commit for all of them
BROKEN_DELAYS_S = (1.0, 5.0, 30.0)  # after a sink raised: a bug seldom passes by itself, so not often
MIN_PAUSE_S = 0.05  # a sink that says "later" and means "now" must not keep a core busy
STORE_AGAIN_S = 1.0  # between two attempts to store answers on a disk that cannot take them
MAX_REASON_CHARS = 200  # of a sink's words in a log line


class Queue(Protocol):
    """What a delivery needs of the outbox."""

    def due(self, sink: str, limit: int) -> Sequence[tuple[int, bool, FrictionEvent]]:
        """Up to `limit` events to offer now, oldest first: (seq, whether it is an update, event). May raise Overloaded."""

    def settle(self, sink: str, outcomes: Sequence[tuple[int, Outcome]]) -> "Future[None]":
        """Answered when the outcomes are durable. May raise Overloaded (try again) or ShuttingDown."""

    def wait(self, sink: str) -> None:
        """Return when something may be due that was not at the last `due`."""

    def wake(self) -> None:
        """Make every `wait` return."""


class Delivery:
    """`start` once; `stop` once, before the outbox is closed."""

    def __init__(self, outbox: Queue, sink: Sink, telemetry: Telemetry) -> None:
        self.sink = sink
        self._queue = outbox
        self._retries = telemetry["forwarder_sink_retries"].labels(sink=sink.name)
        self._stopping = threading.Event()
        self._give_up_at = float("inf")
        self._refused_whole = 0  # batches in a row of which the sink put off every event
        self._broken = 0  # times in a row that it raised
        self._trouble = ""  # why it puts events off; "" while all is well
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
        batch = self._queue.due(self.sink.name, getattr(self.sink, "batch_events", BATCH_EVENTS))
        if not batch:
            return None
        # What the sink learned of its peer since it was configured may be that the peer cannot take updates.
        offered = [item for item in batch if self.sink.takes_updates or not item[1]]
        outcomes = self._offer([event for _, _, event in offered]) if offered else []
        answers = dict(zip((seq for seq, _, _ in offered), outcomes, strict=True))
        self._store([(seq, answers.get(seq, Done())) for seq, _, _ in batch])
        return self._pause_s(outcomes)

    # --- private -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._prepare()
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

    def _prepare(self) -> None:
        prepare = getattr(self.sink, "prepare", None)
        if prepare is None:
            return
        try:
            prepare()
        except Exception as error:  # noqa: BLE001 - a bug of one sink stays with it
            self._say_broken(error, 0.0)

    def _offer(self, events: Sequence[FrictionEvent]) -> Sequence[Outcome]:
        try:
            outcomes = self.sink.deliver(events)
            if len(outcomes) != len(events):
                raise ValueError("not one outcome per event")
        except Exception as error:  # noqa: BLE001 - a bug of one sink stays with it
            delay_s = BROKEN_DELAYS_S[min(self._broken, len(BROKEN_DELAYS_S) - 1)]
            self._broken += 1
            self._say_broken(error, delay_s)
            return [Later(delay_s)] * len(events)
        self._broken = 0
        self._say_trouble(outcomes)
        return outcomes

    def _store(self, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        self._retries.inc(sum(isinstance(outcome, Later) for _, outcome in outcomes))
        while True:
            try:
                return self._queue.settle(self.sink.name, outcomes).result()
            except CancelledError:
                raise ShuttingDown("the outbox is closed") from None
            except Overloaded:
                if self._stopping.wait(STORE_AGAIN_S) and time.monotonic() >= self._give_up_at:
                    raise ShuttingDown("the disk cannot take the answers") from None

    def _pause_s(self, outcomes: Sequence[Outcome]) -> float:
        """Nothing after one batch that was put off whole: it may be about these events. After a second it is the sink."""
        delays = [outcome.delay_s for outcome in outcomes if isinstance(outcome, Later)]
        if not delays or len(delays) < len(outcomes):
            self._refused_whole = 0
            return 0.0
        self._refused_whole += 1
        return max(min(delays), MIN_PAUSE_S) if self._refused_whole > 1 else 0.0

    # --- what is said ------------------------------------------------------------------------------------------------

    def _say_trouble(self, outcomes: Sequence[Outcome]) -> None:
        """Once when trouble begins, once when it is over; a sink that merely paces itself gives no reason."""
        reason = next((outcome.reason for outcome in outcomes if isinstance(outcome, Later) and outcome.reason), "")
        if reason and not self._trouble:
            shown = "".join(char if char.isprintable() else " " for char in reason[:MAX_REASON_CHARS])
            log.warning("the sink %s puts events off: %s; they wait in the outbox", self.sink.name, shown)
            self._trouble = reason
        elif self._trouble and not reason and any(isinstance(outcome, Done) for outcome in outcomes):
            log.info("the sink %s takes events again", self.sink.name)
            self._trouble = ""

    def _say_broken(self, error: Exception, delay_s: float) -> None:
        """Where it happened, never the error's text: that may quote an event."""
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
        log.error("the sink %s failed with %s at %s, which is a bug; its events are offered again in %.0f s",
                  self.sink.name, type(error).__name__, where, delay_s)  # fmt: skip
