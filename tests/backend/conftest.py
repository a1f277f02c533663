"""A store on disk, a clock that stands still and a client in front of the API."""

import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forwarder.backend.api import create_app
from forwarder.backend.intake import NewEvent, read_event
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer Starlette asks for httpx2, which older ones do not know
    from fastapi.testclient import TestClient

POSTGRESQL = "FORWARDER_TEST_POSTGRESQL"  # URL of a server that tests may use, without a database's name
NOW_S = 1_780_000_000.0
NOW_US = 1_780_000_000_000_000

BASE_URL = "http://127.0.0.1:8000"  # without a key the backend answers to names of this machine only
ENTITY = "component:shop/payments-api"


def new_database(server: str) -> str:
    """The URL of a new, empty database of that server."""
    import psycopg  # noqa: PLC0415 - only where there is a server

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server + "postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    return server + name


@pytest.fixture
def open_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Store]]:
    """`open_store()`: a new, empty store; closed in the end.

    SQLite, or PostgreSQL where tests/e2e/backend runs these tests again with a server of its own.
    """
    opened: list[Store] = []

    def make() -> Store:
        server = os.environ.get(POSTGRESQL)
        database = new_database(server) if server else str(tmp_path_factory.mktemp("store") / "backend.db")
        opened.append(Store.open(database))
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
        client = TestClient(app, base_url=BASE_URL)
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
