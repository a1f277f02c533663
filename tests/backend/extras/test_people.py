"""Actors, rules, pictures and the search by HTTP."""

from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

Payload = Callable[..., dict[str, Any]]


def test_lists_and_pictures(client: TestClient, payload: Payload) -> None:
    """Each answers with what was recorded."""
    client.post("/events", json=[payload(actor="ops/jane@example.com", command="cat passwd") for _ in range(2)])
    assert [actor["count"] for actor in client.get("/api/v1/actors").json()] == [2]
    assert client.get("/api/v1/actors/ops/jane@example.com").json()["rules"][0]["name"] == "kubectl-exec"
    assert client.get("/api/v1/rules/kubectl-exec").json()["actors"][0]["count"] == 2
    assert client.get("/api/v1/actors/nobody").status_code == client.get("/api/v1/rules/none").status_code == 404
    assert client.get("/api/v1/heatmap").json()["counts"][3][20] == 2
    assert client.get("/api/v1/calendar").json()["counts"]["kubectl-exec"][-1] == 2
    found = client.get("/api/v1/search?text=passwd").json()
    assert (len(found["events"]), found["actors"], found["next"]) == (2, [], "")


def test_what_no_view_answers(client: TestClient) -> None:
    """It is a 422 that says what to leave out."""
    answer = client.get("/api/v1/heatmap?actor=a&rule=b")
    assert answer.status_code == 422
    assert "leave those out" in answer.json()["detail"][0]["msg"]
    assert client.get("/api/v1/calendar?actor=a&team=b").status_code == 422
