"""Triage by HTTP: mark, see, undo."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

Connect = Callable[..., TestClient]
Payload = Callable[..., dict[str, Any]]
REF = "component:shop/payments-api"
PATTERN = {"author": "me", "reason": "drill", "actor": "jane", "until": "2030-01-01"}


def score(client: TestClient) -> int:
    return int(client.get(f"/friction/{REF}").json()["frictionScore"]["score"])


def test_a_pattern(client: TestClient, payload: Payload) -> None:
    """It takes its events out of the score, is listed with their number, and is taken back."""
    client.post("/events", json=[payload(actor="jane"), payload(actor="joe")])
    answer = client.post("/api/v1/marks", json=PATTERN).json()
    (mark,) = answer.pop("marks")
    assert answer == {"unknown": [], "already_marked": [], "tests": [], "note": ""}
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
    wish = {"author": "me", "reason": "r", "event_ids": ["a"]}
    marks = client.post("/api/v1/marks", json=wish).json()["marks"]
    assert [(mark["event_id"], mark["until"]) for mark in marks] == [("a", None)]
    assert score(client) == 20


def test_ids_without_a_mark_are_named(client: TestClient, payload: Payload) -> None:
    """Beside the new marks stands which ids got none, and why."""
    client.post("/events", json=[payload(id="a"), payload(id="b"), payload(id="t", test=True)])
    wish = {"author": "me", "reason": "r"}
    client.post("/api/v1/marks", json={**wish, "event_ids": ["a"]})
    told = client.post("/api/v1/marks", json={**wish, "event_ids": ["x", "a", "b", "t", "y", "b"]}).json()
    assert [mark["event_id"] for mark in told["marks"]] == ["b"]
    assert (told["unknown"], told["already_marked"], told["tests"]) == (["x", "y"], ["a"], ["t"])


@pytest.mark.parametrize(
    ("ids", "status", "words"),
    [
        (["x", "y"], 404, ["no event has this id", "no event has this id"]),
        (["x", "a", "t"], 409, ["no event has this id", "marked as expected already", "is a test event"]),
    ],
)
def test_no_id_gets_a_mark(client: TestClient, payload: Payload, ids: list[str], status: int, words: list[str]) -> None:
    """Then it is a refusal, which says of each id why, by its place."""
    client.post("/events", json=[payload(id="a"), payload(id="t", test=True)])
    wish = {"author": "me", "reason": "r"}
    client.post("/api/v1/marks", json={**wish, "event_ids": ["a"]})
    answer = client.post("/api/v1/marks", json={**wish, "event_ids": ids})
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert [item["loc"] for item in detail] == [["body", "event_ids", index] for index in range(len(ids))]
    assert all(part in item["msg"] for part, item in zip(words, detail, strict=True))
    assert len(client.get("/api/v1/marks").json()) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"author": ""}, "author"),
        ({"reason": ""}, "reason"),
        ({"until": ""}, "until"),
        ({"until": "soon"}, "until"),
        ({"until": "2020-01-01"}, "until"),
        ({"since": "2030-01-01"}, "since"),
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


def test_a_pattern_until_a_date_that_is_over(client: TestClient, payload: Payload) -> None:
    """It is taken where it covers something stored, and says that nothing to come is covered."""
    client.post("/events", json=payload(actor="jane", timestamp="2026-05-20T12:00:00Z"))
    told = client.post("/api/v1/marks", json={**PATTERN, "until": "2026-05-21"}).json()
    assert (told["marks"][0]["hidden"], score(client)) == (1, 0)
    assert told["note"] == "until is over already: this covers what happened before it, and nothing that is to come"
    client.post("/events", json=payload(actor="jane"))
    assert score(client) == 20
    again = client.post("/api/v1/marks", json={**PATTERN, "until": "2026-05-21"})
    assert again.status_code == 422
    assert "no stored event that counts is covered" in again.json()["detail"][0]["msg"]


def test_the_key_is_the_author(connect: Connect, client: TestClient, payload: Payload) -> None:
    """Whatever the body claims; without any key somebody has to say who it is."""
    keyed = connect(api_key="k")
    keyed.headers["Authorization"] = "Bearer k"
    keyed.post("/events", json=payload(id="a"))
    for wish in ({**PATTERN, "author": "the boss"}, {"reason": "r", "event_ids": ["a"]}):
        (mark,) = keyed.post("/api/v1/marks", json=wish).json()["marks"]
        assert mark["author"] == "HEALERT_API_KEY"
        ended = keyed.post(f"/api/v1/marks/{mark['id']}/undo", json={"author": "the boss"}).json()
        assert ended["ended_by"] == "HEALERT_API_KEY"
    for path, body in (("", {**PATTERN, "author": " "}), ("/1/undo", {})):
        answer = client.post(f"/api/v1/marks{path}", json=body)
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "author"])


def test_events_until_a_date_that_is_over(client: TestClient, payload: Payload) -> None:
    """The mark would be there and gone: the date is refused by name."""
    client.post("/events", json=payload(id="a"))
    wish = {"author": "me", "reason": "r", "event_ids": ["a"], "until": "2020-01-01"}
    answer = client.post("/api/v1/marks", json=wish)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "until"])
    assert client.get("/api/v1/marks").json() == []
