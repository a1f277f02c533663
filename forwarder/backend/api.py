"""The HTTP API: Healert's endpoints as they are, and versioned extras under /api/v1.

    GET  /health                          version, whether a key is asked for, what this backend can do
    POST /events                          one event, or a list of up to 1000 with one result for each
    GET  /friction/{entity_ref}           score and recent events of one service
    GET  /events?limit=                   latest events, in Healert's fields
    GET  /api/v1/entities?limit=          services by score
    GET  /api/v1/events?limit=            latest events with every field; asks for the key where there is one
    GET  /                                the same list of services as a page

Healert's reads ask for no key. Every route that touches the store runs in a worker thread.
"""

import logging
import time
from collections.abc import Callable
from typing import Annotated, Any

import anyio.to_thread
import msgspec
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy.exc import SQLAlchemyError

from forwarder import __version__
from forwarder.backend import pages
from forwarder.backend.database import cause
from forwarder.backend.guard import Bodies, Guard, require_key
from forwarder.backend.intake import (
    MAX_BATCH_EVENTS,
    IncomingEvent,
    NewEvent,
    Refusal,
    format_timestamp,
    parse_body,
    read_event,
    valid_entity_ref,
)
from forwarder.backend.scoring import DAY_US
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store, StoredEvent
from forwarder.backend.store.scores import EntityScore, ScoreFilter

log = logging.getLogger(__name__)

CAPABILITIES = ("batch", "ids", "updates")
MAX_LISTED_EVENTS = 500  # Healert's bound for recentEvents and GET /events
MAX_LISTED = 1000  # of the extras: one screenful for a machine
HOME_ENTITIES = 100
INGEST_THREADS = 1  # decoding a hostile 8 MiB body takes 25 times its size; stores go one by one anyway
STORE_RETRY_S = 5  # a locked or full database is rarely better within a second

Clock = Callable[[], float]
Limit = Annotated[int, Query(ge=1, le=MAX_LISTED)]


def create_app(store: Store, settings: BackendSettings, clock: Clock = time.time) -> FastAPI:
    """The ASGI application over `store`. clock: Unix seconds. Opens nothing by itself."""
    app = FastAPI(
        title="friction-forwarder backend",
        version=__version__,
        docs_url=None,  # both load scripts from a CDN; /openapi.json stays
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_credentials="*" not in settings.allowed_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
    )
    app.add_middleware(Guard)
    app.add_exception_handler(SQLAlchemyError, _store_failed)
    app.add_exception_handler(RequestValidationError, _bad_parameters)
    app.mount("/static", StaticFiles(directory=pages.STATIC))
    with_key = [Depends(require_key(settings.api_key))]
    bodies = Bodies()
    ingest_threads = anyio.CapacityLimiter(INGEST_THREADS)

    def now_us() -> int:
        return int(clock() * 1_000_000)

    store.settings.start_with(settings.chosen, now_us())

    @app.get("/health", response_class=Response)
    def health() -> Response:
        auth = "enabled" if settings.api_key else "disabled (set HEALERT_API_KEY)"
        return _json({"status": "ok", "version": __version__, "auth": auth, "capabilities": CAPABILITIES})

    @app.post("/events", dependencies=with_key, response_class=Response, openapi_extra=_EVENTS_BODY)
    async def post_events(request: Request) -> Response:
        # A page on another site may send text/plain without asking first (CORS); JSON it may not.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _unprocessable(Refusal("", "send it as Content-Type: application/json", "malformed"))
        async with bodies.read(request) as body:
            return await anyio.to_thread.run_sync(_take, store, body, now_us(), limiter=ingest_threads)

    @app.get("/friction/{entity_ref:path}", response_class=Response)
    def friction(entity_ref: str) -> Response:
        if not valid_entity_ref(entity_ref):
            raise HTTPException(400, "not an entity reference; write kind:namespace/name")
        now = now_us()
        score = store.scores.friction(entity_ref, now)
        recent = store.latest(MAX_LISTED_EVENTS, entity_ref=entity_ref, since_us=now - settings.retention_days * DAY_US)
        return _json(
            {
                "entityRef": entity_ref,
                "frictionScore": msgspec.to_builtins(score) | {"calculatedAt": format_timestamp(now)},
                "recentEvents": [_recent(event) for event in recent],
                "sources": {"kubernetesAuditLog": True, "github": False, "jira": False},
                "fetchedAt": format_timestamp(now),
            }
        )

    @app.get("/events", response_class=Response)
    def list_events(limit: int = 100, include_tests: bool = False) -> Response:
        # Healert moves a limit out of range to the nearest end instead of refusing it.
        limit = min(max(1, limit), MAX_LISTED_EVENTS)
        return _json([_healert(event) for event in store.latest(limit, include_tests=include_tests)])

    @app.get("/api/v1/entities", response_class=Response)
    def entities(limit: Limit = 100) -> Response:
        return _json([_entity(entity) for entity in store.scores.page(ScoreFilter(), now_us(), limit=limit).entities])

    @app.get("/api/v1/events", dependencies=with_key, response_class=Response)
    def full_events(limit: Limit = 100, include_tests: bool = False) -> Response:
        return _json([_full(event) for event in store.latest(limit, include_tests=include_tests)])

    @app.get("/", response_class=HTMLResponse)
    def home(request: Request) -> HTMLResponse:
        page = store.scores.page(ScoreFilter(), now_us(), limit=HOME_ENTITIES)
        return HTMLResponse(
            pages.home(
                page.entities,
                page.total,
                request.headers.get("host", ""),
                window_days=settings.score_retention_days,
                needs_key=bool(settings.api_key),
            )
        )

    return app


def _take(store: Store, body: bytes, now_us: int) -> Response:
    """Store what `body` holds and answer. A list gets one result per item: a bad one does not refuse its neighbours."""
    data = parse_body(body)
    if isinstance(data, Refusal):
        return _unprocessable(data)
    if isinstance(data, dict):
        event = read_event(data)
        if isinstance(event, Refusal):
            return _unprocessable(event)
        store.record([event], now_us)
        return _json({"status": "ok", "message": "Event recorded"})
    read = [read_event(item) for item in data]
    stored = iter(store.record([event for event in read if isinstance(event, NewEvent)], now_us))
    results = [
        {"status": "refused", "detail": str(event)}
        if isinstance(event, Refusal)
        else {"status": next(stored), "detail": ""}
        for event in read
    ]
    recorded = sum(result["status"] in ("recorded", "updated") for result in results)
    return _json({"status": "ok", "message": f"{recorded} events recorded", "results": results})


def _recent(event: StoredEvent) -> dict[str, Any]:
    return {
        "timestamp": format_timestamp(event.occurred_us),
        "actor": event.actor,
        "type": event.type,
        "description": event.description,
        "workflow": event.workflow,
    }


def _healert(event: StoredEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "entity_ref": event.entity_ref,
        "type": event.type,
        "severity": event.severity,
        "actor": event.actor,
        "service": event.service,
        "namespace": event.namespace,
        "workflow": event.workflow,
        "description": event.description,
        "timestamp": format_timestamp(event.occurred_us),
        "points": event.points,
    }


def _full(event: StoredEvent) -> dict[str, Any]:
    return {
        **_healert(event),
        "revision": event.revision,
        "cluster": event.cluster,
        "outcome": event.outcome,
        "response_code": event.response_code,
        "duration_s": event.duration_s,
        "stage": event.stage,
        "test": event.test,
        "recorded_at": format_timestamp(event.recorded_us),
        **event.details,
    }


def _entity(entity: EntityScore) -> dict[str, Any]:
    return {
        "entity_ref": entity.entity_ref,
        "score": entity.score,
        "severity": entity.severity,
        "count": entity.count,
        "top_rule": entity.top_rule,
        "last_event": format_timestamp(entity.last_event_us),
    }


def _json(data: Any, status_code: int = 200) -> Response:
    return Response(msgspec.json.encode(data), status_code, media_type="application/json")


def _unprocessable(refusal: Refusal) -> Response:
    place = ["body", refusal.field] if refusal.field else ["body"]
    return _json({"detail": [{"loc": place, "msg": refusal.message, "type": refusal.kind}]}, 422)


async def _bad_parameters(_request: Request, error: Exception) -> Response:
    """FastAPI's 422 without the `input` that it echoes."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return _json({"detail": [{key: item[key] for key in ("loc", "msg", "type")} for item in found]}, 422)


async def _store_failed(request: Request, error: Exception) -> Response:
    reason = cause(error) if isinstance(error, SQLAlchemyError) else type(error).__name__
    log.error("the database failed a %s request, the sender is told to come back: %s", request.method, reason)
    return Response(
        b'{"detail":"the database is not available; try again"}',
        503,
        {"Retry-After": str(STORE_RETRY_S)},
        media_type="application/json",
    )


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
