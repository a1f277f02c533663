"""A grid of cells, each shaded by its count and linked to the events behind it: the base of both heatmaps.

Cells with events are links. Only the first takes part in the tab order; the script lets arrow keys move between them,
and the page shows the same numbers as a table, so nobody has to tab through 168 cells.
"""

from collections.abc import Callable, Sequence

import msgspec
from markupsafe import Markup, escape

from forwarder.backend.dashboard.drawing.svg import element, level, picture

CELL = 14  # with its gap
GAP = 2
INSET = 1.5  # of an empty cell's path inside its cell: half the stroke that rounds it
EDGE = CELL - GAP - 2 * INSET
FONT = 10
TOP = 16  # the row of column labels


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """What to draw. counts[row][column]. column_labels: "" where there is no room.

    shape: a class. words: of a cell, without its count.
    """

    title: str
    row_labels: Sequence[str]
    column_labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    words: Callable[[int, int], str]
    href: Callable[[int, int], str]
    label_width: int
    shape: str


def draw(grid: Grid) -> Markup:
    """The grid as SVG; `aria-label` says what it is, each link what its cell holds."""
    most = max((count for row in grid.counts for count in row), default=0)
    columns = len(grid.column_labels)
    parts: list[Markup] = []
    for column, text in enumerate(grid.column_labels):
        if text:
            parts.append(element("text", text, x=_x(grid, column), y=FONT, class_="grid-label"))
    first = True
    empty: list[str] = []
    cells: list[Markup] = []
    for row, text in enumerate(grid.row_labels):
        y = TOP + row * CELL
        parts.append(element("text", text, x=grid.label_width - 6, y=y + FONT, class_="grid-label grid-row"))
        for column, count in enumerate(grid.counts[row]):
            if count:
                cells.append(_cell(grid, row, column, count, level(count, most), tab=first))
                first = False
            else:
                empty.append(f"M{_x(grid, column) + INSET} {y + INSET}h{EDGE}v{EDGE}h-{EDGE}z")
    # All empty cells are one path: most cells are, and a page has two grids. The style sheet rounds its corners.
    parts.append(element("path", d="".join(empty), class_="level-0"))
    width = grid.label_width + columns * CELL
    height = TOP + len(grid.row_labels) * CELL
    return picture(width, height, [*parts, *cells], class_=f"grid {grid.shape}", role="group", aria_label=grid.title)


def _cell(grid: Grid, row: int, column: int, count: int, shade: int, *, tab: bool) -> Markup:
    """One link. Written out, not by `element`: a page may have a thousand of them."""
    size = CELL - GAP
    words = escape(f"{grid.words(row, column)}: {count:,} event{'' if count == 1 else 's'}")
    return Markup(  # noqa: S704 - the two texts are escaped, all else are numbers
        f'<a href="{escape(grid.href(row, column))}" aria-label="{words}" tabindex="{0 if tab else -1}"'
        f' data-cell="{row},{column}"><title>{words}</title><rect class="level-{shade}" x="{_x(grid, column)}"'
        f' y="{TOP + row * CELL}" width="{size}" height="{size}" rx="2.5"/></a>'
    )


def _x(grid: Grid, column: int) -> int:
    return grid.label_width + column * CELL
