"""The two heatmaps: when in the week it happens, and which rule on which day."""

from collections.abc import Mapping, Sequence
from datetime import date

from markupsafe import Markup

from forwarder.backend.dashboard.drawing.grid import Axis, Grid, draw

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HOURS = 24
WEEK_LABEL_WIDTH = 34
RULE_LABEL_CHARS = 22
RULE_LABEL_WIDTH = 134


def week_grid(counts: Sequence[Sequence[int]], link: str) -> Markup:
    """counts[weekday][hour], Monday first, hours of UTC. link: to the events of all of them, with a query string."""
    grid = Grid(
        title="events by weekday and hour, UTC",
        rows=Axis(labels=WEEKDAYS, words=WEEKDAYS, links=[f"{link}&weekday={number}" for number in range(7)]),
        columns=Axis(
            labels=[f"{hour:02}" if hour % 3 == 0 else "" for hour in range(HOURS)],
            words=[f" {hour:02}:00 to {hour:02}:59" for hour in range(HOURS)],
            links=[f"&hour={hour}" for hour in range(HOURS)],
        ),
        counts=counts,
        label_width=WEEK_LABEL_WIDTH,
        shape="week",
    )
    return draw(grid)


def day_grid(counts: Mapping[str, Sequence[int]], days: Sequence[date], links: Mapping[str, str]) -> Markup:
    """counts: by rule, one for each of `days`; rules in the order of the mapping. days: the columns, oldest first.

    links: by rule, to all its events, with a query string.
    """
    grid = Grid(
        title="events by day and rule",
        rows=Axis(labels=[_cut(rule) for rule in counts], words=list(counts), links=[links[rule] for rule in counts]),
        columns=Axis(
            labels=[_day_label(day) for day in days],
            words=[f" on {day:%a %d %b}" for day in days],
            links=[f"&since={day}&until={day}" for day in days],
        ),
        counts=list(counts.values()),
        label_width=RULE_LABEL_WIDTH,
        shape="days",
    )
    return draw(grid)


def _day_label(day: date) -> str:
    """The month where it begins, Mondays elsewhere, unless the two would stand on each other."""
    if day.day == 1:
        return f"{day:%b}"
    return str(day.day) if day.weekday() == 0 and 3 < day.day < 30 else ""


def _cut(text: str) -> str:
    return text if len(text) <= RULE_LABEL_CHARS else text[: RULE_LABEL_CHARS - 1] + "…"
