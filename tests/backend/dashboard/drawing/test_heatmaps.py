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
    picture = str(week_grid(counts, lambda weekday, hour: f"/w{weekday}h{hour}"))
    assert links(picture) == [
        ("/w0h0", "Mon 00:00 to 00:59: 1 event"),
        ("/w6h23", "Sun 23:00 to 23:59: 3 events"),
    ]
    empty = next(ET.fromstring(picture).iter("path")).get("d") or ""
    assert picture.count("<rect") + empty.count("M") == 7 * 24


def test_days() -> None:
    """One row per rule; a day that is not in the counts is empty; one that is not in the picture is left out."""
    counts = {"kubectl-exec": {DAYS[0]: 2, date(2020, 1, 1): 9}, "port-forward": {DAYS[29]: 1}}
    picture = str(day_grid(counts, DAYS, lambda rule, day: f"/{rule}/{day}"))
    assert links(picture) == [
        ("/kubectl-exec/2026-05-20", "kubectl-exec on Wed 20 May: 2 events"),
        ("/port-forward/2026-06-18", "port-forward on Thu 18 Jun: 1 event"),
    ]


def test_day_labels() -> None:
    """Mondays and the first of a month, never two on top of each other; long rules are cut."""
    picture = ET.fromstring(str(day_grid({"x" * 40: {}}, DAYS, lambda *_: "/")))
    assert [text.text for text in picture.iter("text")] == ["25", "Jun", "8", "15", "x" * 21 + "…"]
