"""Events as they are written, by server-sent events: a line on the page the moment something happens.

    id: 1234                    the event's `change`; a browser sends it back as Last-Event-ID, and nothing is missed
    event: recorded | updated
    data: {…}                   as /api/v1/events gives it

Nothing is queued for a client: each reads the store from where it is, so a slow one costs no memory. One that is more
than MAX_REPLAY_EVENTS behind is told so (`event: gap`) and goes on from there. At shutdown the stream ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import anyio.to_thread
import msgspec
from fastapi import APIRouter, Header, HTTPException, Query
from fastapi.responses import StreamingResponse

from forwarder.backend.extras.answers import refusals
from forwarder.backend.extras.events import full_event
from forwarder.backend.store import Store, StoredEvent

MAX_LIVE_CLIENTS = 64  # each keeps a connection; a quarter of what the server takes
MAX_REPLAY_EVENTS = 5000  # a minute at the busiest; more is for the list
POLL_S = 2.0  # what another process wrote (PostgreSQL) is seen after this long; our own at once
BEAT_S = 15.0  # below every proxy's idle limit
RETRY_MS = 2000  # when a browser comes back


class LiveFeed:
    """Who is listening. For one event loop."""

    def __init__(self, store: Store) -> None:
        self.clients = 0
        self._store = store
        self._news = asyncio.Event()
        self._closed = False

    def notify(self) -> None:
        """Something was written."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def close(self) -> None:
        """End every stream, and let no new one begin."""
        self._closed = True
        self.notify()

    async def stream(self, after: int | None, wanted: Callable[[StoredEvent], bool]) -> AsyncIterator[bytes]:
        """Messages from behind `after` on; from now on where it is None."""
        self.clients += 1
        try:
            last = await anyio.to_thread.run_sync(self._store.events.last_change)
            position = last if after is None else min(after, last)
            yield f"retry: {RETRY_MS}\nid: {position}\n\n".encode()
            if last - position > MAX_REPLAY_EVENTS:
                yield f'event: gap\ndata: {{"missed": {last - position - MAX_REPLAY_EVENTS}}}\n\n'.encode()
                position = last - MAX_REPLAY_EVENTS
            silent_s = 0.0
            while not self._closed:
                news = self._news
                events = await anyio.to_thread.run_sync(self._store.events.changed_since, position)
                if events:
                    position, silent_s = events[-1].change, 0.0
                    told = b"".join(_message(event) for event in events if wanted(event))
                    yield told or f"id: {position}\n\n".encode()
                    continue
                try:
                    async with asyncio.timeout(POLL_S):
                        await news.wait()
                except TimeoutError:
                    silent_s += POLL_S
                if silent_s >= BEAT_S:
                    silent_s = 0.0
                    yield b": still here\n\n"
            yield b"event: end\ndata: {}\n\n"
        finally:
            self.clients -= 1

    @property
    def full(self) -> bool:
        """Whether another client has to come back later."""
        return self._closed or self.clients >= MAX_LIVE_CLIENTS


def router(feed: LiveFeed) -> APIRouter:
    """/api/v1/live."""
    routes = APIRouter(prefix="/api/v1", tags=["events"])
    content: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}

    @routes.get(
        "/live",
        response_class=StreamingResponse,
        responses={200: {"description": "OK", "content": content}, **refusals(422, 503)},
    )
    async def live(
        entity_ref: Annotated[str, Query(max_length=200)] = "",
        actor: Annotated[str, Query(max_length=200)] = "",
        rule: Annotated[str, Query(max_length=50)] = "",
        severity: Annotated[str, Query(max_length=10)] = "",
        namespace: Annotated[str, Query(max_length=200)] = "",
        cluster: Annotated[str | None, Query(max_length=200)] = None,
        after: Annotated[int | None, Query(ge=0, le=1 << 62, description="like Last-Event-ID")] = None,
        last_event_id: Annotated[str, Header(max_length=40)] = "",
    ) -> StreamingResponse:
        """Events as they are recorded and updated; test events are not among them."""
        if feed.full:
            raise HTTPException(503, "too many live feeds at once", {"Retry-After": "5"})
        wanted = {
            "entity_ref": entity_ref, "actor": actor, "type": rule, "severity": severity, "space": namespace,
        }  # fmt: skip
        chosen = [(name, value) for name, value in wanted.items() if value]

        def fits(event: StoredEvent) -> bool:
            return (
                not event.test
                and (cluster is None or event.cluster == cluster)
                and all(getattr(event, name) == value for name, value in chosen)
            )

        if last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19:
            after = int(last_event_id)
        return StreamingResponse(feed.stream(after, fits), media_type="text/event-stream")

    return routes


def _message(event: StoredEvent) -> bytes:
    told: dict[str, Any] = full_event(event)
    kind = b"updated" if event.revision else b"recorded"
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.change, kind, msgspec.json.encode(told))
