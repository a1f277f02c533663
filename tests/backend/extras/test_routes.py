"""The whole API against its own description: whatever is sent, no 500, and every answer is one that OpenAPI names."""

import tempfile
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from forwarder.backend.api import create_app
from forwarder.backend.intake import NewEvent, read_event
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from tests.backend.conftest import NOW_S, NOW_US

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it speaks of its own dependencies
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    """The API over a store with a few events."""
    store = Store.open(str(tmp_path_factory.mktemp("api") / "backend.db"))
    fields = {"entity_ref": "component:shop/web", "type": "kubectl-exec", "severity": "high", "actor": "jane"}
    made = [
        read_event({**fields, "id": f"{n}", "resource": "pods", "name": "web", "cluster": "east"}) for n in range(5)
    ]
    store.record([event for event in made if isinstance(event, NewEvent)], NOW_US)
    app = create_app(store, BackendSettings(anonymous_reads=True), lambda: NOW_S)  # under whatever name
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    store.close()


def create_app_openapi() -> dict[str, dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"{folder}/backend.db")
        try:
            return create_app(store, BackendSettings()).openapi()["paths"]
        finally:
            store.close()


def operations() -> list[tuple[str, str]]:
    """Every method and path that the description names; a live feed never ends, and the page is no API."""
    paths = create_app_openapi()
    return sorted(
        (method.upper(), path) for path, item in paths.items() for method in item if path not in ("/", "/api/v1/live")
    )


@pytest.mark.parametrize(("method", "path"), operations(), ids=lambda value: value)
def test_as_described(described: schemathesis.BaseSchema, method: str, path: str) -> None:
    """No 500, no status, type or shape of an answer that the description does not name."""
    strategy = described[path][method].as_strategy()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    run()
