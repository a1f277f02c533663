"""A badge that stands alone: an image of its own, readable on every band's colour."""

from xml.etree import ElementTree as ET

import pytest

from forwarder.backend.dashboard.drawing.badge import COLOURS, GREY, badge


def test_badge() -> None:
    """Word, score and band, for eyes and for screen readers."""
    drawn = ET.fromstring(str(badge(62, "high")))
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert drawn.get("aria-label") == "friction: 62 high"
    assert [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")] == ["friction", "62 high"]


@pytest.mark.parametrize("colour", [*COLOURS.values(), GREY])
def test_contrast(colour: str) -> None:
    """White on it has the contrast that WCAG AA asks of small text."""

    def light(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (light(int(colour[index : index + 2], 16)) for index in (1, 3, 5))
    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5
