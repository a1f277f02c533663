"""Actors, rules, services and the objects that were touched."""

from collections.abc import Callable

import pytest

from forwarder.backend.intake import NewEvent, format_timestamp
from forwarder.backend.store import Store

NOW_US = 1_780_000_000_000_000
REF = "component:shop/payments-api"


@pytest.fixture
def filled(store: Store, event: Callable[..., NewEvent]) -> Store:
    store.record(
        [
            *[event(actor="jane", cluster="east", resource="pods", name="web-1", namespace="shop", verb="create",
                    timestamp=format_timestamp(NOW_US - n)) for n in range(3)],
            event(actor="joe", type="config-drift", resource="deployments", name="web", namespace="shop", verb="patch"),
            event(actor="joe", entity_ref="component:web/cart", tags=["team=blue"]),
        ],
        NOW_US,
    )  # fmt: skip
    return store


def test_lists(filled: Store) -> None:
    """The noisiest first; a part of a name narrows it."""
    assert [(tally.name, tally.count) for tally in filled.people.actors()] == [("jane", 3), ("joe", 2)]
    assert [tally.name for tally in filled.people.actors(text="JO")] == ["joe"]
    assert [tally.name for tally in filled.people.actors(offset=1)] == ["joe"]
    assert [(tally.name, tally.count) for tally in filled.people.rules()] == [("kubectl-exec", 4), ("config-drift", 1)]
    assert (filled.people.clusters(), filled.people.namespaces()) == (["", "east"], ["shop", "web"])
    assert filled.people.teams() == ["blue"]


def test_one_of_each(filled: Store) -> None:
    """Each says what it has to do with the others."""
    jane = filled.people.actor("jane")
    assert jane is not None
    assert ([tally.name for tally in jane.entities], [tally.name for tally in jane.rules]) == ([REF], ["kubectl-exec"])
    rule = filled.people.rule("kubectl-exec")
    assert rule is not None
    assert [(tally.name, tally.count) for tally in rule.actors] == [("jane", 3), ("joe", 1)]
    entity = filled.people.entity(REF)
    assert entity is not None
    assert (entity.entity.count, entity.namespace, entity.actors[0].name) == (4, "shop", "jane")
    assert filled.people.actor("nobody") is filled.people.rule("no") is filled.people.entity("c:n/x") is None


def test_who_changed_this(filled: Store) -> None:
    """The objects of a service, each with its last change."""
    found = {touched.object: touched for touched in filled.people.touched(REF)}
    assert set(found) == {"pods/shop/web-1", "deployments/shop/web"}
    pod = found["pods/shop/web-1"]
    assert (pod.count, pod.last_actor, pod.last_verb, pod.name, pod.cluster) == (3, "jane", "create", "web-1", "east")
    assert filled.people.touched("c:n/x") == []


def test_search(filled: Store) -> None:
    """Names by a part of them, events by their words."""
    found = filled.search.everything("jane")
    assert ([tally.name for tally in found.actors], len(found.events.events)) == (["jane"], 3)
    assert [tally.name for tally in filled.search.everything("pay").entities] == [REF]
    assert filled.search.everything("  ").events.events == []
