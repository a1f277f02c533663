"""The page: what it shows, how it looks when there is nothing, and that it shows hostile text as text."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from forwarder.backend.pages import home
from forwarder.backend.store.scores import EntityScore


def entity(name: str = "component:shop/cart", rule: str = "kubectl-exec") -> EntityScore:
    return EntityScore(
        entity_ref=name,
        score=64,
        severity="high",
        points=32.0,
        count=7,
        top_rule=rule,
        last_event_us=1_769_860_800_000_000,
    )


def page(
    *entities: EntityScore, total: int | None = None, host: str = "localhost:8000", needs_key: bool = False
) -> str:
    return home(entities, len(entities) if total is None else total, host, window_days=30, needs_key=needs_key)


def test_services() -> None:
    """Each service stands with its score, severity, count, rule and time."""
    text = page(entity())
    for part in ("component:shop/cart", ">64<", ">high<", ">7<", "kubectl-exec", "2026-01-31 12:00:00"):
        assert part in text
    assert "curl" not in text


def test_more_services() -> None:
    """A list that is cut says so."""
    assert "The first 1 of 250 services." in page(entity(), total=250)


def test_empty() -> None:
    """With nothing to show the page says so and how to send the first event; the key is named where one is needed."""
    text = page()
    assert "curl http://localhost:8000/events" in text
    assert "HEALERT_API_KEY" not in text
    assert "Bearer $HEALERT_API_KEY" in page(needs_key=True)


def test_escaped() -> None:
    """Markup in a name is shown, not run."""
    text = page(entity(rule="<script>alert(1)</script>"))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("host", ["$(reboot)", "a;b", "a b", "", "`x`", "[::1];x"])
def test_hostile_host(host: str) -> None:
    """The command on the page never carries a Host header that a shell would run."""
    assert "curl http://localhost:8000/events" in page(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1:49152", "backend.example.com", "[::1]:8000"])
def test_host(host: str) -> None:
    """It carries the address that the visitor used."""
    assert f"curl http://{host}/events" in page(host=host)


def test_served(client: TestClient, payload: Callable[..., dict[str, Any]]) -> None:
    """The page and its style sheet come from this server alone."""
    assert "No event in the last 30 days" in client.get("/").text
    client.post("/events", json=payload())
    text = client.get("/").text
    assert "component:shop/payments-api" in text
    assert client.get("/static/style.css").headers["content-type"].startswith("text/css")
    assert "http" not in text.replace("http-equiv", "")
