"""Every page over a real PostgreSQL server, as over SQLite."""

import pytest

from forwarder.backend.api import create_app
from forwarder.backend.dashboard.desk import PLACES
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from tests.backend.conftest import BASE_URL, ENTITY, TestClient, new_database

pytestmark = pytest.mark.e2e

PATHS = [path for path, _, _ in PLACES] + [
    f"/service?ref={ENTITY}", "/actor?name=jane", "/rule?name=kubectl-exec", "/event?id=a", "/search?q=psql&weekday=0&hour=1",
    "/?cluster=east&namespace=shop&team=t&q=pay", f"/embed/{ENTITY}", f"/badge/{ENTITY}.svg",
]  # fmt: skip


def test_pages(postgresql: str) -> None:
    """They answer, sign people in, and mark."""
    store = Store.open(new_database(postgresql))
    event = {"entity_ref": ENTITY, "type": "kubectl-exec", "severity": "high", "actor": "jane", "id": "a", "cluster": "east",
             "resource": "pods", "name": "x", "command": "psql", "tags": ["team:t"]}  # fmt: skip
    with TestClient(create_app(store, BackendSettings(api_key="k")), base_url=BASE_URL) as client:
        headers = {"Authorization": "Bearer k"}
        assert client.post("/events", json=event, headers=headers).status_code == 200
        for path in PATHS:
            assert client.get(path).status_code == 200, path
        ours = {"Sec-Fetch-Site": "same-origin"}
        assert client.post("/sign-in", data={"key": "k"}, headers=ours, follow_redirects=False).status_code == 303
        form = {"actor": "jane", "reason": "on call", "until": "2999-01-01"}
        assert client.post("/triage", data=form, headers=ours).status_code == 200
        assert "“on call”" in client.get("/triage").text
        assert client.get(f"/friction/{ENTITY}").json()["frictionScore"]["score"] == 0
        assert client.post("/sign-out", headers=ours).status_code == 200
    store.close()
