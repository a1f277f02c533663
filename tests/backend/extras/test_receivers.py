"""Receivers by HTTP."""

from fastapi.testclient import TestClient

NOW_S = 1_780_000_000.0


def test_report(client: TestClient) -> None:
    """What a receiver reports is told again, and its clusters with it."""
    report = {
        "receiver": "r1",
        "version": "1.0",
        "clusters": [{"name": "east", "last_received_s": NOW_S}],
        "sinks": [{"name": "backend", "eligible": 5, "delivered": 4, "waiting": 1}],
        "later": "a field of a newer version",
    }
    assert client.post("/api/v1/reports", json=report).json() == {"status": "ok"}
    (receiver,) = client.get("/api/v1/receivers").json()
    assert (receiver["name"], receiver["late"], receiver["report"]["sinks"][0]["waiting"]) == ("r1", False, 1)
    (cluster,) = client.get("/api/v1/clusters").json()
    assert (cluster["name"], cluster["silent"], cluster["last_received"]) == (
        "east",
        False,
        "2026-05-28T20:26:40.000000Z",
    )


def test_refused(client: TestClient) -> None:
    """A report without a name is none."""
    assert client.post("/api/v1/reports", json={"receiver": ""}).status_code == 422
    assert client.post("/api/v1/reports", content="{}").status_code == 422
