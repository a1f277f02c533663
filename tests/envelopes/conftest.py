"""Messages as the clouds send them, whole, and the shipped rules to see what they give."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forwarder.detection.detector import Detector
from forwarder.detection.loader import load_rules
from forwarder.envelopes.contents import Contents
from forwarder.envelopes.opening import open_message
from forwarder.events.friction import FrictionEvent

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def message() -> Callable[[str], bytes]:
    """The bytes of a file in data/, compact as they come over the wire."""
    return lambda name: json.dumps(json.loads((DATA / name).read_text()), separators=(",", ":")).encode()


@pytest.fixture
def opened() -> Callable[..., Contents]:
    return lambda data, max_bytes=1 << 20: open_message(data, max_bytes=max_bytes)


@pytest.fixture
def friction() -> Callable[[Contents], list[FrictionEvent]]:
    """What the shipped rules find in the lines of a message; fails where a line is malformed."""
    detector = Detector(load_rules([ROOT / "rules/friction.yaml", ROOT / "rules/extended.yaml"]))

    def find(contents: Contents) -> list[Any]:
        return [
            event
            for found in contents.lines
            if detector.screen(found.line, 0, len(found.line))
            for event in detector.detect(found.line, cluster=found.cluster, time_s=found.time_s)
        ]

    return find
