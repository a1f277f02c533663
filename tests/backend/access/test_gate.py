"""The gate from outside: which request needs which right, and what the refused are told."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from starlette.types import Message, Receive, Scope, Send

from forwarder.backend.access import keys as keys_module
from forwarder.backend.access.gate import Gate, needed_right
from forwarder.backend.access.keys import KeyRing, KeyStore, Right
from forwarder.backend.access.visitors import Access
from forwarder.backend.guard import Guard
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from tests.backend.conftest import ENTITY, NOW_S, NOW_US

Connect = Callable[..., TestClient]
Payload = Callable[..., dict[str, Any]]
OFF_LOOPBACK = {"listen": "0.0.0.0:8000"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are read for every request, as the clock stands still."""
    monkeypatch.setattr(keys_module, "FRESH_S", 0.0)


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/health", None),
        ("GET", "/static/app.css", None),
        ("POST", "/sign-in", None),
        ("POST", "/events", "write"),
        ("POST", "/api/v1/reports", "write"),
        ("GET", "/api/v1/reports", "read"),
        ("POST", "/api/v1/marks", "change"),
        ("GET", "/events", "read"),
        ("HEAD", "/", "read"),
        ("GET", "/openapi.json", "read"),
        ("GET", "/embed/x", "read"),
        ("POST", "/triage", "change"),
        ("DELETE", "/events", "write"),
        ("PUT", "/nowhere", "change"),
        ("BREW", "/", "change"),
    ],
)
def test_table(method: str, path: str, right: Right | None) -> None:
    """What nobody thought of needs a right too."""
    assert needed_right(method, path) == right


@pytest.mark.parametrize(
    ("settings", "read", "write"),
    [
        pytest.param({}, 200, 200, id="on loopback, no key: somebody's own"),
        pytest.param({"api_key": "k"}, 200, 401, id="on loopback with a key: reading stays open"),
        pytest.param({"api_key": "k", "anonymous_reads": False}, 401, 401, id="closed there too"),
        pytest.param({**OFF_LOOPBACK, "api_key": "k"}, 401, 401, id="off loopback: closed"),
        pytest.param({**OFF_LOOPBACK, "api_key": "k", "anonymous_reads": True}, 200, 401, id="for cards that call it"),
        pytest.param({**OFF_LOOPBACK, "allow_anonymous": True}, 200, 200, id="the operator's word"),
        pytest.param(OFF_LOOPBACK, 401, 401, id="off loopback, all keys gone: closed, not open"),
    ],
)
def test_nobody(connect: Connect, payload: Payload, settings: dict[str, Any], read: int, write: int) -> None:
    """What somebody without a key may do."""
    client = connect(**settings)
    assert client.get(f"/friction/{ENTITY}").status_code == read
    assert client.post("/events", json=payload()).status_code == write
    assert client.get("/health").status_code == 200


def test_rights(connect: Connect, store: Store, payload: Payload) -> None:
    """A receiver's key writes and cannot read; a reader's cannot write; each refusal names the key and the right."""
    client = connect(**OFF_LOOPBACK)
    keys = KeyStore(store.database)
    writer, reader = keys.create("ci", ["write"], NOW_US), keys.create("jane", ["read"], NOW_US)
    assert client.post("/events", json=payload(), headers=bearer(writer)).status_code == 200
    assert client.get("/events", headers=bearer(reader)).status_code == 200
    refused = client.get("/events", headers=bearer(writer))
    assert (refused.status_code, refused.json()) == (403, {"detail": "the key ci may not read"})
    refused = client.post("/events", json=payload(), headers=bearer(reader))
    assert (refused.status_code, refused.json()) == (403, {"detail": "the key jane may not write events"})


def test_wrong_rotated_and_revoked(connect: Connect, store: Store, payload: Payload) -> None:
    """A key that is not in force is a 401 with a challenge, from the moment in which it ended, without a restart."""
    client = connect(**OFF_LOOPBACK)
    keys = KeyStore(store.database)
    old = keys.create("ci", ["write"], NOW_US)
    assert client.post("/events", json=payload(), headers=bearer(old)).status_code == 200
    new = keys.rotate("ci", NOW_US)
    wrong = client.post("/events", json=payload(), headers=bearer(old))
    assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, "Bearer")
    assert client.post("/events", json=payload(), headers=bearer(new)).status_code == 200
    keys.revoke("ci", NOW_US)
    assert client.post("/events", json=payload(), headers=bearer(new)).status_code == 401
    assert client.post("/events", json=payload(), headers=bearer("ff_wrong")).status_code == 401


def test_wrong_key_where_none_is_needed(connect: Connect) -> None:
    """A wrong key is told, not taken for none: its owner believes that it works."""
    assert connect().get("/events", headers=bearer("wrong")).status_code == 401
    assert connect().get("/health", headers=bearer("wrong")).status_code == 200


def test_first_key_closes(connect: Connect, store: Store, payload: Payload) -> None:
    """A backend on loopback is open until there is a key; then writing needs one, and health says so."""
    client = connect()
    assert client.post("/events", json=payload()).status_code == 200
    assert client.get("/health").json()["auth"].startswith("disabled")
    KeyStore(store.database).create("ci", ["write"], NOW_US)
    assert client.post("/events", json=payload()).status_code == 401
    assert client.get("/health").json()["auth"] == "enabled"


def test_browser_is_led_to_sign_in(connect: Connect) -> None:
    """A page that may not be read leads to the form and back; a program gets its 401."""
    client = connect(**OFF_LOOPBACK, api_key="k")
    answer = client.get("/service?ref=a%26b", headers={"Accept": "text/html"}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?needs=read&next=%2Fservice%3Fref%3Da%2526b"
    assert client.get("/", headers={"Accept": "application/json"}).status_code == 401


def test_rate_limit(connect: Connect, store: Store) -> None:
    """Who asks too often is told when to come back; other keys, other addresses and health are not affected."""
    client = connect(rate_limit_per_minute=3)
    jane, joe = (KeyStore(store.database).create(name, ["read"], NOW_US) for name in ("jane", "joe"))
    codes = [client.get("/events", headers=bearer(jane)).status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    refused = client.get("/events", headers=bearer(jane))
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["content-security-policy"]
    assert client.get("/events", headers=bearer(joe)).status_code == 200
    assert client.get("/events").status_code == 200
    assert client.get("/health", headers=bearer(jane)).status_code == 200


def test_refused_bodies_use_no_quota_of_others(connect: Connect, payload: Payload) -> None:
    """A wrong key costs the right one nothing."""
    client = connect(api_key="k", rate_limit_per_minute=1)
    for _ in range(5):
        assert client.post("/events", json=payload(), headers=bearer("wrong")).status_code == 401
    assert client.post("/events", json=payload(), headers=bearer("k")).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_page_elsewhere(connect: Connect, payload: Payload, site: str) -> None:
    """On an open backend too, a page elsewhere changes nothing: the browser says where it comes from."""
    answer = connect().post("/events", json=payload(), headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 403
    assert "from a page elsewhere" in answer.json()["detail"]


def test_page_elsewhere_with_a_key(connect: Connect, payload: Payload) -> None:
    """A page on a listed origin that shows a key is what CORS is for."""
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:3000", **bearer("k")}
    answer = connect(api_key="k").post("/events", json=payload(), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_rebinding(connect: Connect) -> None:
    """A name elsewhere that points at this machine reads nothing, unless a proxy or open reading is configured."""
    evil = {"Host": "evil.example:8000"}
    assert connect().get("/events", headers=evil).status_code == 421
    assert connect(anonymous_reads=True).get("/events", headers=evil).status_code == 200
    assert connect(trusted_proxies=("10.0.0.1",)).get("/events", headers=evil).status_code == 200
    assert connect(api_key="k").get("/events", headers=evil | bearer("k")).status_code == 200


def _clients_of(client: TestClient) -> int:
    """How many requests pass before the limit of two is met, each with another X-Forwarded-For."""
    return [
        client.get("/events", headers={"X-Forwarded-For": f"192.0.2.{number}"}).status_code for number in range(4)
    ].count(200)


def test_proxy_headers_are_ignored(connect: Connect) -> None:
    """Nobody gets a fresh quota by making up an address."""
    assert _clients_of(connect(rate_limit_per_minute=2)) == 2


def test_proxy_headers_where_configured(store: Store, connect: Connect) -> None:
    """Behind a trusted proxy each client has its own; from another address the header is still ignored."""
    trusted = connect(rate_limit_per_minute=2, trusted_proxies=("127.0.0.0/8",))
    for_proxy = TestClient(trusted.app, base_url="http://127.0.0.1:8000", client=("127.0.0.9", 5000))
    assert _clients_of(for_proxy) == 4
    stranger = TestClient(trusted.app, base_url="http://127.0.0.1:8000", client=("198.51.100.7", 5000))
    assert _clients_of(stranger) == 2


def test_cards_may_be_open(connect: Connect) -> None:
    """With `anonymous_cards` the cards alone need no key."""
    assert needed_right("GET", "/badge/x", open_cards=True) is None
    assert needed_right("GET", "/events", open_cards=True) == "read"
    assert connect(**OFF_LOOPBACK, api_key="k").get(f"/badge/{ENTITY}.svg").status_code == 401


def test_database_down(connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """When keys cannot be read nobody gets in, and everybody is told to come back."""

    def fail(_: KeyRing) -> None:
        raise OperationalError("SELECT secret", {}, Exception("hunter2"))

    client = connect(api_key="k")
    monkeypatch.setattr(KeyRing, "refresh", fail)
    answer = client.get("/events", headers=bearer("k"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "hunter2" not in caplog.text


async def test_a_revoked_key_ends_its_feed(store: Store) -> None:
    """An answer that goes on (a live feed, an export) ends when the key is over, not when its reader chooses to go."""
    keys = KeyStore(store.database)
    secret = keys.create("jane", ["read"], NOW_US)

    async def feed(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(5):
            if number == 2:
                keys.revoke("jane", NOW_US)
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        pytest.fail("it went on")

    settings = BackendSettings()
    app = Guard(Gate(feed, Access(store.database, settings, lambda: NOW_S), settings))
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer " + secret.encode()), (b"host", b"localhost")]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/live",
        "scheme": "http",
        "query_string": b"",
        "headers": headers,
    }
    await app(scope, _no_message, send)
    assert [message.get("body", b"") for message in sent] == [b"", b"0", b"1", b""]
    assert sent[-1]["more_body"] is False


async def _no_message() -> Message:
    return {"type": "http.disconnect"}
