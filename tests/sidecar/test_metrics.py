"""The sidecar's metrics: documented, and Fluent Bit's state read from its own answers."""

from pathlib import Path

import pytest

from forwarder.sidecar.metrics import SIDECAR_METRICS, Agent
from forwarder.telemetry import Telemetry, markdown


def test_the_documentation_has_the_table() -> None:
    """docs/sidecar.md is complete."""
    assert markdown(SIDECAR_METRICS) in Path("docs/sidecar.md").read_text("utf-8")


def test_a_registry_can_be_made_of_it() -> None:
    """Names and labels are valid."""
    assert b"forwarder_relay_bytes_total" in Telemetry(SIDECAR_METRICS).exposition()


def test_what_fluent_bit_says_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reload count and waiting chunks; None while nothing, or nonsense, comes."""
    agent = Agent(1)
    answers: dict[str, bytes | None] = {
        "/api/v2/reload": b'{"hot_reload_count":3}',
        "/api/v1/storage": b'{"storage_layer":{"chunks":{"total_chunks":9,"mem_chunks":1,"fs_chunks":8,'
        b'"fs_chunks_up":6,"fs_chunks_down":2}},"input_chunks":{}}',
    }
    monkeypatch.setattr(agent, "_get", answers.get)
    assert agent.reloads() == 3
    assert agent.chunks() == {"memory": 7, "disk": 2}
    assert agent.metrics() == b""
    answers["/api/v2/reload"] = answers["/api/v1/storage"] = b"<html>"
    assert agent.reloads() is None
    assert agent.chunks() is None
