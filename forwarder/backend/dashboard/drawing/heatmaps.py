"""The two heatmaps: when in the week it happens, and which rule on which day."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date

from markupsafe import Markup

from forwarder.backend.dashboard.drawing.grid import Grid, draw

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HOURS = 24
WEEK_LABEL_WIDTH = 34
RULE_LABEL_CHARS = 22
RULE_LABEL_WIDTH = 134


def week_grid(counts: Sequence[Sequence[int]], href: Callable[[int, int], str]) -> Markup:
    """counts[weekday][hour], Monday first, hours of UTC. href(weekday, hour): the events behind a cell."""
    grid = Grid(
        title="events by weekday and hour, UTC",
        row_labels=WEEKDAYS,
        column_labels=[f"{hour:02}" if hour % 3 == 0 else "" for hour in range(HOURS)],
        counts=counts,
        words=lambda weekday, hour: f"{WEEKDAYS[weekday]} {hour:02}:00 to {hour:02}:59",
        href=href,
        label_width=WEEK_LABEL_WIDTH,
        shape="week",
    )
    return draw(grid)


def day_grid(
    counts: Mapping[str, Mapping[date, int]], days: Sequence[date], href: Callable[[str, date], str]
) -> Markup:
    """counts: by rule, then by day; rules in the order of the mapping. days: the columns, oldest first.

    href(rule, day): the events behind a cell.
    """
    rules = list(counts)
    grid = Grid(
        title="events by day and rule",
        row_labels=[_cut(rule) for rule in rules],
        column_labels=[_day_label(day) for day in days],
        counts=[[counts[rule].get(day, 0) for day in days] for rule in rules],
        words=lambda row, column: f"{rules[row]} on {days[column]:%a %d %b}",
        href=lambda row, column: href(rules[row], days[column]),
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
