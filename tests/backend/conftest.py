"""A store on disk, a clock that stands still and a client in front of the API."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder.backend.api import create_app
from forwarder.backend.intake import NewEvent, read_event
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer Starlette asks for httpx2, which older ones do not know
    from fastapi.testclient import TestClient

NOW_S = 1_780_000_000.0
NOW_US = 1_780_000_000_000_000

ENTITY = "component:shop/payments-api"


@pytest.fixture
def open_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Store]]:
    """`open_store()`: a new, empty store; closed in the end."""
    opened: list[Store] = []

    def make() -> Store:
        opened.append(Store.open(str(tmp_path_factory.mktemp("store") / "backend.db")))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


@pytest.fixture
def event() -> Callable[..., NewEvent]:
    """`event(id="a", revision=1)`: a valid event with those fields."""

    def make(**fields: Any) -> NewEvent:
        made = read_event({"entity_ref": ENTITY, "type": "kubectl-exec", "severity": "high", **fields})
        assert isinstance(made, NewEvent), made
        return made

    return make


@pytest.fixture
def connect(store: Store) -> Iterator[Callable[..., TestClient]]:
    """`connect(api_key="k")`: a client of a backend with those settings; it lives until the test ends."""
    clients: list[TestClient] = []

    def make(**settings: Any) -> TestClient:
        app = create_app(store, BackendSettings(**settings), lambda: NOW_S)
        client = TestClient(app)
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(connect: Callable[..., TestClient]) -> TestClient:
    return connect()


@pytest.fixture
def payload() -> Callable[..., dict[str, Any]]:
    """`payload(actor="jane")`: the JSON object of a valid event."""

    def make(**fields: Any) -> dict[str, Any]:
        made = {"entity_ref": ENTITY, "type": "kubectl-exec", "severity": "high", **fields}
        assert json.dumps(made)
        return made

    return make
