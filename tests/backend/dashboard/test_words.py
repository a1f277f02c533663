"""Numbers and moments in words."""

import pytest

from forwarder.backend.dashboard.words import address, ago, clock, day, duration, iso, listed, moment, plural, split_ref

NOON_US = 1_769_860_805_123_456  # 2026-01-31 12:00:05


def test_moments() -> None:
    """All in UTC, cut to whole seconds."""
    assert moment(NOON_US) == "2026-01-31 12:00:05"
    assert clock(NOON_US) == "12:00:05"
    assert iso(NOON_US) == "2026-01-31T12:00:05Z"
    assert day(NOON_US) == "Saturday, 31 January 2026"
    assert moment(-1) == "1969-12-31 23:59:59"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "just now"), (9, "just now"), (59, "59 s ago"), (60, "1 min ago"), (3599, "59 min ago"), (3600, "1 h ago"),
     (86_399, "23 h ago"), (86_400, "1 day ago"), (864_000, "10 days ago"), (-5, "just now"), (-7200, "in 2 h")],
)  # fmt: skip
def test_ago(seconds: int, words: str) -> None:
    """One unit, rounded down: nobody counts the minutes of last week."""
    assert ago(NOON_US - seconds * 1_000_000, NOON_US) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0.04, "0.0 s"), (4.26, "4.3 s"), (59.4, "59 s"), (60, "1 min"), (125, "2 min 5 s"), (3600, "1 h"),
     (3840, "1 h 4 min"), (172_800, "2 days"), (1e9, "11574 days")],
)  # fmt: skip
def test_duration(seconds: float | None, words: str) -> None:
    """How long a session took."""
    assert duration(seconds) == words


def test_plural_and_lists() -> None:
    """One is one."""
    assert [plural(0, "event"), plural(1, "event"), plural(1204, "event")] == ["0 events", "1 event", "1,204 events"]
    assert plural(2, "entry", "entries") == "2 entries"
    assert [listed([]), listed(["a"]), listed(["a", "b", "c"])] == ["", "a", "a, b and c"]


def test_address() -> None:
    """Parameters are quoted, also what would end one or begin another; empty ones are left out."""
    assert address("/") == "/"
    assert address("/x", {"a": "1"}, a="2", b="", c=None) == "/x?a=2"
    assert address("/x", q='a&b=c #"<>/?') == "/x?q=a%26b%3Dc%20%23%22%3C%3E/%3F"


def test_reference() -> None:
    """kind, namespace, name."""
    assert split_ref("component:shop/cart.v2") == ("component", "shop", "cart.v2")
