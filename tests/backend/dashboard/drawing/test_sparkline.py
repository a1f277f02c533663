"""One scale for all lines, the newest at the right, and words for those who do not see it."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

import pytest

from forwarder.backend.dashboard.drawing.sparkline import HEIGHT, MARGIN, WIDTH, bars, sparkline


def points(scores: Sequence[float]) -> list[tuple[float, float]]:
    line = next(ET.fromstring(str(sparkline(scores, "low"))).iter("polyline")).get("points")
    assert line
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]


def test_scale() -> None:
    """0 is at the bottom and 100 at the top, whatever else there is."""
    assert points([0, 50, 100]) == [(MARGIN, HEIGHT - MARGIN), (WIDTH / 2, HEIGHT / 2), (WIDTH - MARGIN, MARGIN)]
    assert points([-5, 500]) == [(MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, MARGIN)]


def test_one_day() -> None:
    """A service that is new today has a dot at the right."""
    assert points([40])[0][0] == WIDTH - MARGIN


def test_no_day() -> None:
    """Nothing is drawn for nothing."""
    assert sparkline([], "low") == ""


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([10, 62], "up from 10 to 62 over 2 days"),
        ([62, 0, 10], "down from 62 to 10 over 3 days"),
        ([5, 90, 5], "steady at 5 over 3 days"),
    ],
)
def test_words(scores: list[float], words: str) -> None:
    """The way from first to last."""
    assert f'aria-label="{words}"' in sparkline(scores, "high")


def test_bars() -> None:
    """A bar for each day, the highest as high as there is room; days without events are a line; words have the numbers."""
    picture = ET.fromstring(str(bars([0, 1, 4], "high", "events")))
    none, some = (path.get("d") or "" for path in picture.iter("path"))
    assert (none.count("M"), some.count("M")) == (1, 2)
    assert f"v{HEIGHT - 2}h" in some
    assert picture.get("aria-label") == "events: 0, 1, 4"
    assert bars([0, 0], "high", "events") == bars([], "high", "events") == ""
