"""An explanation adds up."""

from collections.abc import Callable

import pytest

from forwarder.backend.intake import NewEvent, format_timestamp
from forwarder.backend.store import Store
from forwarder.backend.store.triage import FOREVER_US
from forwarder.backend.store.views import DAY_US

NOW_US = 1_780_000_000_000_000
REF = "component:shop/payments-api"


def test_parts(store: Store, event: Callable[..., NewEvent]) -> None:
    """What each rule adds on each day, each rule, each day: all three are the score."""
    store.record(
        [
            *[event(id=f"e{n}") for n in range(3)],
            event(id="d", type="config-drift", severity="low", timestamp=format_timestamp(NOW_US - 7 * DAY_US)),
            event(id="x", actor="robot", type="config-drift"),
        ],
        NOW_US,
    )
    store.triage.expect_pattern(
        actor="robot", rule="", entity_ref="", author="me", reason="r", now_us=NOW_US, until_us=FOREVER_US
    )
    told = store.scores.explain(REF, NOW_US)
    assert [(part.rule, part.day, part.count, part.points) for part in told.contributions] == [
        ("kubectl-exec", "2026-05-28", 3, pytest.approx(30.0)),
        ("config-drift", "2026-05-21", 1, pytest.approx(1.5)),
    ]
    assert (told.score, told.count, told.expected_count, told.points) == (63, 4, 1, pytest.approx(31.5))
    for parts in (told.contributions, told.by_rule, told.by_day):
        assert sum(part.share for part in parts) == pytest.approx(told.points / told.threshold * 100)
    assert [part.rule for part in told.by_rule] == ["kubectl-exec", "config-drift"]
    assert [part.day for part in told.by_day] == ["2026-05-28", "2026-05-21"]
