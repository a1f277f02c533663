"""Actors: the list, one of them, and names that are hard to write into an address."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.backend.dashboard.conftest import Look

Payload = Callable[..., dict[str, Any]]


def send(client: TestClient, *events: dict[str, Any]) -> None:
    assert client.post("/events", json=list(events)).status_code == 200


def test_list(client: TestClient, payload: Payload, look: Look) -> None:
    """The noisiest first, each with a figure that leads to exactly their events; filtered by a part of the name."""
    send(client, payload(actor="jane"), payload(actor="joe"), payload(actor="joe"))
    seen = look(client, "/actors")
    assert seen.text.index("joe") < seen.text.index("jane")
    figure = next(address for address, words in seen.links if words == "2 events of joe")
    assert "2 events" in look(client, figure).text
    assert "/actor?name=joe" not in look(client, "/actors?q=JAN").addresses()
    assert "No actor has that in the name" in look(client, "/actors?q=nobody").text


def test_pages(client: TestClient, payload: Payload, look: Look) -> None:
    """Page by page, each actor once."""
    send(client, *[payload(actor=f"a{number}") for number in range(70)])
    first = look(client, "/actors")
    second = look(client, next(address for address, words in first.links if words == "Next"))
    found = [address for page in (first, second) for address, _ in page.links if address.startswith("/actor?")]
    assert sorted(found) == sorted(f"/actor?name=a{number}" for number in range(70))


def test_one(client: TestClient, payload: Payload, look: Look) -> None:
    """Where, how and when, and what they did."""
    send(client, payload(actor="jane", command="env"), payload(actor="jane", type="port-forward"), payload(actor="joe"))
    seen = look(client, "/actor?name=jane")
    assert "2 events" in seen.text
    assert "env" in seen.text.split()
    assert "joe" not in seen.text.split()
    assert {"/service?ref=component:shop/payments-api", "/rule?name=port-forward"} <= seen.addresses()


@pytest.mark.parametrize("name", ["..", ".", "a/b?c#d&e=f", "%2e%2e", "jos\u00e9@corp.example", " x ", "+1"])
def test_awkward_names(client: TestClient, payload: Payload, look: Look, name: str) -> None:
    """A name is a parameter, not a part of the path: no browser can read it as another address."""
    send(client, payload(actor=name, id="a"), payload(actor="other"))
    link = next(address for address in look(client, "/event?id=a").addresses() if address.startswith("/actor?"))
    assert "1 event" in look(client, link).text


def test_unknown(client: TestClient, payload: Payload, look: Look) -> None:
    """One that never did anything has a page that says so; an event without an actor names none."""
    assert "No event of this actor" in look(client, "/actor?name=x").text
    send(client, payload())
    assert "unknown" in look(client, "/").text
    assert "No such page" in look(client, "/actor?name=x&cursor=y", 400).text
