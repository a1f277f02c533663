"""The pages about sinks: each example is a whole configuration that works as it stands."""

import re
from pathlib import Path

import pytest

from forwarder.pipeline import Pipeline
from forwarder.registry import load_config
from forwarder.settings import parse_document
from forwarder.telemetry import Telemetry

PAGES = ("slack.md", "notify.md", "falco.md", "forward-sink.md")
EXAMPLES = [
    pytest.param(block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", Path("docs", page).read_text("utf-8"), re.DOTALL))
]
VALUES = {"SLACK_WEBHOOK": "https://hooks.slack.com/services/T0/B0/x", "CHANNEL_ID": "C0123456789"}


@pytest.mark.parametrize("block", EXAMPLES)
def test_an_example_makes_a_receiver(block: str, tmp_path: Path) -> None:
    """Settings are known, values fit together, every part is built; only what has to be opened is not."""
    environ = {name: VALUES.get(name, "0123456789abcdef") for name in re.findall(r"\$\{(\w+)", block)}
    pipeline = Pipeline(load_config(parse_document(block, str(tmp_path / "f.yaml")), environ), Telemetry())
    assert pipeline.sinks or pipeline.streams
    assert len(block.splitlines()) <= 16
