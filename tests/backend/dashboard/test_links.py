"""The pieces of every line: escaped, whoever made up the text, and leading to what they name."""

import pytest

from forwarder.backend.dashboard.links import actor_link, count_link, rule_tag, service_link, time_ago
from tests.backend.dashboard.conftest import Seen

HOSTILE = '"><script>alert(1)</script>'


@pytest.mark.parametrize(
    "markup",
    [
        service_link(f"component:{HOSTILE}/{HOSTILE}"),
        actor_link(HOSTILE),
        rule_tag(HOSTILE, HOSTILE, 3),
        count_link(3, {"actor": HOSTILE}, HOSTILE),
    ],
    ids=["service", "actor", "rule", "count"],
)
def test_hostile_texts(markup: str) -> None:
    """A text that is markup stays text: one link, no script."""
    seen = Seen(markup)
    assert [tag for tag, _ in seen.tags if tag in ("a", "script")] == ["a"]
    assert "%3Cscript%3E" in seen.links[0][0]


def test_names() -> None:
    """What each says, and where it leads."""
    assert Seen(service_link("component:shop/cart")).links == [("/service?ref=component:shop/cart", "shop/cart")]
    assert Seen(actor_link("jane@example.com")).links == [("/actor?name=jane@example.com", "jane@example.com")]
    assert Seen(rule_tag("kubectl-exec", "high", 1204)).links == [("/rule?name=kubectl-exec", "kubectl-exec 1,204")]
    assert Seen(count_link(2, {"actor": "jane", "rule": ""}, "events")).links == [("/search?actor=jane", "2 events")]


def test_nothing() -> None:
    """Nobody and nothing have no page."""
    assert actor_link("") == '<span class="quiet">unknown</span>'
    assert count_link(0, {"actor": "jane"}) == "0"


def test_time() -> None:
    """Words for people, a moment for scripts."""
    assert time_ago(1_780_000_000_000_000, 1_780_000_240_000_000) == (
        '<time datetime="2026-05-28T20:26:40Z">4 min ago</time>'
    )
