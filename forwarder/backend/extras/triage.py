"""Triage by call: say what is expected until when, by whom and why; take it back; see what is hidden."""

from collections.abc import Callable
from typing import Annotated, NoReturn

import anyio.to_thread
import msgspec
from fastapi import APIRouter, HTTPException, Query, Request, Response

from forwarder.backend.extras.answers import answer, author_of, gives, read_body, refuse, takes, told
from forwarder.backend.guard import Bodies
from forwarder.backend.intake import clean, parse_timestamp
from forwarder.backend.store import Store
from forwarder.backend.store.triage import (
    FOREVER_US,
    MAX_LISTED_MARKS,
    MAX_MARKED_EVENTS,
    CoversNothing,
    Mark,
    Marking,
    Which,
)

Name = Annotated[str, msgspec.Meta(max_length=200)]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Moment = Annotated[str, msgspec.Meta(max_length=40)]

STORED_ONLY = "until is over already: this covers what happened before it, and nothing that is to come"


class NewMark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is expected: `event_ids`, or everything of (actor, rule, entity_ref), of which at least one is given.

    author: needed where no key is in force; else it is the name of the key, whatever stands here.
    until: needed for a pattern: it covers what happens before; a mark on events lapses at it, and without it never does.
    One of a pattern may be over where the pattern covers something that is stored.
    since: of a pattern; without it everything that is stored is covered too.
    """

    author: Name = ""
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
    """Who takes a mark back: needed where no key is in force; else it is the name of the key, whatever stands here."""

    author: Name = ""


class Marked(msgspec.Struct, frozen=True, kw_only=True):
    """The new marks, and what became of ids that got none: no such event is stored, a mark covers it already, or it is a
    test event, which never counts. note: what the author should know of a pattern, else empty.
    """

    marks: list[Mark]
    unknown: list[str] = []
    already_marked: list[str] = []
    tests: list[str] = []
    note: str = ""


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

    @routes.post("", **gives(Marked, also=(404, 408, 409, 413)), openapi_extra=takes(NewMark))
    async def mark(request: Request) -> Response:
        """Mark events, or a pattern, as expected. Ids that got no mark are named with the reason.

        When none gets one: 404 where all are unknown, else 409; the refusal names each by its place in `event_ids`.
        """
        wanted = await read_body(request, bodies, NewMark)
        author = author_of(request, wanted.author)
        return answer(told(await anyio.to_thread.run_sync(_mark, store, wanted, author, now_us())))

    @routes.post("/{mark_id}/undo", **gives(Mark, also=(404, 408, 409, 413)), openapi_extra=takes(Undo))
    async def undo(request: Request, mark_id: int) -> Response:
        """Take a mark back: what it took out counts again."""
        author = author_of(request, (await read_body(request, bodies, Undo)).author)
        found = store.triage.find(mark_id) if abs(mark_id) < 1 << 31 else None
        if found is None:
            raise HTTPException(404, "there is no such mark")
        ended = await anyio.to_thread.run_sync(lambda: store.triage.undo(mark_id, author=author, now_us=now_us()))
        if ended is None:
            raise HTTPException(409, f"it is not in force any more: {found.ended_how or 'ended'} already")
        return answer(told(ended))

    return routes


def _mark(store: Store, wanted: NewMark, author: str, now_us: int) -> Marked:
    until_us, since_us = (_moment(name, getattr(wanted, name)) for name in ("until", "since"))
    reason = clean(wanted.reason)
    if wanted.event_ids:
        if wanted.actor or wanted.rule or wanted.entity_ref:
            refuse("event_ids", "name events or a pattern, not both", place="body")
        if until_us is not None and until_us <= now_us:
            refuse("until", "is over already; a mark on events would lapse at once", place="body")
        marking = store.triage.expect_events(
            wanted.event_ids, author=author, reason=reason, now_us=now_us, until_us=until_us
        )
        if not marking.marks:
            _none_marked(wanted.event_ids, marking)
        return Marked(
            marks=marking.marks, unknown=marking.unknown, already_marked=marking.already_marked, tests=marking.tests
        )
    if not (wanted.actor or wanted.rule or wanted.entity_ref):
        refuse("", "name event_ids, or an actor, a rule or an entity_ref", place="body")
    if until_us is None:
        refuse("until", "a pattern needs a date up to which it is expected", place="body")
    if since_us is not None and since_us >= until_us:
        refuse("since", "must be before until", place="body")
    try:
        mark = store.triage.expect_pattern(
            actor=wanted.actor,
            rule=wanted.rule,
            entity_ref=wanted.entity_ref,
            author=author,
            reason=reason,
            now_us=now_us,
            until_us=until_us,
            since_us=since_us or 0,
        )
    except CoversNothing:
        refuse(
            "until", "is over already, and no stored event that counts is covered; name a moment to come", place="body"
        )
    return Marked(marks=[mark], note=STORED_ONLY if until_us <= now_us else "")


def _none_marked(event_ids: list[str], marking: Marking) -> NoReturn:
    why = (
        dict.fromkeys(marking.unknown, "no event has this id; it may be older than the retention")
        | dict.fromkeys(marking.already_marked, "is marked as expected already")
        | dict.fromkeys(marking.tests, "is a test event, which does not count anyway")
    )
    status = 409 if marking.already_marked or marking.tests else 404
    raise HTTPException(
        status,
        [
            {"loc": ["body", "event_ids", index], "msg": why[event_id], "type": "invalid"}
            for index, event_id in enumerate(event_ids)
        ],
    )


def _moment(field: str, text: str) -> int | None:
    if not text:
        return None
    found = parse_timestamp(text)
    if found is None or found > FOREVER_US:
        refuse(field, "must be an ISO 8601 time, such as 2026-01-31T12:00:00Z", place="body")
    return found
