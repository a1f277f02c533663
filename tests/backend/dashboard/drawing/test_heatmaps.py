"""The week and the days: what their cells say and where they lead."""

from datetime import date, timedelta
from xml.etree import ElementTree as ET

from forwarder.backend.dashboard.drawing.heatmaps import day_grid, week_grid

DAYS = [date(2026, 5, 20) + timedelta(days=number) for number in range(30)]


def links(picture: str) -> list[tuple[str | None, str | None]]:
    return [(link.get("href"), link.get("aria-label")) for link in ET.fromstring(picture).iter("a")]


def test_week() -> None:
    """Seven rows of 24 hours, Monday first."""
    counts = [[0] * 24 for _ in range(7)]
    counts[0][0], counts[6][23] = 1, 3
    picture = str(week_grid(counts, "/search?a=b"))
    assert links(picture) == [
        ("/search?a=b&weekday=0&hour=0", "Mon 00:00 to 00:59: 1 event"),
        ("/search?a=b&weekday=6&hour=23", "Sun 23:00 to 23:59: 3 events"),
    ]
    empty = next(ET.fromstring(picture).iter("path")).get("d") or ""
    assert picture.count("<rect") + empty.count("M") == 7 * 24


def test_days() -> None:
    """One row per rule, one column per day."""
    counts = {"kubectl-exec": [2] + [0] * 29, "port-forward": [0] * 29 + [1]}
    picture = str(day_grid(counts, DAYS, {rule: f"/search?rule={rule}" for rule in counts}))
    assert links(picture) == [
        ("/search?rule=kubectl-exec&since=2026-05-20&until=2026-05-20", "kubectl-exec on Wed 20 May: 2 events"),
        ("/search?rule=port-forward&since=2026-06-18&until=2026-06-18", "port-forward on Thu 18 Jun: 1 event"),
    ]


def test_day_labels() -> None:
    """Mondays and the first of a month, never two on top of each other; long rules are cut."""
    picture = ET.fromstring(str(day_grid({"x" * 40: [0] * 30}, DAYS, {"x" * 40: "/"})))
    assert [text.text for text in picture.iter("text")] == ["25", "Jun", "8", "15", "x" * 21 + "…"]
