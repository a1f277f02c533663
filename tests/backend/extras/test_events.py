"""Events by HTTP: fields, filters, and headers that lead from page to page."""

from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

Payload = Callable[..., dict[str, Any]]


def test_a_whole_event(client: TestClient, payload: Payload) -> None:
    """Every field that was sent is told, and what became of it."""
    sent = payload(id="a", command="sh", resource="pods", name="web-1", namespace="shop", source_ips=["10.0.0.1"])
    client.post("/events", json=sent)
    (event,) = client.get("/api/v1/events").json()
    assert event | sent == event
    assert (event["object"], event["mark"], event["change"], event["revision"]) == ("pods/shop/web-1", 0, 1, 0)
    assert client.get("/api/v1/events/a").json() == event
    assert client.get("/api/v1/events/b").status_code == 404


def test_pages(client: TestClient, payload: Payload) -> None:
    """The link leads on with the same filter; the last page has none."""
    client.post("/events", json=[payload(id=f"{n}", actor="jane doe") for n in range(5)] + [payload(actor="joe")])
    found, path = [], "/api/v1/events?actor=jane%20doe&limit=2"
    while path:
        answer = client.get(path)
        found += [event["id"] for event in answer.json()]
        path = answer.headers["Link"].partition(">")[0][1:] if "Link" in answer.headers else ""
        assert ("X-Next-Cursor" in answer.headers) == bool(path)
    assert found == ["4", "3", "2", "1", "0"]


def test_refused(client: TestClient) -> None:
    """Each bad parameter is named."""
    for query, field in (
        ("since=x", "since"),
        ("cursor=x", "cursor"),
        ("weekday=7", "weekday"),
        ("severity=big", "severity"),
    ):
        answer = client.get(f"/api/v1/events?{query}")
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", field]


def test_sessions(client: TestClient, payload: Payload) -> None:
    """What is open now."""
    client.post("/events", json=[payload(id="a", stage="ResponseStarted"), payload(id="b")])
    assert [event["id"] for event in client.get("/api/v1/sessions").json()] == ["a"]
