"""What goes on from here: events that this backend sees for the first time, to the sinks that hang off it.

With several receivers this is where their events meet, so it is the one place that can tell somebody of each of them once.
The order in `record` is the whole point: what is new is durable with the exit before the event is stored and its sender is
answered. Should the process die in between, the sender sends again, the store still does not know the event, and the exit
recognises it by its id: nothing is lost and nothing goes out twice.
"""

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from forwarder.backend.intake import NewEvent, format_timestamp
from forwarder.backend.store import Result, Store
from forwarder.events import friction
from forwarder.events.friction import FrictionEvent

Suppressed = Callable[[NewEvent], bool]
"""`suppressed(event)`: whether triage wants nobody told of it. Stored and answered it is all the same."""


class Exit(Protocol):
    """Where first-seen events go; every method may block, and is called from a worker thread."""

    def open(self) -> None:
        """Called once, before the first `put`. Raises ConfigError when it cannot be used; nothing is left open then."""

    def put(self, events: Sequence[FrictionEvent]) -> None:
        """Returns when `events` are durable; one whose id was put before changes nothing.

        Raises Overloaded or ShuttingDown, and then nothing of it was kept.
        """

    def skipped(self, reason: str, events: int) -> None:
        """Count what does not go on: `known`, `test` or `suppressed`."""

    def close(self) -> None:
        """Called once, after the last `put`."""


def never(_: NewEvent) -> bool:
    """Nothing is suppressed."""
    return False


class Onward:
    """The store's `record` with the exit before it."""

    def __init__(self, store: Store, exit_: Exit, suppressed: Suppressed = never) -> None:
        self._store = store
        self._exit = exit_
        self._suppressed = suppressed

    def record(self, batch: Sequence[NewEvent], now_us: int) -> list[Result]:
        """As Store.record; raises Overloaded or ShuttingDown too, and then nothing of `batch` was stored."""
        if going := self._chosen(batch):
            self._exit.put([as_friction(event, now_us) for event in going])
        return self._store.record(batch, now_us)

    def _chosen(self, batch: Sequence[NewEvent]) -> list[NewEvent]:
        """The newest revision of each event that is new here, in order of arrival."""
        newest: dict[str, NewEvent] = {}
        for event in batch:
            if event.id not in newest or event.revision > newest[event.id].revision:
                newest[event.id] = event
        known = self._store.known(list(newest))
        chosen: list[NewEvent] = []
        skipped = {"known": 0, "test": 0, "suppressed": 0}
        for event in newest.values():
            if event.id in known:
                skipped["known"] += 1
            elif event.test:
                skipped["test"] += 1
            elif self._suppressed(event):
                skipped["suppressed"] += 1
            else:
                chosen.append(event)
        for reason, events in skipped.items():
            if events:
                self._exit.skipped(reason, events)
        return chosen


def as_friction(event: NewEvent, now_us: int) -> FrictionEvent:
    """The event as sinks take it. A sender's id that is no UUID becomes one, always the same; what Healert's senders do not
    know is empty.
    """
    fields: dict[str, Any] = (
        {"audit_id": "", "verb": "", "resource": ""} | event.details | msgspec.structs.asdict(event)
    )
    fields["id"] = _uuid(event.id)
    fields["timestamp"] = format_timestamp(now_us if event.occurred_us is None else event.occurred_us)
    return msgspec.convert(fields, FrictionEvent)


def _uuid(event_id: str) -> str:
    try:
        if str(uuid.UUID(event_id)) == event_id:
            return event_id
    except ValueError:
        pass
    return str(uuid.uuid5(friction.NAMESPACE, event_id))
