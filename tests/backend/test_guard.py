"""Headers on every answer, an end for every error, and caps on what is read."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect, Request

from forwarder.backend import guard
from forwarder.backend.guard import HEADERS, Bodies, Guard
from forwarder.backend.store import Store


@pytest.mark.parametrize("path", ["/", "/health", "/events", "/nowhere", "/friction/x", "/static/style.css"])
def test_headers(client: TestClient, path: str) -> None:
    """Every answer, errors too, forbids strange scripts, frames, sniffing and caching."""
    answer = client.get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_policy() -> None:
    """Nothing but our own files: no script or style in a page, nothing from elsewhere, no form sent elsewhere."""
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "form-action 'self'; frame-ancestors 'none'" in policy


def test_unforeseen_error(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is a plain 500; the log has its type and place, not its words, which may quote a payload."""

    def fail(*_: object, **__: object) -> None:
        raise KeyError("hunter2")

    monkeypatch.setattr(store, "latest", fail)
    with caplog.at_level(logging.DEBUG):
        answer = client.get("/events")
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "a request failed: KeyError in" in caplog.text
    assert "hunter2" not in caplog.text + answer.text


async def _call(app: Any) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    await Guard(app)({"type": "http"}, receive, send)
    return sent


async def test_error_before_the_answer() -> None:
    """An application that raises at once still gives its client a whole answer."""

    async def app(*_: object) -> None:
        raise RuntimeError

    start, body = await _call(app)
    assert (start["status"], body["body"]) == (500, b'{"detail":"internal error"}')


async def test_client_gone() -> None:
    """A client that went away is no error and gets no answer."""

    async def app(*_: object) -> None:
        raise ClientDisconnect

    assert await _call(app) == []


def _request(*chunks: bytes, then: Callable[[], Any] | None = None) -> Request:
    async def messages() -> AsyncIterator[dict[str, Any]]:
        for chunk in chunks:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        if then:
            await then()
        yield {"type": "http.request", "body": b"", "more_body": False}

    return Request({"type": "http", "headers": []}, messages().__anext__)


async def test_body() -> None:
    """A body arrives whole, whatever its pieces."""
    async with Bodies().read(_request(b"a", b"", b"bc")) as body:
        assert body == b"abc"


async def test_body_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte over the cap is a 413; the cap itself passes; what was held is given back."""
    monkeypatch.setattr(guard, "MAX_BODY_BYTES", 4)
    bodies = Bodies()
    async with bodies.read(_request(b"abcd")):
        assert bodies._held_bytes == 4
    with pytest.raises(HTTPException) as caught:
        async with bodies.read(_request(b"abcd", b"e")):
            pass
    assert caught.value.status_code == 413
    assert bodies._held_bytes == 0


async def test_bodies_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all requests together hold the cap, the next one is told to come back."""
    monkeypatch.setattr(guard, "MAX_BODIES_BYTES", 6)
    bodies = Bodies()
    async with bodies.read(_request(b"abcd")):
        with pytest.raises(HTTPException) as caught:
            async with bodies.read(_request(b"efg")):
                pass
    assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": "1"})
    async with bodies.read(_request(b"efg")) as body:
        assert body == b"efg"


async def test_body_that_dribbles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not end in time is a 408, and its share is given back."""
    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.0)
    bodies = Bodies()
    with pytest.raises(HTTPException) as caught:
        async with bodies.read(_request(b"a", then=asyncio.Event().wait)):
            pass
    assert caught.value.status_code == 408
    assert bodies._held_bytes == 0
