"""The HTTP API: Healert's endpoints as they are; everything else is in `extras/`.

    GET  /health                          version, whether a key is asked for, what this backend can do
    POST /events                          one event, or a list of up to 1000 with one result for each
    GET  /friction/{entity_ref}           score and recent events of one service; /explain says where it comes from
    GET  /events?limit=                   latest events, in Healert's fields
    ...  /api/v1/…                        see docs/backend.md
    GET  /                                the dashboard, see dashboard/routes.py

What needs which key stands in `access/gate.py`. Every route that touches the store runs in a worker thread.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio.to_thread
import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from forwarder import __version__
from forwarder.backend.access.described import describe_access
from forwarder.backend.access.gate import Gate
from forwarder.backend.access.visitors import Access
from forwarder.backend.dashboard.desk import Desk
from forwarder.backend.dashboard.problems import Handler, Problems
from forwarder.backend.dashboard.routes import Files, dashboard
from forwarder.backend.dashboard.rulebook import RuleBook, no_rules
from forwarder.backend.database import cause
from forwarder.backend.extras.answers import answer, describe, refusals
from forwarder.backend.extras.events import healert_event
from forwarder.backend.extras.live import LiveFeed
from forwarder.backend.extras.routes import routers
from forwarder.backend.extras.services import checked
from forwarder.backend.guard import Bodies, Guard
from forwarder.backend.intake import (
    MAX_BATCH_EVENTS,
    IncomingEvent,
    NewEvent,
    Refusal,
    format_timestamp,
    parse_body,
    read_event,
)
from forwarder.backend.onward import Exit, Onward
from forwarder.backend.scoring import DAY_US
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from forwarder.backend.store.events import RecentEvent
from forwarder.errors import Overloaded, ShuttingDown
from forwarder.telemetry import Telemetry

log = logging.getLogger(__name__)

CAPABILITIES = ("batch", "ids", "updates", "reports")
MAX_LISTED_EVENTS = 500  # Healert's bound for recentEvents and GET /events
INGEST_THREADS = 1  # decoding a hostile 8 MiB body takes 25 times its size; stores go one by one anyway
STORE_RETRY_S = 5  # a locked or full database is rarely better within a second

Clock = Callable[[], float]


def create_app(
    store: Store,
    settings: BackendSettings,
    clock: Clock = time.time,
    exit_: Exit | None = None,
    *,
    rules: RuleBook = no_rules,
    telemetry: Telemetry | None = None,
) -> FastAPI:
    """The ASGI application over `store`. Opens nothing by itself.

    clock: Unix seconds. exit_: where first-seen events go on to. rules: for their pages. telemetry: counts what is sent.
    """
    counted = (telemetry or Telemetry())["forwarder_backend_events"]
    recorder = Onward(store, exit_, store.suppressed) if exit_ else store
    app = FastAPI(
        title="friction-forwarder backend",
        version=__version__,
        docs_url=None,  # both load scripts from a CDN; /openapi.json stays
        redoc_url=None,
        redirect_slashes=False,
    )
    access = Access(store.database, settings, clock)
    desk = Desk(store, settings, access, rules, clock)
    problems = Problems(desk)
    app.add_middleware(Gate, access=access, settings=settings, shown=problems.shown)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_credentials=False,  # pages elsewhere show a key; our session's cookie is for our own pages
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
    )
    app.add_middleware(Guard, shown=problems.shown)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    for failure, handle in _HANDLERS.items():
        app.add_exception_handler(failure, problems.handler(handle))
    bodies = Bodies()
    feed = LiveFeed(store)
    app.state.live = feed  # the server ends it when it stops
    ingest_threads = anyio.CapacityLimiter(INGEST_THREADS)

    def now_us() -> int:
        return int(clock() * 1_000_000)

    store.settings.start_with(settings.chosen, now_us())

    @app.get("/health", response_class=Response, tags=["Healert"])
    def health() -> Response:
        auth = "enabled" if access.keys_in_force else "disabled (set HEALERT_API_KEY)"
        return answer({"status": "ok", "version": __version__, "auth": auth, "capabilities": CAPABILITIES})

    @app.post(
        "/events",
        response_class=Response,
        responses=refusals(401, 408, 413, 422, 503),
        openapi_extra=_EVENTS_BODY,
        tags=["Healert"],
    )
    async def post_events(request: Request) -> Response:
        # A page on another site may send text/plain without asking first (CORS); JSON it may not.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _unprocessable(Refusal("", "send it as Content-Type: application/json", "malformed"))
        async with bodies.read(request) as body:
            answered = await anyio.to_thread.run_sync(_take, recorder, body, now_us(), limiter=ingest_threads)
        for result, number in answered.results.items():
            counted.labels(result).inc(number)
        feed.notify()
        return answered.response

    for router in routers(store, now_us, bodies, feed):
        app.include_router(router)

    @app.get("/friction/{entity_ref:path}", response_class=Response, responses=refusals(400, 404), tags=["Healert"])
    def friction(entity_ref: str) -> Response:
        checked(entity_ref)
        now = now_us()
        score = store.scores.friction(entity_ref, now)
        since_us = now - store.settings.retention_days() * DAY_US
        recent = store.events.recent(entity_ref, since_us=since_us, limit=MAX_LISTED_EVENTS)
        return answer(
            {
                "entityRef": entity_ref,
                "frictionScore": msgspec.to_builtins(score) | {"calculatedAt": format_timestamp(now)},
                "recentEvents": [_recent(event) for event in recent],
                "sources": {"kubernetesAuditLog": True, "github": False, "jira": False},
                "fetchedAt": format_timestamp(now),
            }
        )

    @app.get("/events", response_class=Response, responses=refusals(422), tags=["Healert"])
    def list_events(limit: int = 100, include_tests: bool = False) -> Response:
        # Healert moves a limit out of range to the nearest end instead of refusing it.
        limit = min(max(1, limit), MAX_LISTED_EVENTS)
        return answer([healert_event(event) for event in store.latest(limit, include_tests=include_tests)])

    app.mount("/static", Files())
    app.include_router(dashboard(desk))
    describe(app)
    describe_access(app)
    return app


class _Answered(NamedTuple):
    """results: how many events became what; none of a body that is no events."""

    response: Response
    results: Counter[str]


def _take(recorder: Store | Onward, body: bytes, now_us: int) -> _Answered:
    """Record what `body` holds and answer. A list gets one result per item: a bad one does not refuse its neighbours."""
    data = parse_body(body)
    if isinstance(data, Refusal):
        return _Answered(_unprocessable(data), Counter())
    if isinstance(data, dict):
        event = read_event(data)
        if isinstance(event, Refusal):
            return _Answered(_unprocessable(event), Counter(refused=1))
        (became,) = recorder.record([event], now_us)
        return _Answered(answer({"status": "ok", "message": "Event recorded"}), Counter([became]))
    read = [read_event(item) for item in data]
    stored = iter(recorder.record([event for event in read if isinstance(event, NewEvent)], now_us))
    results = [
        {"status": "refused", "detail": str(event)}
        if isinstance(event, Refusal)
        else {"status": next(stored), "detail": ""}
        for event in read
    ]
    counts = Counter(result["status"] for result in results)
    recorded = counts["recorded"] + counts["updated"]
    told = {"status": "ok", "message": f"{recorded} events recorded", "results": results}
    return _Answered(answer(told), counts)


def _recent(event: RecentEvent) -> dict[str, Any]:
    return {
        "timestamp": format_timestamp(event.occurred_us),
        "actor": event.actor,
        "type": event.type,
        "description": event.description,
        "workflow": event.workflow,
    }


def _unprocessable(refusal: Refusal) -> Response:
    place = ["body", refusal.field] if refusal.field else ["body"]
    return answer({"detail": [{"loc": place, "msg": refusal.message, "type": refusal.kind}]}, 422)


async def _bad_parameters(_request: Request, error: Exception) -> Response:
    """FastAPI's 422 without the `input` that it echoes."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return answer({"detail": [{key: item[key] for key in ("loc", "msg", "type")} for item in found]}, 422)


async def _unstorable(_request: Request, _error: Exception) -> Response:
    """PostgreSQL takes no NUL in a text; nothing that is stored holds one, so nothing is missed."""
    return _unprocessable(Refusal("", "a parameter holds a character that no stored text can hold"))


async def _store_failed(request: Request, error: Exception) -> Response:
    reason = cause(error) if isinstance(error, SQLAlchemyError) else type(error).__name__
    log.error("the database failed a %s request, the sender is told to come back: %s", request.method, reason)
    return Response(
        b'{"detail":"the database is not available; try again"}',
        503,
        {"Retry-After": str(STORE_RETRY_S)},
        media_type="application/json",
    )


async def _exit_failed(request: Request, error: Exception) -> Response:
    """The sinks' outbox takes nothing now (full, or its disk is): nothing was stored, and the sender keeps its events."""
    log.warning("first-seen events cannot be kept for the sinks, the sender of a %s is told to come back: %s",
              request.method, error)  # fmt: skip
    return Response(
        b'{"detail":"the outbox of the sinks is not available; try again"}',
        503,
        {"Retry-After": str(STORE_RETRY_S)},
        media_type="application/json",
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return await http_exception_handler(request, error)


_HANDLERS: dict[type[Exception], Handler] = {
    HTTPException: _refused,  # Starlette's: that of an address which is not there, and the base of FastAPI's
    RequestValidationError: _bad_parameters,
    SQLAlchemyError: _store_failed,
    DataError: _unstorable,
    Overloaded: _exit_failed,
    ShuttingDown: _exit_failed,
}

_EVENT_SCHEMA = msgspec.json.schema_components([IncomingEvent])[1]["IncomingEvent"]
_EVENTS_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        _EVENT_SCHEMA,
                        {"type": "array", "items": _EVENT_SCHEMA, "maxItems": MAX_BATCH_EVENTS},
                    ]
                }
            }
        },
    }
}
