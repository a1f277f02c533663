"""Signing in: the cookie and its attributes, the way back, and everything that gives none."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from forwarder.backend.access import keys as keys_module
from forwarder.backend.access import sessions as sessions_module
from forwarder.backend.access.keys import KeyStore
from forwarder.backend.api import create_app
from forwarder.backend.dashboard import sign_in as module
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from tests.backend.conftest import BASE_URL, NOW_S, NOW_US
from tests.backend.dashboard.conftest import Look

Connect = Callable[..., TestClient]
CLOSED: dict[str, Any] = {"listen": "0.0.0.0:8000", "api_key": "k"}
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "FRESH_S", 0.0)
    monkeypatch.setattr(sessions_module, "FRESH_S", 0.0)


def sign_in(client: TestClient, key: str = "k", **fields: str) -> Any:
    return client.post("/sign-in", data={"key": key, **fields}, headers=OURS, follow_redirects=False)


def test_sign_in_and_out(connect: Connect, look: Look) -> None:
    """With a key one is in and comes back to where one wanted to go; after signing out the cookie is worth nothing."""
    client = connect(**CLOSED)
    assert "Sign in" in look(client, "/search?q=x").text  # led there
    answer = sign_in(client, next="/search?q=x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/search?q=x")
    stolen = dict(client.cookies)
    assert "Everything that was found" in look(client, "/search?q=x").text
    out = client.post("/sign-out", headers=OURS, follow_redirects=False)
    assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
    client.cookies.update(stolen)
    assert client.get("/search", headers={"Accept": "application/json"}).status_code == 401


def test_cookie(connect: Connect) -> None:
    """No script reads it, no other site sends it along with a form, and it ends."""
    cookie = sign_in(connect(**CLOSED, session_hours=2)).headers["set-cookie"]
    assert cookie.startswith("friction_session=")
    assert {"HttpOnly", "Max-Age=7200", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "Secure" not in cookie


def test_cookie_over_tls(connect: Connect, store: Store) -> None:
    """Behind a proxy with TLS the cookie is Secure and bound to the host; the header of a stranger changes nothing."""
    app = connect(**CLOSED, trusted_proxies=("10.0.0.1",)).app
    proxy = TestClient(app, base_url=BASE_URL, client=("10.0.0.1", 5000))
    answer = proxy.post(
        "/sign-in", data={"key": "k"}, headers=OURS | {"X-Forwarded-Proto": "https"}, follow_redirects=False
    )
    assert answer.headers["set-cookie"].startswith("__Host-friction_session=")
    assert "Secure" in answer.headers["set-cookie"]
    stranger = TestClient(app, base_url=BASE_URL, client=("10.0.0.2", 5000))
    answer = stranger.post(
        "/sign-in", data={"key": "k"}, headers=OURS | {"X-Forwarded-Proto": "https"}, follow_redirects=False
    )
    assert "Secure" not in answer.headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "wrong", "K", "x" * 5000, "\u0000", "k "])
def test_wrong_key(connect: Connect, key: str) -> None:
    """No cookie, and a form that says why; blanks around a key that was pasted do not matter."""
    answer = sign_in(connect(**CLOSED), key)
    if key.strip() == "k":
        assert answer.status_code == 303
        return
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "not in force" in answer.text
    assert len(key) < 5 or key not in answer.text


def test_revoked_key(connect: Connect, store: Store) -> None:
    """Whoever loses the key is out at the next click."""
    client = connect(**CLOSED)
    sign_in(client, KeyStore(store.database).create("jane", ["read"], NOW_US))
    assert client.get("/").status_code == 200
    KeyStore(store.database).revoke("jane", NOW_US)
    assert client.get("/").status_code == 401


def test_expiry(store: Store) -> None:
    """A session that is over leads to the form again."""
    now = [NOW_S]
    app = create_app(store, BackendSettings(**CLOSED, session_hours=1), lambda: now[0])
    client = TestClient(app, base_url=BASE_URL)
    sign_in(client)
    kept = dict(client.cookies)
    assert client.get("/").status_code == 200
    now[0] += 3600
    client.cookies.update(kept)  # a browser would have dropped it; somebody else may have kept it
    answer = client.get("/", headers={"Accept": "text/html"}, follow_redirects=False)
    assert answer.headers["location"].startswith("/sign-in?needs=read")


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}]
)
def test_forms_of_other_sites(connect: Connect, store: Store, headers: dict[str, str]) -> None:
    """A page elsewhere can neither change anything in the visitor's name, nor sign them in or out."""
    client = connect(**CLOSED)
    sign_in(client)
    form = {"actor": "jane", "reason": "r", "until": "2026-12-31"}
    for path, fields in (
        ("/triage", form),
        ("/triage/undo", {"mark": "1"}),
        ("/sign-out", {}),
        ("/sign-in", {"key": "k"}),
    ):
        assert client.post(path, data=fields, headers=headers, follow_redirects=False).status_code == 403, path
    assert store.triage.marks("all") == []
    assert client.get("/").status_code == 200


def test_forms_without_a_word(connect: Connect) -> None:
    """A request with the cookie that does not say where it comes from is refused."""
    client = connect(**CLOSED)
    sign_in(client)
    assert client.post("/triage", data={"actor": "x"}).status_code == 403


@pytest.mark.parametrize("wanted", ["https://evil.example", "//evil.example", "/\\evil.example"])
def test_no_way_to_other_sites(connect: Connect, look: Look, wanted: str) -> None:
    """The address of the form cannot send people elsewhere."""
    client = connect(**CLOSED)
    assert sign_in(client, next=wanted).headers["location"] == "/"
    client.cookies.clear()
    assert look(client, f"/sign-in?next={wanted}").having("input", name="next")[0]["value"] == "/"


def test_too_many_tries(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some tries one has to wait, with the right key too."""
    monkeypatch.setattr(module, "TRIES_PER_MINUTE", 3)
    client = connect(**CLOSED)
    assert [sign_in(client, "wrong").status_code for _ in range(3)] == [401] * 3
    answer = sign_in(client)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert "set-cookie" not in answer.headers


def test_key_without_the_right(connect: Connect, store: Store, look: Look) -> None:
    """Whose key may not do it is told so, and can sign in with another one."""
    client = connect(**CLOSED)
    sign_in(client, KeyStore(store.database).create("ci", ["write"], NOW_US))
    assert "The key ci may not read this" in look(client, "/").text
