"""From an address to a filter: every field, and what becomes of what makes no sense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.backend.dashboard.filters import DAY_US, read_filter
from forwarder.backend.intake import parse_timestamp
from forwarder.backend.store.events import EventFilter


def test_every_field() -> None:
    """Each of them reaches the store, and can be linked to again."""
    query = {
        "entity": "component:shop/cart", "actor": "jane", "rule": "kubectl-exec", "severity": "high", "outcome": "denied",
        "namespace": "shop", "cluster": "prod", "object": "pods/shop/x", "q": "psql", "expected": "only",
        "since": "2026-01-31", "until": "2026-02-01T12:00:00Z", "weekday": "0", "hour": "23", "mark": "7", "tests": "1",
    }  # fmt: skip
    asked = read_filter(query)
    assert asked.problems == []
    assert asked.given == query
    assert asked.where == EventFilter(
        entity_ref="component:shop/cart", actor="jane", rule="kubectl-exec", severity="high", outcome="denied",
        namespace="shop", cluster="prod", object="pods/shop/x", text="psql", expected="only",
        since_us=parse_timestamp("2026-01-31"), until_us=parse_timestamp("2026-02-01T12:00:00Z"),
        weekday=0, hour=23, mark=7, tests=True,
    )  # fmt: skip


def test_until_a_day() -> None:
    """`until` a day means all of it."""
    assert read_filter({"until": "2026-01-31"}).where.until_us == (parse_timestamp("2026-01-31") or 0) + DAY_US


def test_nothing() -> None:
    """Empty fields are no filter."""
    asked = read_filter({"q": "  ", "since": "", "unknown": "x"})
    assert (asked.where, asked.given, asked.problems) == (EventFilter(), {}, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [("since", "yesterday"), ("until", "2026-02-31"), ("weekday", "7"), ("weekday", "-1"), ("hour", "24"), ("hour", "٣"),
     ("severity", "huge"), ("outcome", "qq"), ("expected", "qq"), ("mark", "9" * 30), ("tests", "yes"),
     ("actor", "x" * 601), ("actor", "a\0b"), ("weekday", "1.5")],
)  # fmt: skip
def test_nonsense(name: str, value: str) -> None:
    """A field that makes no sense is named, not quoted, and left out; the others hold."""
    asked = read_filter({name: value, "rule": "kubectl-exec"})
    assert len(asked.problems) == 1
    assert asked.problems[0].startswith(f"{name} must be ")
    assert value not in asked.problems[0].removeprefix(name)
    assert asked.where == EventFilter(rule="kubectl-exec")


@given(
    st.dictionaries(
        st.sampled_from(["q", "since", "until", "weekday", "hour", "mark", "expected", "entity"]), st.text()
    )
)
def test_anything(query: dict[str, str]) -> None:
    """No text raises."""
    read_filter(query)
