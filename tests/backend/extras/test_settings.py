"""Settings by HTTP."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient


def values(client: TestClient) -> dict[str, float]:
    return {setting["name"]: setting["value"] for setting in client.get("/api/v1/settings").json()}


def test_change_and_reset(client: TestClient) -> None:
    """A preset, a single value that wins over it, and the way back."""
    client.put("/api/v1/settings", json={"preset": "strict", "half_life_days": 2.5, "author": "me"})
    assert (values(client)["threshold"], values(client)["half_life_days"]) == (20.0, 2.5)
    told = client.put("/api/v1/settings", json={"reset": True}).json()
    assert {setting["source"] for setting in told} == {"start"}
    assert values(client)["threshold"] == 50.0


def test_the_key_is_the_author(connect: Callable[..., TestClient]) -> None:
    """Whatever the body claims; without any key the body may say it."""
    for headers, key, author in (({"Authorization": "Bearer k"}, "k", "HEALERT_API_KEY"), ({}, "", "me")):
        told = (
            connect(api_key=key).put("/api/v1/settings", json={"threshold": 9, "author": "me"}, headers=headers).json()
        )
        assert [setting["author"] for setting in told if setting["source"] == "call"] == [author]


@pytest.mark.parametrize(
    "body", [{}, {"threshold": 0}, {"preset": "mad"}, {"half_life_days": "x"}, {"retention_days": 0}]
)
def test_refused(client: TestClient, body: dict[str, object]) -> None:
    """What makes no sense is a 422 that changes nothing."""
    assert client.put("/api/v1/settings", json=body).status_code == 422
    assert values(client)["threshold"] == 50.0
