"""A feed on loopback, and clients that share no code with it."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forwarder.events.friction import FrictionEvent
from forwarder.feed.server import Feed
from forwarder.feed.settings import FeedSettings
from forwarder.settings import Address
from forwarder.telemetry import Telemetry
from tests.e2e.feed.protocol import Client


class Served:
    """A running feed. `changes`: how often it said that it may want something else now."""

    def __init__(self, settings: FeedSettings) -> None:
        self.telemetry = Telemetry()
        self.changes = 0
        self.feed = Feed(settings, self.telemetry, cluster="eu-1")
        self.address: Address = self.feed.start(self._changed)
        self._numbers = itertools.count()

    def _changed(self) -> None:
        self.changes += 1

    def show(self, count: int) -> None:
        """That many friction events, numbered in their audit ids."""
        self.feed.friction([friction(next(self._numbers)) for _ in range(count)])

    def clients(self) -> float:
        return self.telemetry.value("forwarder_feed_clients")


def friction(number: int, **more: Any) -> FrictionEvent:
    fields: dict[str, Any] = {
        "entity_ref": "component:prod/web", "type": "kubectl-exec", "severity": "high", "actor": "alice@corp.example",
        "workflow": "debug", "description": "d" * 200, "timestamp": "2026-03-01T10:00:00.250000Z", "points": 10,
        "id": str(number), "revision": 1, "audit_id": str(number), "verb": "create", "resource": "pods",
        "subresource": "exec", "name": "web-0", "namespace": "prod", "outcome": "denied", "response_code": 403,
    }  # fmt: skip
    return FrictionEvent(**(fields | more))


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """`serve(queue_events=…)`: a feed with these settings, on a port that the system chose."""
    opened: list[Served] = []

    def start(**settings: Any) -> Served:
        opened.append(Served(FeedSettings(**({"listen": "127.0.0.1:0"} | settings))))
        return opened[-1]

    yield start
    for served in opened:
        served.feed.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """`connect(served, credentials, metadata)`: a client of it."""
    opened: list[Client] = []

    def open_one(served: Served, credentials: Any = None, metadata: Any = (), host: str = "127.0.0.1") -> Client:
        opened.append(Client(f"{host}:{served.address.port}", credentials, metadata))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()
