"""The pages about the doors: every example in them is a configuration that loads."""

import re
from pathlib import Path

import pytest

from forwarder.registry import build_sink, build_source, load_config
from forwarder.settings import parse_document
from forwarder.telemetry import Telemetry
from forwarder.wire.budget import ByteBudget

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("webhook.md", "kafka.md", "file.md", "eks-gke.md")
HUB = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0;EntityPath=audit"
ENVIRONMENT = {"WEBHOOK_TOKEN": "t", "HEALERT_API_KEY": "k", "EVENT_HUB": HUB, "KAFKA_PASSWORD": "p"}
ENVIRONMENT |= {"AZURE_CLIENT_ID": "i", "AZURE_CLIENT_SECRET": "s"}


def examples() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"^ *```yaml\n(.*?)^ *```", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE):
            indent = len(block) - len(block.lstrip(" "))
            found.append((page, re.sub(rf"^ {{{indent}}}", "", block, flags=re.MULTILINE)))
    return found


@pytest.mark.parametrize(("page", "text"), examples(), ids=lambda value: value if value in PAGES else "")
def test_every_example_loads(page: str, text: str, tmp_path: Path) -> None:
    """And each part in it can be made."""
    whole = text
    whole += "sinks: {backend: {}}\n" if "sinks:" not in text else ""
    whole += "sources: {forward: {}}\n" if "sources:" not in text else ""
    loaded = load_config(parse_document(whole, str(tmp_path / page)), ENVIRONMENT)
    for name in loaded.sources:
        build_source(name, loaded, lambda *_: True, Telemetry(), ByteBudget())
    for name in loaded.sinks:
        build_sink(name, loaded, Telemetry())


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_examples_and_says_what_it_guarantees(page: str) -> None:
    """And what it costs."""
    assert page in {one for one, _ in examples()}
    assert "What is guaranteed, and what it costs" in (DOCS / page).read_text("utf-8")
