"""Events, one by one and by filter, and what is told of them."""

from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from forwarder.backend.extras.answers import REF, answer, gives, moment, refusals, refuse
from forwarder.backend.intake import IncomingEvent, format_timestamp
from forwarder.backend.store import Store, StoredEvent
from forwarder.backend.store.events import BadCursor, EventFilter, Expected

MAX_LISTED = 1000  # one screenful for a machine

Text = Annotated[str, Query(max_length=600)]
Words = Annotated[str, Query(max_length=500, description="words that must all occur in the event")]


class FullEvent(IncomingEvent, frozen=True, kw_only=True):
    """An event as the extras tell it: the fields as sent, and what became of it.

    mark: number of the triage mark that takes it out of the score, 0 when it scores. change: its place in the order of
    writing. object: `resource/namespace/name` of what was touched. Fields that are empty may be left out.
    """

    recorded_at: str
    mark: int
    change: int
    object: str


def full_event(event: StoredEvent) -> dict[str, Any]:
    """Every field of an event."""
    return {
        **healert_event(event),
        "revision": event.revision,
        "cluster": event.cluster,
        "outcome": event.outcome,
        "response_code": event.response_code,
        "duration_s": event.duration_s,
        "stage": event.stage,
        "test": event.test,
        "recorded_at": format_timestamp(event.recorded_us),
        "object": event.object,
        "mark": event.mark,
        "change": event.change,
        **event.details,
    }


def healert_event(event: StoredEvent) -> dict[str, Any]:
    """The fields that Healert knows."""
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


def event_filter(
    entity_ref: Text = "",
    actor: Text = "",
    rule: Text = "",
    severity: Literal["", "high", "medium", "low"] = "",
    outcome: Literal["", "allowed", "denied", "failed"] = "",
    namespace: Annotated[str, Query(max_length=200, description="of the entity")] = "",
    cluster: Annotated[str | None, Query(max_length=200)] = None,
    object: Annotated[str, Query(max_length=600, description="resource/namespace/name")] = "",  # noqa: A002
    mark: Annotated[int | None, Query(ge=1, le=(1 << 31) - 1)] = None,
    since: Annotated[str | None, Query(description="ISO 8601, included")] = None,
    until: Annotated[str | None, Query(description="ISO 8601, not included")] = None,
    weekday: Annotated[int | None, Query(ge=0, le=6, description="0 is Monday, in UTC")] = None,
    hour: Annotated[int | None, Query(ge=0, le=23, description="in UTC")] = None,
    text: Words = "",
    expected: Annotated[Expected, Query(description="events that a mark takes out of the score")] = "include",
    include_tests: bool = False,
) -> EventFilter:
    """The filter that a request asks for."""
    return EventFilter(
        entity_ref=entity_ref,
        actor=actor,
        rule=rule,
        severity=severity,
        outcome=outcome,
        namespace=namespace,
        cluster=cluster,
        object=object,
        mark=mark,
        since_us=moment("since", since),
        until_us=moment("until", until),
        weekday=weekday,
        hour=hour,
        text=text.strip(),
        expected=expected,
        tests=include_tests,
    )


Filter = Annotated[EventFilter, Depends(event_filter)]


def router(store: Store, now_us: Callable[[], int]) -> APIRouter:
    """/api/v1/events, /api/v1/events/{id}, /api/v1/sessions."""
    routes = APIRouter(prefix="/api/v1", tags=["events"])

    @routes.get("/events", **gives(FullEvent, many=True))
    def events(
        request: Request,
        where: Filter,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
        cursor: Annotated[str, Query(max_length=60, description="from X-Next-Cursor of the page before")] = "",
    ) -> Response:
        """Events, the latest to happen first; of a text search the latest to arrive first.

        `X-Next-Cursor` and a `Link` with rel="next" lead on; without them this was the last page. A filter that hardly
        anything fits may give a short or empty page that leads on: `X-Searched-To` says how far back it looked.
        """
        try:
            page = store.events.page(where, limit=limit, cursor=cursor)
        except BadCursor as error:
            refuse("cursor", f"{error}; leave it out for the first page")
        headers = {}
        if page.next:
            query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
            headers["X-Next-Cursor"] = page.next
            headers["Link"] = f'<{request.url.path}?{urlencode([*query, ("cursor", page.next)])}>; rel="next"'
        if page.searched_us is not None and page.next:
            headers["X-Searched-To"] = format_timestamp(page.searched_us)
        return answer([full_event(event) for event in page.events], headers=headers)

    @routes.get("/events/{event_id}", **gives(FullEvent, also=(404,)))
    def event(event_id: str) -> Response:
        """One event by its id, test events too."""
        found = store.events.find(event_id)
        if found is None:
            raise HTTPException(404, "no event has this id; it may be older than the retention")
        return answer(full_event(found))

    @routes.get("/sessions", **gives(FullEvent, many=True))
    def sessions(entity_ref: Text = "") -> Response:
        """Sessions (shells, tunnels) that are open now, the latest first."""
        return answer([full_event(event) for event in store.events.sessions(now_us(), entity_ref=entity_ref)])

    return routes


EVENTS_SCHEMA = {"type": "array", "items": {"$ref": REF.format(name="FullEvent")}}
REFUSALS = refusals(422)
