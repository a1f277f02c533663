"""Search across everything: services, actors and rules by a part of their name, events by their words."""

import msgspec

from forwarder.backend.store.events import EventFilter, EventPage, Events
from forwarder.backend.store.people import People, Tally
from forwarder.backend.store.views import NameKind

SUGGESTED = 10  # of each kind of name


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found; of events the first page."""

    entities: list[Tally]
    actors: list[Tally]
    rules: list[Tally]
    events: EventPage


class Search:
    """The search of one store."""

    def __init__(self, people: People, events: Events) -> None:
        self._people = people
        self._events = events

    def everything(self, text: str, *, limit: int = 50) -> Found:
        """All kinds at once; nothing for a text of blanks."""
        wanted = text.strip()
        if not wanted:
            return Found(entities=[], actors=[], rules=[], events=EventPage(events=[], next=""))
        entities, actors, rules = (
            self._people.names(kind, text=wanted, limit=SUGGESTED)
            for kind in (NameKind.ENTITY, NameKind.ACTOR, NameKind.RULE)
        )
        events = self._events.page(EventFilter(text=wanted), limit=limit)
        return Found(entities=entities, actors=actors, rules=rules, events=events)
