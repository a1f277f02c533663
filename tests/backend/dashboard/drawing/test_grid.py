"""Cells: where they stand, which are links, and which the Tab key stops at."""

from xml.etree import ElementTree as ET

from forwarder.backend.dashboard.drawing.grid import CELL, INSET, TOP, Axis, Grid, draw

HOSTILE = '"><script>alert(1)</script>'


def drawn(counts: list[list[int]], label: str = "row") -> ET.Element:
    grid = Grid(
        title="a title",
        rows=Axis(
            labels=[label] * len(counts),
            words=[f"{label} {row}" for row in range(len(counts))],
            links=[f"/search?l={label}&r={row}" for row in range(len(counts))],
        ),
        columns=Axis(labels=["a", "", "c"], words=["/0", "/1", "/2"], links=["&c=0", "&c=1", "&c=2"]),
        counts=counts,
        label_width=30,
        shape="week",
    )
    return ET.fromstring(str(draw(grid)))


def test_cells() -> None:
    """Cells with events link to them and say how many; empty ones are no links; one link is in the tab order."""
    picture = drawn([[0, 1, 0], [1200, 0, 0]])
    links = list(picture.iter("a"))
    assert [(link.get("href"), link.get("aria-label"), link.get("tabindex")) for link in links] == [
        ("/search?l=row&r=0&c=1", "row 0/1: 1 event", "0"),
        ("/search?l=row&r=1&c=0", "row 1/0: 1,200 events", "-1"),
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
    """A name that is markup is shown as text, in labels and in what cells say and lead to."""
    picture = drawn([[0, 1, 0]], HOSTILE)
    assert next(text.text for text in picture.iter("text") if text.text and len(text.text) > 1) == HOSTILE
    link = next(picture.iter("a"))
    assert (link.get("href"), link.get("aria-label")) == (f"/search?l={HOSTILE}&r=0&c=1", f"{HOSTILE} 0/1: 1 event")
    assert [title.text for title in picture.iter("title")] == [f"{HOSTILE} 0/1: 1 event"]
