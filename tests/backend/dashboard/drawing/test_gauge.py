"""The ring is as full as the score, and says it in words."""

from xml.etree import ElementTree as ET

import pytest

from forwarder.backend.dashboard.drawing.gauge import gauge


@pytest.mark.parametrize(("score", "dash"), [(0, None), (1, "1 100"), (62, "62 100"), (100, "100 100")])
def test_gauge(score: int, dash: str | None) -> None:
    """Nothing is drawn for 0: a round line cap would leave a dot."""
    drawn = ET.fromstring(str(gauge(score, "high")))
    values = [ring.get("stroke-dasharray") for ring in drawn.iter("circle") if "gauge-value" in str(ring.get("class"))]
    assert values == ([dash] if dash else [])
    assert drawn.get("aria-label") == f"score {score} of 100, high"
    assert [text.text for text in drawn.iter("text")] == [str(score), "high"]
