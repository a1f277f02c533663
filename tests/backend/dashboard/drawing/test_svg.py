"""Elements are well-formed and escaped whatever is put into them; shades keep the few visible among the many."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.backend.dashboard.drawing.svg import LEVELS, element, level, number, picture

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff"))


@given(TEXT, TEXT)
def test_escaped(value: str, inside: str) -> None:
    """What goes in as text comes out as that text, never as markup."""
    made = element("text", inside, aria_label=value, class_="x")
    parsed = ET.fromstring(str(made))
    assert (parsed.text or "") == inside
    assert parsed.get("aria-label") == value
    assert list(parsed) == []


def test_nested() -> None:
    """Elements inside elements stay elements."""
    made = picture(10, 4.5, [element("g", element("rect", x=1.0, y=2))], role="img")
    assert made == '<svg viewBox="0 0 10 4.5" width="10" height="4.5" role="img"><g><rect x="1" y="2"/></g></svg>'


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (1.005, "1"), (0.125, "0.12"), (-2.50, "-2.5"), (100, "100")])
def test_number(value: float, text: str) -> None:
    """Two decimals at most, and no zeros behind."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("count", "most", "shade"),
    [(0, 0, 0), (0, 9, 0), (-1, 9, 0), (1, 1, 2), (4, 4, 4), (1, 1000, 1), (250, 1000, 2), (1000, 1000, 4)],
)
def test_level(count: int, most: int, shade: int) -> None:
    """None is nothing, one is something, the most is the darkest."""
    assert level(count, most) == shade


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_levels_are_in_order(one: int, other: int) -> None:
    """More is never lighter."""
    most = max(one, other)
    assert 1 <= level(min(one, other), most) <= level(most, most) <= LEVELS
