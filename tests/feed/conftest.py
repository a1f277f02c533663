"""Events as detection makes them."""

from collections.abc import Callable
from typing import Any

import pytest

from forwarder.events.friction import FrictionEvent


@pytest.fixture
def friction() -> Callable[..., FrictionEvent]:
    """`friction(outcome="denied", …)`: somebody opens a shell in a pod."""

    def make(**more: Any) -> FrictionEvent:
        fields: dict[str, Any] = {
            "entity_ref": "component:prod/web", "type": "kubectl-exec", "severity": "high", "actor": "alice@corp.example",
            "workflow": "debug", "description": "a shell in prod", "timestamp": "2026-03-01T10:00:00.250000Z", "points": 10,
            "id": "5a7f0d5e-7b52-5c2c-8a62-1d2a3c4b5d6e", "revision": 1, "audit_id": "63f3a61b-fb39-48eb-a023-ff005e00aa0a",
            "verb": "create", "resource": "pods", "subresource": "exec", "name": "web-0", "namespace": "prod",
            "service": "web", "cluster": "eu-1", "container": "app", "command": "sh -c id", "tty": True,
            "response_code": 101, "stage": "ResponseComplete", "duration_s": 12.5, "tags": ("shell", "prod"),
        }  # fmt: skip
        return FrictionEvent(**(fields | more))

    return make
