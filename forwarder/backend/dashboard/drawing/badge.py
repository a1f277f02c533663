"""A badge for a README: grey word, coloured score. It stands alone, so its colours are its own."""

from markupsafe import Markup

from forwarder.backend.dashboard.drawing.svg import Attributes, element, picture

COLOURS = {"critical": "#b00f36", "high": "#a84a00", "medium": "#756000", "low": "#1a7443"}
GREY = "#414b57"
WORD = "friction"
HEIGHT = 20
CHAR = 6.6  # of Verdana at 11 px, on average; textLength makes it exact
PADDING = 7


def badge(score: int, band: str) -> Markup:
    """score: 0 to 100. band: its word. White on all of these has a contrast of 4.5 at least."""
    text = f"{score} {band}"
    left, right = len(WORD) * CHAR + 2 * PADDING, len(text) * CHAR + 2 * PADDING
    words = f"{WORD}: {text}"
    parts = [
        element("title", words),
        element("rect", width=left + right, height=HEIGHT, rx=4, fill=GREY),
        element("path", d=_right(left, right), fill=COLOURS[band]),
        _text(WORD, PADDING, left - 2 * PADDING),
        _text(text, left + PADDING, right - 2 * PADDING),
    ]
    return picture(left + right, HEIGHT, parts, xmlns="http://www.w3.org/2000/svg", role="img", aria_label=words)


def _right(left: float, width: float) -> str:
    """The right part, with round corners on its right side only."""
    return f"M{left:.1f} 0h{width - 4:.1f}a4 4 0 0 1 4 4v12a4 4 0 0 1 -4 4h-{width - 4:.1f}z"


def _text(text: str, x: float, length: float) -> Markup:
    font: Attributes = {"font_family": "Verdana, DejaVu Sans, sans-serif", "font_size": 11, "fill": "#fff"}
    return element("text", text, x=x, y=14, textLength=length, **font)
