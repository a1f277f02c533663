"""Pictures as tables: the same numbers, each with the events behind it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from tests.backend.dashboard.conftest import Look

Payload = Callable[..., dict[str, Any]]
REF = "component:shop/payments-api"


def send(client: TestClient, *events: dict[str, Any]) -> None:
    assert client.post("/events", json=list(events)).status_code == 200


@pytest.mark.parametrize(
    ("query", "tables"),
    [(f"entity={REF}", 4), ("actor=jane", 2), ("rule=kubectl-exec", 1)],
    ids=["entity", "actor", "rule"],
)
def test_every_figure_leads_to_its_events(
    client: TestClient, payload: Payload, look: Look, query: str, tables: int
) -> None:
    """Each count is a link, and behind it are as many events."""
    send(client, *[payload(actor="jane") for _ in range(3)], payload(actor="jane", type="port-forward"))
    seen = look(client, f"/table?{query}")
    assert len(seen.having("table")) == tables
    links = [(address, text) for address, text in seen.links if address.startswith("/search?") and "event" not in text]
    assert links
    for address, text in links:
        count = int(text.split()[0])
        word = "event" if count == 1 else "events"
        assert f"{count} {word}" in look(client, address).text, address


@pytest.mark.parametrize("query", ["", "?entity=", f"?entity={REF}&actor=jane"])
def test_of_one(client: TestClient, query: str) -> None:
    """A table is about one of the three; anything else says so."""
    answer = client.get(f"/table{query}")
    assert answer.status_code == 400
    assert "one service (entity=)" in answer.text


def test_of_nothing(client: TestClient, look: Look) -> None:
    """What is not known has empty tables."""
    seen = look(client, "/table?entity=component:a/nobody")
    assert "Nothing in these weeks." in seen.text
    assert "Nothing on these days." in seen.text


def test_hostile_names(client: TestClient, payload: Payload, look: Look) -> None:
    """A name that is markup is text."""
    name = '"><script>alert(1)</script>'
    send(client, payload(actor=name))
    seen = look(client, f"/table?actor={quote(name)}")
    assert name in seen.text
    assert "<script>alert" not in seen.html
