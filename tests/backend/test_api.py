"""The Healert API as its clients know it, batches, and every body that a stranger could send."""

import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from forwarder import __version__
from forwarder.backend.api import create_app
from forwarder.backend.intake import ENTITY_REF
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from forwarder.telemetry import Telemetry
from tests.backend.conftest import BASE_URL

Connect = Callable[..., TestClient]
Payload = Callable[..., dict[str, Any]]

ENTITY = "component:shop/payments-api"
NOW_US = 1_780_000_000_000_000
NOW = "2026-05-28T20:26:40.000000Z"
JSON = {"Content-Type": "application/json"}


def test_health(connect: Connect) -> None:
    """Health tells the version, whether a key is asked for, and what the backend can do; it asks for no key itself."""
    expected = {"status": "ok", "version": __version__, "capabilities": ["batch", "ids", "updates", "reports"]}
    assert connect().get("/health").json() == {**expected, "auth": "disabled (set HEALERT_API_KEY)"}
    assert connect(api_key="k").get("/health").json() == {**expected, "auth": "enabled"}


def test_one_event(client: TestClient) -> None:
    """A Healert agent's event is recorded, scored and listed in Healert's words and nothing more."""
    sent = {
        "entity_ref": ENTITY,
        "type": "kubectl-exec",
        "severity": "high",
        "actor": "jane@example.com",
        "workflow": "debug",
        "description": "kubectl exec on pods/x",
        "timestamp": "2026-05-28T20:26:40Z",
    }
    answer = client.post("/events", json=sent)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "message": "Event recorded"})
    assert client.get(f"/friction/{ENTITY}").json() == {
        "entityRef": ENTITY,
        "frictionScore": {
            "score": 20,
            "severity": "low",
            "bypassCount": 1,
            "overheadHoursPerEngineer": 0.4,
            "topFrictionWorkflow": "debug",
            "calculatedAt": NOW,
        },
        "recentEvents": [
            {
                "timestamp": NOW,
                "actor": "jane@example.com",
                "type": "kubectl-exec",
                "description": "kubectl exec on pods/x",
                "workflow": "debug",
            }
        ],
        "sources": {"kubernetesAuditLog": True, "github": False, "jira": False},
        "fetchedAt": NOW,
    }
    (listed,) = client.get("/events").json()
    assert len(listed.pop("id")) == 36
    assert listed == {**sent, "timestamp": NOW, "service": "", "namespace": "", "points": 10}


def test_without_ids(client: TestClient, payload: Payload) -> None:
    """Events without an id are always new, as with Healert."""
    for _ in range(3):
        client.post("/events", json=payload())
    assert client.get(f"/friction/{ENTITY}").json()["frictionScore"]["bypassCount"] == 3


def test_one_event_again(client: TestClient, payload: Payload) -> None:
    """One with an id is counted once, however often it comes, and its answer is the same."""
    for revision in (0, 1, 0, 1):
        answer = client.post("/events", json=payload(id="a", revision=revision, response_code=100 + revision))
        assert answer.json() == {"status": "ok", "message": "Event recorded"}
    assert [event["id"] for event in client.get("/events").json()] == ["a"]
    (full,) = client.get("/api/v1/events").json()
    assert (full["revision"], full["response_code"]) == (1, 101)


def test_batch(client: TestClient, payload: Payload) -> None:
    """A list gets one result for each item, and a bad item refuses none of its neighbours."""
    batch = [
        payload(id="a"),
        payload(id="b", severity="enormous"),
        payload(id="a", revision=1),
        payload(id="a"),
        "text",
        payload(id="c"),
    ]
    answer = client.post("/events", json=batch)
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "message": "3 events recorded",
        "results": [
            {"status": "recorded", "detail": ""},
            {"status": "refused", "detail": "severity: must be high, medium or low"},
            {"status": "updated", "detail": ""},
            {"status": "duplicate", "detail": ""},
            {"status": "refused", "detail": "an event must be an object"},
            {"status": "recorded", "detail": ""},
        ],
    }


def test_batch_bounds(client: TestClient, payload: Payload) -> None:
    """A thousand events are taken at once, none is no error, and one more than a thousand is refused as a whole."""
    assert client.post("/events", json=[payload()] * 1000).json()["message"] == "1000 events recorded"
    assert client.post("/events", json=[]).json() == {"status": "ok", "message": "0 events recorded", "results": []}
    answer = client.post("/events", json=[payload()] * 1001)
    assert answer.status_code == 422
    assert "at most 1000" in answer.text


def test_refused(client: TestClient, payload: Payload) -> None:
    """A 422 says which field and why in FastAPI's shape, and repeats nothing of what was sent."""
    answer = client.post("/events", json=payload(severity="hunter2", actor="hunter2"))
    assert answer.status_code == 422
    assert answer.json() == {
        "detail": [{"loc": ["body", "severity"], "msg": "must be high, medium or low", "type": "invalid"}]
    }


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_content_type(client: TestClient, payload: Payload, kind: str | None) -> None:
    """Only declared JSON is read: a hostile page cannot declare it without asking this server first."""
    answer = client.post("/events", content=json.dumps(payload()), headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 422
    assert client.get("/events").json() == []


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_content_type(client: TestClient, payload: Payload, kind: str) -> None:
    """JSON may be declared in any case and with parameters."""
    answer = client.post("/events", content=json.dumps(payload()), headers={"Content-Type": kind})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("component:shop/payments-api", 200),
        ("component%3Ashop%2Fpayments-api", 200),
        ("component:shop%2fpayments-api", 200),
        ("component%3ashop/payments-api", 200),
        ("component:shop/nobody", 200),
        ("Component:shop/payments_api.v2", 200),
        ("component:shop", 400),
        ("component/shop", 400),
        ("component:shop/payments/api", 400),
        ("component:shop/pay ments", 400),
        ("component:shop/" + "a" * 186, 400),
        ("%FF%FE", 400),
        ("a", 400),
        ("", 400),
    ],
)
def test_entity_refs(client: TestClient, path: str, status: int) -> None:
    """A reference may come encoded in any way; an unknown one has score 0; what is none is a 400."""
    answer = client.get(f"/friction/{path}")
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["frictionScore"]["score"] == 0


@pytest.mark.parametrize("text", ["2026-05-28T20:26:40", "2026-05-28 22:26:40+02:00", "20260528T202640Z", None])
def test_timestamps(client: TestClient, payload: Payload, text: str | None) -> None:
    """A time without a zone, with one, or none at all: each reads back as UTC and breaks no later request."""
    assert client.post("/events", json=payload(timestamp=text)).status_code == 200
    found = client.get(f"/friction/{ENTITY}").json()
    assert found["frictionScore"]["score"] == 20
    assert found["recentEvents"][0]["timestamp"] == NOW


def test_exact_beyond_500(client: TestClient, payload: Payload, store: Store) -> None:
    """600 events all count, of which 500 are listed."""
    client.post("/events", json=[payload(points=1) for _ in range(600)])
    found = client.get(f"/friction/{ENTITY}").json()
    assert found["frictionScore"]["bypassCount"] == 600
    assert len(found["recentEvents"]) == 500
    assert store.count() == 600


@pytest.mark.parametrize(("limit", "count"), [("", 100), ("?limit=3", 3), ("?limit=0", 1), ("?limit=9999", 500)])
def test_events_limit(client: TestClient, payload: Payload, limit: str, count: int) -> None:
    """The limit is 100 unless given, and is moved into 1 to 500."""
    client.post("/events", json=[payload() for _ in range(600)])
    assert len(client.get(f"/events{limit}").json()) == count


@pytest.mark.parametrize("path", ["/events?limit=x", "/api/v1/entities?limit=0", "/api/v1/events?limit=1001"])
def test_bad_parameters(client: TestClient, path: str) -> None:
    """A parameter that is no number, or out of range in the extras, is a 422 that names it."""
    answer = client.get(path)
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert detail["loc"] == ["query", "limit"]
    assert set(detail) == {"loc", "msg", "type"}


def test_test_events(client: TestClient, payload: Payload) -> None:
    """A test event is listed on request and scores nowhere."""
    client.post("/events", json=payload(id="a", test=True))
    assert client.get("/events").json() == client.get("/api/v1/entities").json() == []
    assert client.get(f"/friction/{ENTITY}").json()["frictionScore"]["bypassCount"] == 0
    assert [event["id"] for event in client.get("/events?include_tests=true").json()] == ["a"]


def test_settings_of_the_score(connect: Connect, payload: Payload) -> None:
    """Threshold, half-life and window are those of the settings."""
    strict = connect(threshold=20.0, half_life_days=1.0, score_retention_days=2)
    strict.post("/events", json=[payload(timestamp=f"2026-05-{day}T20:26:40Z") for day in (28, 27, 26, 25)])
    found = strict.get(f"/friction/{ENTITY}").json()["frictionScore"]
    assert (found["bypassCount"], found["score"]) == (3, round((10 + 5 + 2.5) / 20 * 100))


def test_recent_events_window(connect: Connect, payload: Payload) -> None:
    """Recent events are those that retention keeps, also before they are purged."""
    client = connect(retention_days=3)
    client.post("/events", json=[payload(timestamp=f"2026-05-{day}T20:26:40Z") for day in (28, 25, 24)])
    assert len(client.get(f"/friction/{ENTITY}").json()["recentEvents"]) == 2


KEY = "k\u00e9y-0123456789"


@pytest.mark.parametrize(
    "authorization",
    [None, b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"Basic " + KEY.encode(), KEY.encode(), b"Bearer \xff\xfe"],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/events"), ("GET", "/api/v1/events")])
def test_wrong_key(connect: Connect, payload: Payload, authorization: bytes | None, method: str, path: str) -> None:
    """Without the right key: 401 and a challenge, whatever the header holds."""
    headers = {b"Content-Type": b"application/json"}
    if authorization is not None:
        headers[b"Authorization"] = authorization
    answer = connect(api_key=KEY, anonymous_reads=False).request(
        method, path, content=json.dumps(payload()), headers=headers
    )
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER  "])
def test_right_key(connect: Connect, payload: Payload, scheme: bytes) -> None:
    """The right key opens, and Healert's reads need none."""
    client = connect(api_key=KEY)
    headers = {b"Content-Type": b"application/json", b"Authorization": scheme + KEY.encode()}
    assert client.post("/events", content=json.dumps(payload()), headers=headers).status_code == 200
    assert client.get("/api/v1/events", headers=headers).status_code == 200
    for path in ("/events", f"/friction/{ENTITY}", "/api/v1/entities", "/", "/health"):
        assert client.get(path).status_code == 200


def test_cors(connect: Connect) -> None:
    """Only listed origins may read answers in a browser and send with a key."""
    client = connect(allowed_origins=("https://portal.example.com",))
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    good = client.options("/events", headers={"Origin": "https://portal.example.com", **ask})
    assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, "https://portal.example.com")
    bad = client.options("/events", headers={"Origin": "https://evil.example.com", **ask})
    assert "access-control-allow-origin" not in bad.headers


def test_cors_any(connect: Connect) -> None:
    """`*` allows every origin, without credentials."""
    answer = connect(allowed_origins=("*",)).get("/events", headers={"Origin": "https://a.example.com"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


def test_openapi(client: TestClient) -> None:
    """The description tells the event's fields and bounds, as one or as a list; there are no pages that load scripts."""
    one, many = client.get("/openapi.json").json()["paths"]["/events"]["post"]["requestBody"]["content"][
        "application/json"
    ]["schema"]["oneOf"]
    assert set(one["required"]) == {"entity_ref", "type", "severity"}
    assert one["properties"]["actor"]["maxLength"] == 200
    assert (many["items"], many["maxItems"]) == (one, 1000)
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_store_fails(
    client: TestClient,
    payload: Payload,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When the database fails, the sender is told to come back, the log tells why, and neither holds the event."""

    def fail(*_: object) -> None:
        raise OperationalError("INSERT hunter2", {"actor": "hunter2"}, Exception("hunter2"))

    monkeypatch.setattr(store, "record", fail)
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/events", json=payload(actor="hunter2"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "the database failed a POST request" in caplog.text
    assert "hunter2" not in caplog.text + answer.text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "entity_ref",
    "type",
    "severity",
    "actor",
    "points",
    "timestamp",
    "id",
    "revision",
    "duration_s",
    "tags",
    "test",
]
near_events = st.fixed_dictionaries(
    {
        "entity_ref": st.just(ENTITY) | anything,
        "type": st.just("abc") | anything,
        "severity": st.just("low") | anything,
    },
    optional={
        "actor": st.text() | anything,
        "points": st.integers(-1, 102) | anything,
        "timestamp": st.datetimes().map(str) | st.text(max_size=41) | anything,
        "id": st.text(max_size=66) | anything,
        "revision": st.integers() | anything,
        "duration_s": st.floats(allow_nan=False, allow_infinity=False) | anything,
        "tags": st.lists(st.text()) | anything,
        "command": st.text() | anything,
        "test": anything,
    },
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(near_events | st.lists(near_events | anything, max_size=4))
def test_never_500_events(client: TestClient, body: Any) -> None:
    """Whatever JSON comes: 200 or 422, a list as long as what was sent, and every reading still works."""
    answer = client.post("/events", content=json.dumps(body), headers=JSON)
    assert answer.status_code in (200, 422)
    if isinstance(body, list) and answer.status_code == 200:
        assert len(answer.json()["results"]) == len(body)
    assert client.get("/events?limit=500&include_tests=true").status_code == 200
    assert client.get(f"/friction/{ENTITY}").status_code == 200
    assert client.get("/").status_code == 200


@quick
@given(st.binary(max_size=200) | st.text().map(str.encode) | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000]))
def test_never_500_bytes(client: TestClient, body: bytes) -> None:
    """Whatever bytes come: 200 or 422."""
    assert client.post("/events", content=body, headers=JSON).status_code in (200, 422)


@quick
@given(st.text(st.characters(codec="utf-8"), max_size=50) | st.from_regex(ENTITY_REF))
def test_never_500_refs(client: TestClient, text: str) -> None:
    """Whatever reference is asked for: an answer."""
    answer = client.get("/friction/" + quote(text, safe=""))
    assert answer.status_code in (200, 400, 404)  # 404: a line break fits no route


def test_old_event(client: TestClient, payload: Payload) -> None:
    """An event from before the window is recorded and adds nothing."""
    client.post("/events", json=payload(timestamp="1999-12-31T23:59:59Z"))
    assert client.get(f"/friction/{ENTITY}").json()["frictionScore"]["bypassCount"] == 0
    assert len(client.get("/events").json()) == 1


def test_store_sees_utc(client: TestClient, payload: Payload, store: Store) -> None:
    """Without a time the event happened when it arrived."""
    client.post("/events", json=payload())
    (found,) = store.latest(2)
    assert found.occurred_us == NOW_US


def test_what_is_sent_is_counted(store: Store, payload: Payload) -> None:
    """By what became of each event, alone or in a list; what is no event at all is not."""
    telemetry = Telemetry()
    app = create_app(store, BackendSettings(), lambda: NOW_US / 1e6, telemetry=telemetry)
    with TestClient(app, base_url=BASE_URL) as client:
        client.post("/events", json=payload(id="a"))
        client.post("/events", json=payload(severity="none"))
        client.post("/events", json=[payload(id="a"), payload(id="a", revision=1), payload(id="b"), {}])
        client.post("/events", content=b"{", headers=JSON)
    counts = telemetry.by_label("forwarder_backend_events", "result")
    assert counts == {"recorded": 2, "updated": 1, "duplicate": 1, "refused": 2}
