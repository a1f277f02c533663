"""The first page: services, filters, the feed, and how it looks when there is nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.backend.dashboard.conftest import Look

Payload = Callable[..., dict[str, Any]]
Connect = Callable[..., TestClient]


def send(client: TestClient, *events: dict[str, Any]) -> None:
    assert client.post("/events", json=list(events)).status_code == 200


def test_empty(client: TestClient, look: Look) -> None:
    """With nothing stored the page says so, and how to send the first event."""
    text = look(client, "/").text
    assert "Nothing has come in yet" in text
    assert "curl http://127.0.0.1:8000/events" in text
    assert "Bearer" not in text


def test_empty_with_a_key(connect: Connect, look: Look) -> None:
    """Where a key is needed, the command has it, by its variable."""
    assert 'Bearer $HEALERT_API_KEY"' in look(connect(api_key="k"), "/").text


@pytest.mark.parametrize("host", ["$(reboot)", "a;b", "a b", "`x`", "[::1];x"])
def test_hostile_host(connect: Connect, look: Look, host: str) -> None:
    """The command never carries a Host header that a shell would run."""
    client = connect(anonymous_reads=True)
    client.headers["host"] = host
    assert "curl http://localhost:8000/events" in look(client, "/").text.replace(
        f"http://{host}", "http://localhost:8000"
    )
    assert host not in look(client, "/").text


def test_the_command_works(client: TestClient, payload: Payload, look: Look) -> None:
    """What the page tells people to send is taken, and then the page has a service."""
    text = look(client, "/").text
    body = text[text.index("-d '") + 4 : text.index("' Or read")].strip()
    assert client.post("/events", content=body, headers={"Content-Type": "application/json"}).status_code == 200
    assert "example" in look(client, "/").text


def test_services(client: TestClient, payload: Payload, look: Look) -> None:
    """Worst first, each with its score in words, and links from name and number."""
    send(
        client,
        *[payload(entity_ref="component:shop/bad")] * 4,
        payload(entity_ref="component:shop/good", severity="low"),
    )
    seen = look(client, "/")
    assert seen.text.index("bad") < seen.text.index("good")
    assert "80 critical" in seen.text
    assert ("/service?ref=component:shop/bad", "bad") in seen.links
    figure = next(address for address, words in seen.links if words == "4 events of bad")
    assert look(client, figure).text.count("kubectl-exec") >= 4
    assert seen.having("svg", role="img")


def test_counts_by_rule(client: TestClient, payload: Payload, look: Look) -> None:
    """Each rule with its number, linked to exactly those events."""
    send(client, payload(), payload(type="port-forward"), payload(type="port-forward"))
    seen = look(client, "/")
    figure = next(address for address, words in seen.links if words == "port-forward 2")
    assert "2 events" in look(client, figure).text


def test_filters(client: TestClient, payload: Payload, look: Look) -> None:
    """By cluster, namespace, team and name; without script, by a form."""
    send(
        client,
        payload(entity_ref="component:shop/cart", cluster="eu", tags=["team:checkout"]),
        payload(entity_ref="component:pay/ledger", cluster="us"),
    )
    for query, found in {
        "cluster=eu": "cart", "namespace=pay": "ledger", "team=checkout": "cart", "q=ledg": "ledger",
    }.items():  # fmt: skip
        names = {words for address, words in look(client, f"/?{query}").links if address.startswith("/service")}
        assert found in names
        assert len({"cart", "ledger"} & names) == 1, query
    assert "No service fits" in look(client, "/?q=nowhere").text
    form = look(client, "/").having("form", action="/")
    assert len(form) == 1
    assert form[0].get("method", "get") == "get"


def test_pages(client: TestClient, payload: Payload, look: Look) -> None:
    """Beyond one page there is a next one, and no service is on both or on none."""
    names = [f"component:a/s{number}" for number in range(60)]
    send(client, *[payload(entity_ref=name) for name in names])
    first = look(client, "/")
    assert "1 to 30 of 60 services" in first.text
    second = look(client, next(address for address, words in first.links if words == "Next"))
    found = [address for page in (first, second) for address, _ in page.links if "/service?ref=component:a/" in address]
    listed = set(found)
    assert listed == {f"/service?ref={name}" for name in names}


def test_feed(client: TestClient, payload: Payload, look: Look) -> None:
    """The latest events stand beside it, with who, what and with which command, test events too."""
    send(client, payload(actor="jane", command="psql -c 'select 1'", test=True))
    text = look(client, "/").text
    assert "jane" in text
    assert "psql -c 'select 1'" in text


def test_expected_are_told(client: TestClient, payload: Payload, look: Look) -> None:
    """What triage took out is said, never silently missing."""
    send(client, payload(actor="jane"), payload(actor="joe"))
    form = {"actor": "jane", "author": "me", "reason": "on call", "until": "2027-01-01"}
    assert client.post("/triage", data=form, follow_redirects=False).status_code == 303
    text = look(client, "/").text
    assert "1 event more was marked as expected" in text.replace("  ", " ")
