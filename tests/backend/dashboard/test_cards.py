"""Cards for other pages: who may frame them, what they show, and what they ask for."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from fastapi.testclient import TestClient

from tests.backend.conftest import ENTITY
from tests.backend.dashboard.conftest import Look

Payload = Callable[..., dict[str, Any]]
Connect = Callable[..., TestClient]


def test_embed(client: TestClient, payload: Payload, look: Look) -> None:
    """The score with its sentence, framed by the origins that may call the API and by nobody else."""
    client.post("/events", json=payload())
    text = look(client, f"/embed/{ENTITY}").text
    assert "20 = 20 from 1 kubectl-exec today." in text
    headers = client.get(f"/embed/{ENTITY}").headers
    assert headers["content-security-policy"].endswith("frame-ancestors http://localhost:3000")
    assert "x-frame-options" not in headers
    assert client.get("/").headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("origins", "frames"),
    [((), "'none'"), (("*",), "*"), (("https://a.example", "https://b.example"), "https://a.example https://b.example"),
     (("https://a.example; script-src *",), "'none'")],
)  # fmt: skip
def test_frames(connect: Connect, origins: tuple[str, ...], frames: str) -> None:
    """What is no origin cannot add to the policy."""
    policy = connect(allowed_origins=origins).get(f"/embed/{ENTITY}").headers["content-security-policy"]
    assert policy.partition("frame-ancestors ")[2] == frames


def test_badge(client: TestClient, payload: Payload) -> None:
    """An image with the score that caches on the way may keep for minutes."""
    client.post("/events", json=[payload()] * 3)
    answer = client.get(f"/badge/{ENTITY}.svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["cache-control"] == "max-age=300"
    assert ET.fromstring(answer.text).get("aria-label") == "friction: 60 high"


@pytest.mark.parametrize("path", ["/embed/x", "/badge/x.svg", "/badge/component:a/<b>.svg", "/embed/"])
def test_no_reference(client: TestClient, path: str) -> None:
    """What is no service is a 400."""
    assert client.get(path).status_code == 400


def test_access(connect: Connect) -> None:
    """Off loopback cards ask for a key, unless they alone are opened."""
    closed = {"listen": "0.0.0.0:8000", "api_key": "k"}
    for path in (f"/embed/{ENTITY}", f"/badge/{ENTITY}.svg"):
        assert connect(**closed).get(path).status_code == 401
        assert connect(**closed, anonymous_cards=True).get(path).status_code == 200
        assert connect(**closed).get(path, headers={"Authorization": "Bearer k"}).status_code == 200
    assert connect(**closed, anonymous_cards=True).get("/events").status_code == 401
