"""The list of services: order, filters, pages, bands, trends."""

from collections.abc import Callable
from typing import Any

import pytest

from forwarder.backend.intake import NewEvent, format_timestamp
from forwarder.backend.store import Store
from forwarder.backend.store.scores import TREND_DAYS, ScoreFilter
from forwarder.backend.store.views import DAY_US

NOW_US = 1_780_000_000_000_000


@pytest.fixture
def filled(store: Store, event: Callable[..., NewEvent]) -> Store:
    def some(ref: str, number: int, **fields: Any) -> list[NewEvent]:
        return [event(entity_ref=ref, points=10, **fields) for _ in range(number)]

    store.record(
        [
            *some("component:shop/pay", 5, cluster="east", tags=["team:red"]),
            *some("component:shop/cart", 3, cluster="west"),
            *some("component:web/front", 2, cluster="east"),
            *some("component:web/front", 1, cluster="west", type="config-drift"),
            *some("component:web/blog", 1, timestamp=format_timestamp(NOW_US - 3 * DAY_US)),
        ],
        NOW_US,
    )
    return store


def names(store: Store, **where: Any) -> list[str]:
    page = store.scores.page(ScoreFilter(**where), NOW_US)
    assert page.total == len(page.entities)
    return [entity.entity_ref.rpartition("/")[2] for entity in page.entities]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, ["pay", "front", "cart", "blog"]),
        ({"cluster": "east"}, ["pay", "front"]),
        ({"cluster": "north"}, []),
        ({"namespace": "web"}, ["front", "blog"]),
        ({"team": "red"}, ["pay"]),
        ({"text": "CA"}, ["cart"]),
        ({"text": "%"}, []),
        ({"severity": "critical"}, ["pay"]),
        ({"severity": "high"}, ["front", "cart"]),
        ({"severity": "low"}, ["blog"]),
        ({"severity": "medium"}, []),
        ({"namespace": "web", "cluster": "west"}, ["front"]),
    ],
)
def test_filters(filled: Store, where: dict[str, Any], expected: list[str]) -> None:
    """The worst first, among those that fit; in a cluster only what happened there counts."""
    assert sorted(names(filled, **where)) == sorted(expected)
    points = [entity.points for entity in filled.scores.page(ScoreFilter(**where), NOW_US).entities]
    assert points == sorted(points, reverse=True)


def test_an_entity(filled: Store) -> None:
    """What a line tells."""
    (pay,) = filled.scores.page(ScoreFilter(text="pay"), NOW_US).entities
    assert (pay.score, pay.severity, pay.count, pay.points) == (100, "critical", 5, pytest.approx(50.0))
    assert (pay.namespace, pay.team, pay.top_rule, pay.last_event_us) == ("shop", "red", "kubectl-exec", NOW_US)
    assert pay.trend == (*(0,) * (TREND_DAYS - 1), 5)


def test_top_rule(filled: Store) -> None:
    """The rule with most events."""
    (front,) = filled.scores.page(ScoreFilter(text="front"), NOW_US).entities
    assert front.top_rule == "kubectl-exec"


def test_pages_and_orders(filled: Store) -> None:
    """Pages follow each other; there are other orders than by score."""
    whole = filled.scores.page(ScoreFilter(), NOW_US).entities
    parts = [filled.scores.page(ScoreFilter(), NOW_US, offset=n, limit=1) for n in range(4)]
    assert [part.entities[0] for part in parts] == whole
    assert {part.total for part in parts} == {4}
    by_name = filled.scores.page(ScoreFilter(), NOW_US, sort="name").entities
    assert [entity.entity_ref for entity in by_name] == sorted(entity.entity_ref for entity in whole)
    assert filled.scores.page(ScoreFilter(), NOW_US, sort="events").entities[0].count == 5
    assert filled.scores.page(ScoreFilter(), NOW_US, sort="latest").entities[-1].entity_ref.endswith("blog")


def test_bands(filled: Store) -> None:
    """How many services are in each band."""
    assert filled.scores.bands(NOW_US) == {"critical": 1, "high": 2, "medium": 0, "low": 1}
    assert filled.scores.bands(NOW_US, cluster="west") == {"critical": 0, "high": 1, "medium": 0, "low": 1}


def test_nobody(store: Store) -> None:
    """A service that nobody knows has score 0, no history and nothing to explain."""
    assert store.scores.friction("c:n/x", NOW_US).score == 0
    assert store.scores.history("c:n/x", NOW_US) == []
    assert store.scores.explain("c:n/x", NOW_US).contributions == []


def test_a_card_is_all_three(filled: Store) -> None:
    """A page's card says what the three calls say."""
    for ref in ("component:shop/pay", "component:web/front", "component:web/nobody"):
        card = filled.scores.card(ref, NOW_US, days=14)
        assert card.explanation == filled.scores.explain(ref, NOW_US)
        history = filled.scores.history(ref, NOW_US, days=14)
        assert [(point.day, point.score, point.count) for point in card.history] == [
            (point.day, point.score, point.count) for point in history
        ]
        assert [point.points for point in card.history] == pytest.approx([point.points for point in history])
        told = filled.scores.friction(ref, NOW_US)
        assert card.friction == told
        assert (told.score, told.bypass_count) == (card.explanation.score, card.explanation.count)
