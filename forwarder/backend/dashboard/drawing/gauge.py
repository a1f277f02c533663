"""A score as a ring that is as full as the score is high."""

from markupsafe import Markup

from forwarder.backend.dashboard.drawing.svg import Attributes, element, picture

SIZE = 120
RADIUS = 50
STROKE = 11


def gauge(score: int, band: str) -> Markup:
    """score: 0 to 100. band: its word, which is the ring's colour. Read out as `score 62 of 100, high`."""
    middle = SIZE / 2
    place: Attributes = {"cx": middle, "cy": middle, "r": RADIUS, "fill": "none", "stroke_width": STROKE}
    ring = [element("circle", class_="gauge-track", **place)]
    if score > 0:
        # pathLength makes the circumference 100 long; the turn lets it start at twelve o'clock.
        share: Attributes = {"pathLength": 100, "stroke_dasharray": f"{min(100, score)} 100"}
        ring.append(
            element(
                "circle", class_=f"gauge-value {band}", transform=f"rotate(-90 {middle} {middle})", **share, **place
            )
        )
    ring.append(element("text", str(score), x=middle, y=middle - 4, class_="gauge-number"))
    ring.append(element("text", band, x=middle, y=middle + 23, class_=f"gauge-word {band}"))
    return picture(SIZE, SIZE, ring, class_="gauge", role="img", aria_label=f"score {score} of 100, {band}")
