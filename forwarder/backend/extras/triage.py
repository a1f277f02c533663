"""Triage by call: say what is expected until when, by whom and why; take it back; see what is hidden."""

from collections.abc import Callable
from typing import Annotated

import anyio.to_thread
import msgspec
from fastapi import APIRouter, HTTPException, Query, Request, Response

from forwarder.backend.extras.answers import answer, gives, read_body, refuse, takes, told
from forwarder.backend.guard import Bodies
from forwarder.backend.intake import clean, parse_timestamp
from forwarder.backend.store import Store
from forwarder.backend.store.triage import FOREVER_US, MAX_LISTED_MARKS, MAX_MARKED_EVENTS, Mark, Which

Name = Annotated[str, msgspec.Meta(max_length=200)]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Author = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Moment = Annotated[str, msgspec.Meta(max_length=40)]


class NewMark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is expected: `event_ids`, or everything of (actor, rule, entity_ref), of which at least one is given.

    until: needed for a pattern: it covers what happens before; a mark on events lapses at it, and without it never does.
    since: of a pattern; without it everything that is stored is covered too.
    """

    author: Author
    reason: Words
    event_ids: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=MAX_MARKED_EVENTS)
    ] = []
    actor: Name = ""
    rule: Annotated[str, msgspec.Meta(max_length=50)] = ""
    entity_ref: Name = ""
    until: Moment = ""
    since: Moment = ""


class Undo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who takes a mark back."""

    author: Author


def router(store: Store, now_us: Callable[[], int], bodies: Bodies) -> APIRouter:
    """/api/v1/marks."""
    routes = APIRouter(prefix="/api/v1/marks", tags=["triage"])

    @routes.get("", **gives(Mark, many=True))
    def marks(
        which: Which = "in force",
        entity_ref: Annotated[str, Query(max_length=200)] = "",
        actor: Annotated[str, Query(max_length=200)] = "",
        rule: Annotated[str, Query(max_length=50)] = "",
        before: Annotated[
            int, Query(ge=0, le=(1 << 31) - 1, description="the id of the last one of the page before")
        ] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED_MARKS)] = 100,
    ) -> Response:
        """Marks, newest first; those that ended stay in the list. `hidden`: events that a mark takes out of the score."""
        found = store.triage.marks(which, entity_ref=entity_ref, actor=actor, rule=rule, before=before, limit=limit)
        return answer(told(found))

    @routes.post("", **gives(Mark, many=True, also=(408, 413)), openapi_extra=takes(NewMark))
    async def mark(request: Request) -> Response:
        """Mark events, or a pattern, as expected. The answer: the new marks; events that had one already are left out."""
        wanted = await read_body(request, bodies, NewMark)
        return answer(told(await anyio.to_thread.run_sync(_mark, store, wanted, now_us())))

    @routes.post("/{mark_id}/undo", **gives(Mark, also=(404, 408, 409, 413)), openapi_extra=takes(Undo))
    async def undo(request: Request, mark_id: int) -> Response:
        """Take a mark back: what it took out counts again."""
        author = clean((await read_body(request, bodies, Undo)).author)
        found = store.triage.find(mark_id) if abs(mark_id) < 1 << 31 else None
        if found is None:
            raise HTTPException(404, "there is no such mark")
        ended = await anyio.to_thread.run_sync(lambda: store.triage.undo(mark_id, author=author, now_us=now_us()))
        if ended is None:
            raise HTTPException(409, f"it is not in force any more: {found.ended_how or 'ended'} already")
        return answer(told(ended))

    return routes


def _mark(store: Store, wanted: NewMark, now_us: int) -> list[Mark]:
    until_us, since_us = (_moment(name, getattr(wanted, name)) for name in ("until", "since"))
    author, reason = clean(wanted.author), clean(wanted.reason)
    if wanted.event_ids:
        if wanted.actor or wanted.rule or wanted.entity_ref:
            refuse("event_ids", "name events or a pattern, not both", place="body")
        if until_us is not None and until_us <= now_us:
            refuse("until", "is over already; a mark on events would lapse at once", place="body")
        return store.triage.expect_events(
            wanted.event_ids, author=author, reason=reason, now_us=now_us, until_us=until_us
        )
    if not (wanted.actor or wanted.rule or wanted.entity_ref):
        refuse("", "name event_ids, or an actor, a rule or an entity_ref", place="body")
    if until_us is None:
        refuse("until", "a pattern needs a date up to which it is expected", place="body")
    return [
        store.triage.expect_pattern(
            actor=wanted.actor,
            rule=wanted.rule,
            entity_ref=wanted.entity_ref,
            author=author,
            reason=reason,
            now_us=now_us,
            until_us=until_us,
            since_us=since_us or 0,
        )
    ]


def _moment(field: str, text: str) -> int | None:
    if not text:
        return None
    found = parse_timestamp(text)
    if found is None or found > FOREVER_US:
        refuse(field, "must be an ISO 8601 time, such as 2026-01-31T12:00:00Z", place="body")
    return found
