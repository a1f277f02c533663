"""A score's way over some days, as small as a word."""

import functools
from collections.abc import Sequence

from markupsafe import Markup

from forwarder.backend.dashboard.drawing.svg import element, number, picture

WIDTH, HEIGHT = 96, 24
MARGIN = 2.5  # for the line's own width and the dot at its end


def sparkline(scores: Sequence[float], band: str, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """scores: oldest first, 0 to 100 each, on one scale, so that rows can be compared. band: the colour of today."""
    if not scores:
        return Markup("")
    points = _points(scores, width, height)
    line = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    floor = number(height)
    area = f"{number(points[0][0])},{floor} {line} {number(points[-1][0])},{floor}"
    parts = [
        element("polygon", points=area, class_="spark-area"),
        element("polyline", points=line, class_="spark-line"),
        element("circle", cx=points[-1][0], cy=points[-1][1], r=2, class_="spark-dot"),
    ]
    return picture(width, height, parts, class_=f"spark {band}", role="img", aria_label=_words(scores))


def _points(scores: Sequence[float], width: float, height: float) -> list[tuple[float, float]]:
    step = (width - 2 * MARGIN) / max(1, len(scores) - 1)
    span = height - 2 * MARGIN
    shifted = 0 if len(scores) > 1 else width - 2 * MARGIN  # one point is today's and stands at the end
    return [
        (MARGIN + shifted + index * step, MARGIN + span * (1 - min(100.0, max(0.0, score)) / 100))
        for index, score in enumerate(scores)
    ]


def _words(scores: Sequence[float]) -> str:
    first, last = round(scores[0]), round(scores[-1])
    days = f"over {len(scores)} days"
    if first == last:
        return f"steady at {last} {days}"
    return f"{'up' if last > first else 'down'} from {first} to {last} {days}"


def bars(counts: Sequence[int], band: str, what: str) -> Markup:
    """Events per day, oldest first, each line on its own scale: whether it grows, not how it compares. what: the days."""
    most = max(counts, default=0)
    if not most:
        return Markup("")
    drawn: list[str] = []  # two paths, not a box for each day: a page has fifty of these
    empty: list[str] = []
    for index, count in enumerate(counts):
        if count:
            drawn.append(_box(len(counts), index, max(3, round((HEIGHT - 2) * count / most))))
        else:
            empty.append(_box(len(counts), index, 1))
    parts = [
        element("path", d="".join(empty), class_="spark-none"),
        element("path", d="".join(drawn), class_="spark-bar"),
    ]
    words = f"{what}: {', '.join(map(str, counts))}"
    return picture(WIDTH, HEIGHT, parts, class_=f"spark {band}", role="img", aria_label=words)


@functools.lru_cache(1024)
def _box(days: int, index: int, tall: int) -> str:
    step = WIDTH / days
    wide = number(step - 1.5)
    return f"M{number(index * step + 0.75)} {HEIGHT - 1 - tall}h{wide}v{tall}h-{wide}z"
