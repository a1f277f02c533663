"""Services by HTTP."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

Payload = Callable[..., dict[str, Any]]
REF = "component:shop/payments-api"


@pytest.fixture
def filled(client: TestClient, payload: Payload) -> TestClient:
    client.post("/events", json=[payload(cluster="east"), payload(entity_ref="component:web/cart", severity="low")])
    return client


def test_entities(filled: TestClient) -> None:
    """The worst first, with the total beside a page."""
    answer = filled.get("/api/v1/entities?limit=1")
    assert [entity["entity_ref"] for entity in answer.json()] == [REF]
    assert answer.headers["X-Total-Count"] == "2"
    assert answer.json()[0]["last_event"] == "2026-05-28T20:26:40.000000Z"
    assert [entity["score"] for entity in filled.get("/api/v1/entities?namespace=web").json()] == [6]


def test_one(filled: TestClient) -> None:
    """All that hangs below a reference, encoded or not."""
    for ref in (REF, "component%3Ashop%2Fpayments-api"):
        assert filled.get(f"/api/v1/entities/{ref}").json()["namespace"] == "shop"
        assert filled.get(f"/api/v1/entities/{ref}/history").json()[-1]["score"] == 20
        assert filled.get(f"/api/v1/entities/{ref}/objects").json() == []
        assert filled.get(f"/friction/{ref}/explain").json()["by_rule"][0]["share"] == pytest.approx(20.0)
        assert filled.get(f"/friction/{ref}").json()["frictionScore"]["score"] == 20


def test_nobody(filled: TestClient) -> None:
    """An unknown service is a 404 where there is nothing to tell, and what is no reference a 400."""
    assert filled.get("/api/v1/entities/component:shop/none").status_code == 404
    assert filled.get("/api/v1/entities/nonsense").status_code == 400
    assert filled.get("/friction/component:shop/none/explain").json()["score"] == 0


def test_summary(filled: TestClient) -> None:
    """Bands, and what there is to filter by."""
    told = filled.get("/api/v1/summary").json()
    assert told["bands"] == {"critical": 0, "high": 0, "medium": 0, "low": 2}
    assert (told["clusters"], told["namespaces"], told["teams"]) == (["", "east"], ["shop", "web"], [])
