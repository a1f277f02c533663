"""Cells: where they stand, which are links, and which the Tab key stops at."""

from xml.etree import ElementTree as ET

from forwarder.backend.dashboard.drawing.grid import CELL, INSET, TOP, Grid, draw

HOSTILE = '"><script>alert(1)</script>'


def drawn(counts: list[list[int]], label: str = "row") -> ET.Element:
    grid = Grid(
        title="a title",
        row_labels=[label] * len(counts),
        column_labels=["a", "", "c"],
        counts=counts,
        words=lambda row, column: f"{row}/{column}",
        href=lambda row, column: f"/search?r={row}&c={column}",
        label_width=30,
        shape="week",
    )
    return ET.fromstring(str(draw(grid)))


def test_cells() -> None:
    """Cells with events link to them and say how many; empty ones are no links; one link is in the tab order."""
    picture = drawn([[0, 1, 0], [1200, 0, 0]])
    links = list(picture.iter("a"))
    assert [(link.get("href"), link.get("aria-label"), link.get("tabindex")) for link in links] == [
        ("/search?r=0&c=1", "0/1: 1 event", "0"),
        ("/search?r=1&c=0", "1/0: 1,200 events", "-1"),
    ]
    assert [link.get("data-cell") for link in links] == ["0,1", "1,0"]
    cells = list(picture.iter("rect"))
    assert [(cell.get("x"), cell.get("y"), cell.get("class")) for cell in cells] == [
        (str(30 + CELL), str(TOP), "level-1"),
        ("30", str(TOP + CELL), "level-4"),
    ]
    empty = next(picture.iter("path")).get("d") or ""
    assert empty.count("M") == 4
    assert f"M{30 + 2 * CELL + INSET} {TOP + INSET}h9.0v9.0h-9.0z" in empty


def test_labels() -> None:
    """Empty labels are left out; every row has its own."""
    assert [text.text for text in drawn([[0, 0, 0]]).iter("text")] == ["a", "c", "row"]


def test_nothing() -> None:
    """An empty week is drawn as one."""
    picture = drawn([[0, 0, 0]])
    assert list(picture.iter("a")) == []
    assert (next(picture.iter("path")).get("d") or "").count("M") == 3


def test_hostile_labels() -> None:
    """A name that is markup is shown as text."""
    assert (
        next(text.text for text in drawn([[0, 0, 0]], HOSTILE).iter("text") if text.text and len(text.text) > 1)
        == HOSTILE
    )
