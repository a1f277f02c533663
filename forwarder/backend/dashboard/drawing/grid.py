"""A grid of cells, each shaded by its count and linked to the events behind it: the base of both heatmaps.

Cells with events are links. Only the first takes part in the tab order; the script lets arrow keys move between them,
and the page shows the same numbers as a table, so nobody has to tab through 168 cells.
"""

from collections.abc import Sequence

import msgspec
from markupsafe import Markup, escape

from forwarder.backend.dashboard.drawing.svg import element, level, picture

CELL = 14  # with its gap
GAP = 2
INSET = 1.5  # of an empty cell's path inside its cell: half the stroke that rounds it
EDGE = CELL - GAP - 2 * INSET
FONT = 10
TOP = 16  # the row of column labels


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """The rows or the columns. labels: "" where there is no room. words, links: their part of what a cell says and of
    where it leads; a cell has its row's, then its column's.
    """

    labels: Sequence[str]
    words: Sequence[str]
    links: Sequence[str]


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """What to draw. counts[row][column]. shape: a class."""

    title: str
    rows: Axis
    columns: Axis
    counts: Sequence[Sequence[int]]
    label_width: int
    shape: str


def draw(grid: Grid) -> Markup:
    """The grid as SVG; `aria-label` says what it is, each link what its cell holds."""
    most = max((count for row in grid.counts for count in row), default=0)
    xs = [grid.label_width + column * CELL for column in range(len(grid.columns.labels))]
    parts = [
        element("text", text, x=x, y=FONT, class_="grid-label")
        for x, text in zip(xs, grid.columns.labels, strict=True)
        if text
    ]
    # Escaped here, once: a page may have a thousand cells.
    columns = [
        (x, escape(words), escape(link))
        for x, words, link in zip(xs, grid.columns.words, grid.columns.links, strict=True)
    ]
    shades = {count: level(count, most) for row in grid.counts for count in row}
    empty: list[str] = []
    cells: list[str] = []
    size, tab = CELL - GAP, 0  # only the first is in the tab order
    for row, text in enumerate(grid.rows.labels):
        y = TOP + row * CELL
        parts.append(element("text", text, x=grid.label_width - 6, y=y + FONT, class_="grid-label grid-row"))
        row_words, row_link = escape(grid.rows.words[row]), escape(grid.rows.links[row])
        for column, count in enumerate(grid.counts[row]):
            x, column_words, column_link = columns[column]
            if not count:
                empty.append(f"M{x + INSET} {y + INSET}h{EDGE}v{EDGE}h-{EDGE}z")
                continue
            words = f"{row_words}{column_words}: {count:,} event{'' if count == 1 else 's'}"
            cells.append(
                f'<a href="{row_link}{column_link}" aria-label="{words}" tabindex="{tab}" data-cell="{row},{column}">'
                f'<title>{words}</title><rect class="level-{shades[count]}" x="{x}" y="{y}" width="{size}"'
                f' height="{size}" rx="2.5"/></a>'
            )
            tab = -1
    # All empty cells are one path: most cells are, and a page has two grids. The style sheet rounds its corners.
    parts.append(element("path", d="".join(empty), class_="level-0"))
    parts.append(Markup("".join(cells)))  # noqa: S704 - words and links are escaped above, all else are numbers
    width = grid.label_width + len(xs) * CELL
    height = TOP + len(grid.rows.labels) * CELL
    return picture(width, height, parts, class_=f"grid {grid.shape}", role="group", aria_label=grid.title)
