"""docs/live-feed.md: what stands there works as it stands."""

import re
from pathlib import Path

from forwarder.feed import schema
from forwarder.feed.settings import FeedSettings
from forwarder.pipeline import Pipeline
from forwarder.registry import load_config
from forwarder.settings import convert, expand, parse_document
from forwarder.telemetry import Telemetry

PAGE = Path("docs/live-feed.md").read_text("utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_ten_lines_make_a_receiver_with_a_feed(tmp_path: Path) -> None:
    """A whole configuration: known settings that fit together; only what has to be opened is not."""
    block = BLOCKS[0]
    assert len(block.splitlines()) <= 10
    pipeline = Pipeline(load_config(parse_document(block, str(tmp_path / "f.yaml")), {}), Telemetry())
    assert pipeline.feed is not None


def test_the_example_for_other_machines_is_known() -> None:
    """Its certificates are somebody else's to make."""
    settings = convert(expand(parse_document(BLOCKS[1], "live-feed.md"), {}), FeedSettings, ("feed",))
    assert settings.tls is not None
    assert settings.tls.client_ca_file


def test_every_field_that_is_named_is_one() -> None:
    """The table of what KubeArmor's clients see."""
    table = PAGE[PAGE.index("## What KubeArmor's clients see") :]
    names = {field.name for kind in (schema.Alert, schema.Log) for field in kind.DESCRIPTOR.fields}
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 15
    assert named <= names
