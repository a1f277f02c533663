"""Series: cells and days hold the events that happened then, and no others."""

from collections.abc import Callable
from typing import Any

import pytest

from forwarder.backend.intake import NewEvent, format_timestamp
from forwarder.backend.store import Store
from forwarder.backend.store.charts import TooNarrow
from forwarder.backend.store.events import EventFilter
from forwarder.backend.store.views import DAY_US, HOUR_US

NOW_US = 1_780_000_000_000_000  # a Thursday, 20:26:40 UTC
REF = "component:shop/payments-api"


@pytest.fixture
def filled(store: Store, event: Callable[..., NewEvent]) -> Store:
    def at(us: int) -> str:
        return format_timestamp(NOW_US - us)

    store.record(
        [
            event(actor="jane", timestamp=at(0), tags=["team:red"]),
            event(actor="jane", timestamp=at(7 * DAY_US)),
            event(actor="joe", type="config-drift", timestamp=at(HOUR_US), cluster="east"),
            event(entity_ref="component:web/cart", actor="joe", timestamp=at(2 * DAY_US)),
            event(actor="jane", timestamp=at(0), test=True),
        ],
        NOW_US,
    )
    return store


@pytest.mark.parametrize(
    ("where", "cells"),
    [
        ({}, {(3, 20): 2, (3, 19): 1, (1, 20): 1}),
        ({"entity_ref": REF}, {(3, 20): 2, (3, 19): 1}),
        ({"entity_ref": REF, "rule": "config-drift"}, {(3, 19): 1}),
        ({"actor": "joe"}, {(3, 19): 1, (1, 20): 1}),
        ({"rule": "kubectl-exec"}, {(3, 20): 2, (1, 20): 1}),
        ({"cluster": "east"}, {(3, 19): 1}),
        ({"actor": "nobody"}, {}),
    ],
)
def test_heatmap(filled: Store, where: dict[str, Any], cells: dict[tuple[int, int], int]) -> None:
    """Hours of the week, Monday first; a cell's events are found by its weekday and hour."""
    told = filled.charts.heatmap(NOW_US, **where)
    assert {(day, hour): n for day, row in enumerate(told.counts) for hour, n in enumerate(row) if n} == cells
    assert (told.total, told.highest) == (sum(cells.values()), max(cells.values(), default=0))
    for (weekday, hour), count in cells.items():
        page = filled.events.page(EventFilter(**where, weekday=weekday, hour=hour, since_us=told.since_us), limit=10)
        assert len(page.events) == count


@pytest.mark.parametrize(
    ("where", "sums"),
    [
        ({}, {"kubectl-exec": 3, "config-drift": 1}),
        ({"entity_ref": REF}, {"kubectl-exec": 2, "config-drift": 1}),
        ({"actor": "joe"}, {"config-drift": 1, "kubectl-exec": 1}),
        ({"namespace": "web"}, {"kubectl-exec": 1}),
        ({"team": "red"}, {"kubectl-exec": 1}),
        ({"cluster": "east"}, {"config-drift": 1}),
        ({"days": 2}, {"kubectl-exec": 1, "config-drift": 1}),
    ],
)
def test_calendar(filled: Store, where: dict[str, Any], sums: dict[str, int]) -> None:
    """Days by rule, the most frequent first; the last day is today."""
    told = filled.charts.calendar(NOW_US, **where)
    assert {rule: sum(counts) for rule, counts in told.counts.items()} == sums
    assert told.days[-1] == "2026-05-28"
    assert {len(counts) for counts in told.counts.values()} == {len(told.days)}
    assert told.total == sum(sums.values())


def test_what_no_view_answers(filled: Store) -> None:
    """A combination that is not kept is refused rather than answered wrongly."""
    with pytest.raises(TooNarrow):
        filled.charts.heatmap(NOW_US, actor="joe", entity_ref=REF)
    with pytest.raises(TooNarrow):
        filled.charts.calendar(NOW_US, actor="joe", namespace="web")
