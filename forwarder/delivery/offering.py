"""Offering: what a sink is given, what it answers, and what is said when it cannot.

A sink may have two things beyond its protocol: `prepare()`, called once, first, in its thread; and `batch_events`, how
many events it likes to be given at once, read anew for every batch.
"""

import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from forwarder.contracts import Done, Later, Outcome
from forwarder.telemetry import Telemetry

log = logging.getLogger(__name__)

BATCH_EVENTS = 200  # about 150 kB of JSON; one round trip for all of them
BROKEN_DELAYS_S = (1.0, 5.0, 30.0)  # after a sink raised: a bug seldom passes by itself, so not often
MIN_PAUSE_S = 0.05  # a sink that says "later" and means "now" must not keep a core busy
MAX_REASON_CHARS = 200  # of a sink's words in a log line

Event = TypeVar("Event")


class Offering(Generic[Event]):
    """One sink's side of a delivery, for the thread of that sink. Raises nothing: a fault of a sink stays with it.

    where_they_wait: words for the log, "in the outbox".
    """

    def __init__(self, sink: Any, telemetry: Telemetry, where_they_wait: str) -> None:
        self._sink = sink
        self._name: str = sink.name
        self._deliver: Callable[[Sequence[Event]], Sequence[Outcome]] = sink.deliver
        self._where = where_they_wait
        self._retries = telemetry["forwarder_sink_retries"].labels(sink=sink.name)
        self._refused_whole = 0  # batches in a row of which the sink put off every event
        self._broken = 0  # times in a row that it raised
        self._trouble = ""  # why it puts events off; "" while all is well

    @property
    def batch_events(self) -> int:
        """How many events the sink likes to be given at once."""
        return int(getattr(self._sink, "batch_events", BATCH_EVENTS))

    def prepare(self) -> None:
        """Let the sink get ready, where it has something to do."""
        prepare = getattr(self._sink, "prepare", None)
        if prepare is None:
            return
        try:
            prepare()
        except Exception as error:  # noqa: BLE001 - a bug of one sink stays with it
            self._say_broken(error, 0.0)

    def offer(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """One outcome per event, in order; those of a sink that raised are Later."""
        outcomes: Sequence[Outcome]
        try:
            outcomes = self._deliver(events)
            if len(outcomes) != len(events):
                raise ValueError("not one outcome per event")
        except Exception as error:  # noqa: BLE001 - a bug of one sink stays with it
            delay_s = BROKEN_DELAYS_S[min(self._broken, len(BROKEN_DELAYS_S) - 1)]
            self._broken += 1
            self._say_broken(error, delay_s)
            outcomes = [Later(delay_s)] * len(events)
        else:
            self._broken = 0
            self._say_trouble(outcomes)
        self._retries.inc(sum(isinstance(outcome, Later) and not outcome.held for outcome in outcomes))
        return outcomes

    def pause_s(self, outcomes: Sequence[Outcome]) -> float:
        """How long to leave the sink alone, seconds.

        Nothing after one batch that was put off whole: it may be about these events. After a second it is the sink.
        """
        delays = [outcome.delay_s for outcome in outcomes if isinstance(outcome, Later) and not outcome.held]
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
            log.warning("the sink %s puts events off: %s; they wait %s", self._name, plain(reason), self._where)
            self._trouble = reason
        elif self._trouble and not reason and any(isinstance(outcome, Done) for outcome in outcomes):
            log.info("the sink %s takes events again", self._name)
            self._trouble = ""

    def _say_broken(self, error: Exception, delay_s: float) -> None:
        """Where it happened, never the error's text: that may quote an event."""
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
        log.error("the sink %s failed with %s at %s, which is a bug; its events are offered again in %.0f s",
                  self._name, type(error).__name__, where, delay_s)  # fmt: skip


def plain(reason: str) -> str:
    """A sink's words as a log line may show them."""
    return "".join(char if char.isprintable() else " " for char in reason[:MAX_REASON_CHARS])
