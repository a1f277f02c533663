"""Friction events to tell people about, and a clock that moves when told to."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from forwarder.events.friction import FrictionEvent

NOON = datetime(2025, 6, 18, 12, 0, tzinfo=UTC).timestamp()  # a Wednesday


def make(number: int = 1, *, at: float = NOON, **fields: Any) -> FrictionEvent:
    stamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    known = {"entity_ref": "component:shop/cart", "type": "kubectl-exec", "severity": "high", "actor": "jane",
             "workflow": "debug", "description": "kubectl exec on pods/cart-1 (ns:shop) by jane", "timestamp": stamp,
             "service": "cart", "namespace": "shop", "points": 10, "id": str(uuid.UUID(int=number)), "revision": 0,
             "audit_id": f"audit-{number}", "verb": "create", "resource": "pods", "subresource": "exec",
             "name": "cart-1"}  # fmt: skip
    return FrictionEvent(**(known | fields))


class Clock:
    """Unix seconds."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def event() -> Callable[..., FrictionEvent]:
    return make


@pytest.fixture
def clock() -> Clock:
    return Clock()
