"""An emptied store is like a new one, but for settings and patterns."""

from collections.abc import Callable

from forwarder.backend.intake import NewEvent
from forwarder.backend.store import Store
from forwarder.backend.store.events import EventFilter
from forwarder.backend.store.scores import ScoreFilter
from forwarder.backend.store.triage import FOREVER_US

NOW_US = 1_780_000_000_000_000


def test_empty(store: Store, event: Callable[..., NewEvent]) -> None:
    """No event, score, name or word is left; what is recorded next is counted from nothing."""
    store.settings.change({"threshold": 20.0}, author="me", now_us=NOW_US)
    store.record([event(id=f"{n}", command="oldword") for n in range(3)], NOW_US)
    store.triage.expect_pattern(
        actor="x", rule="", entity_ref="", author="me", reason="r", now_us=NOW_US, until_us=FOREVER_US
    )
    store.triage.expect_events(["1"], author="me", reason="r", now_us=NOW_US)
    assert store.empty() == 3
    assert store.count(include_tests=True) == 0
    assert store.scores.page(ScoreFilter(), NOW_US).entities == store.people.actors() == []
    assert store.settings.chosen().threshold == 20.0
    assert [(mark.actor, mark.hidden) for mark in store.triage.marks("all")] == [("x", 0)]
    store.record([event(id="1", command="newword")], NOW_US)
    assert store.scores.friction("component:shop/payments-api", NOW_US).bypass_count == 1
    assert store.events.page(EventFilter(text="oldword"), limit=5).events == []
    assert len(store.events.page(EventFilter(text="newword"), limit=5).events) == 1
