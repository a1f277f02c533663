"""Friction events that were shown a moment ago: a batch whose acknowledgement was lost comes again, whole."""

from collections.abc import Sequence

from forwarder.events.friction import FrictionEvent

MAX_REMEMBERED = 8192  # a Forward chunk holds a few thousand lines, of which one in a hundred is friction; about 1 MiB


class Repeats:
    """Remembers the latest events; one thread."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], None] = {}  # insertion order is age

    def without(self, events: Sequence[FrictionEvent]) -> list[FrictionEvent]:
        """The events that are no repeats, in order; each is remembered."""
        fresh: list[FrictionEvent] = []
        for event in events:
            key = (event.id, event.revision)
            if key in self._seen:
                continue
            self._seen[key] = None
            fresh.append(event)
        while len(self._seen) > MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return fresh
