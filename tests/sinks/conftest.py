"""Backends without a network: a `requests` adapter that answers from a function."""

import io
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from forwarder.events.friction import FrictionEvent


class Asked:
    """One request as it would have gone out."""

    def __init__(self, request: requests.PreparedRequest) -> None:
        self.method = request.method
        self.path = request.path_url
        self.headers = request.headers
        body = request.body
        self.json: Any = json.loads(body) if body else None


class FakeNetwork(HTTPAdapter):
    """`answer(asked)` gives (status, body[, headers]) or an exception to raise."""

    def __init__(self, answer: Callable[[Asked], Any]) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[Asked] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:  # type: ignore[override]
        asked = Asked(request)
        self.asked.append(asked)
        answer = self.answer(asked)
        if isinstance(answer, Exception):
            raise answer
        status, body, *rest = answer
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = urllib3.HTTPResponse(
            body=io.BytesIO(raw), status=status, headers=rest[0] if rest else {}, preload_content=False
        )
        return self.build_response(request, reply)

    def posted(self) -> list[Any]:
        """The bodies of what was posted, but for the empty one that tries the key."""
        return [asked.json for asked in self.asked if asked.method == "POST" and asked.json != {}]


@pytest.fixture
def event() -> Callable[..., FrictionEvent]:
    def make(number: int, **fields: Any) -> FrictionEvent:
        known = {"entity_ref": "component:shop/cart", "type": "kubectl-exec", "severity": "high", "actor": "jane",
                 "workflow": "debug", "description": f"event {number}", "timestamp": "2025-06-15T12:00:00.000000Z",
                 "points": 10, "id": str(uuid.UUID(int=number)), "revision": 0, "audit_id": "a", "verb": "create",
                 "resource": "pods"}  # fmt: skip
        return FrictionEvent(**(known | fields))

    return make


@pytest.fixture
def network() -> Callable[[Callable[[Asked], Any]], FakeNetwork]:
    return FakeNetwork
