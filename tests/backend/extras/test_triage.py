"""Triage by HTTP: mark, see, undo."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

Payload = Callable[..., dict[str, Any]]
REF = "component:shop/payments-api"
PATTERN = {"author": "me", "reason": "drill", "actor": "jane", "until": "2030-01-01"}


def score(client: TestClient) -> int:
    return int(client.get(f"/friction/{REF}").json()["frictionScore"]["score"])


def test_a_pattern(client: TestClient, payload: Payload) -> None:
    """It takes its events out of the score, is listed with their number, and is taken back."""
    client.post("/events", json=[payload(actor="jane"), payload(actor="joe")])
    (mark,) = client.post("/api/v1/marks", json=PATTERN).json()
    assert (mark["hidden"], mark["until"], score(client)) == (1, "2030-01-01T00:00:00.000000Z", 20)
    assert [event["mark"] for event in client.get("/api/v1/events?expected=only").json()] == [mark["id"]]
    ended = client.post(f"/api/v1/marks/{mark['id']}/undo", json={"author": "boss"}).json()
    assert (ended["ended_by"], score(client)) == ("boss", 40)
    again = client.post(f"/api/v1/marks/{mark['id']}/undo", json={"author": "boss"})
    assert (again.status_code, again.json()["detail"]) == (409, "it is not in force any more: undone already")
    assert client.post("/api/v1/marks/99/undo", json={"author": "boss"}).status_code == 404
    assert client.get("/api/v1/marks").json() == []
    assert client.get("/api/v1/marks?which=ended").json() == [ended]


def test_single_events(client: TestClient, payload: Payload) -> None:
    """By their ids, with or without an end."""
    client.post("/events", json=[payload(id="a"), payload(id="b")])
    marks = client.post("/api/v1/marks", json={"author": "me", "reason": "r", "event_ids": ["a"]}).json()
    assert [(mark["event_id"], mark["until"]) for mark in marks] == [("a", None)]
    assert score(client) == 20


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"author": ""}, "author"),
        ({"reason": ""}, "reason"),
        ({"until": ""}, "until"),
        ({"until": "soon"}, "until"),
        ({"actor": ""}, None),
        ({"event_ids": ["a"]}, "event_ids"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_refused(client: TestClient, change: dict[str, Any], field: str | None) -> None:
    """Nothing is marked in silence: who, why and until when are asked for, by name."""
    answer = client.post("/api/v1/marks", json={**PATTERN, **change})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == (["body", field] if field else ["body"])


def test_events_until_a_date_that_is_over(client: TestClient, payload: Payload) -> None:
    """The mark would be there and gone: the date is refused by name."""
    client.post("/events", json=payload(id="a"))
    wish = {"author": "me", "reason": "r", "event_ids": ["a"], "until": "2020-01-01"}
    answer = client.post("/api/v1/marks", json=wish)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "until"])
    assert client.get("/api/v1/marks").json() == []
