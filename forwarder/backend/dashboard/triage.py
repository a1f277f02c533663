"""Triage: what somebody says is expected, until when and why; what that hides; and undoing it. Never silent."""

from datetime import UTC, datetime
from typing import Any

import anyio.to_thread
import msgspec
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import Request
from starlette.responses import Response

from forwarder.backend.access.visitors import visitor
from forwarder.backend.dashboard.desk import Desk
from forwarder.backend.dashboard.forms import own_path, read_form
from forwarder.backend.dashboard.lists import page_offset
from forwarder.backend.dashboard.words import address, moment
from forwarder.backend.intake import clean, valid_entity_ref
from forwarder.backend.store.triage import FOREVER_US, Mark
from forwarder.backend.store.views import DAY_US

PAGE_MARKS = 50
USUAL_DAYS = 30  # how long something is expected when nobody says
MAX_AUTHOR_CHARS = 200
MAX_REASON_CHARS = 500


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a form asks for. until_us: the end of the day that was chosen; None: no end."""

    event_id: str
    actor: str
    rule: str
    entity_ref: str
    until_us: int | None
    author: str
    reason: str


class Refused(ValueError):
    """A form that cannot be taken, in words for who filled it in."""


def router(desk: Desk) -> APIRouter:
    """`GET` and `POST /triage`, `POST /triage/undo`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/triage", response_class=HTMLResponse)
    def triage(request: Request) -> HTMLResponse:
        return _page(desk, request, dict(request.query_params))

    @routes.post("/triage")
    async def expect(request: Request) -> Response:
        fields = dict(await read_form(request))
        try:
            wish = read_wish(fields, visitor(request).name, desk.now_us())
            words = await anyio.to_thread.run_sync(_mark, desk, wish)
        except Refused as refused:
            problem = str(refused)
            return await anyio.to_thread.run_sync(lambda: _page(desk, request, fields, problem=problem, status=422))
        return RedirectResponse(_with_news(own_path(fields.get("next", "/triage")), words), 303)

    @routes.post("/triage/undo")
    async def undo(request: Request) -> Response:
        fields = await read_form(request)
        number = fields.get("mark", "")
        mark_id = int(number) if number.isascii() and number.isdigit() and len(number) < 16 else 0
        author = visitor(request).name or "somebody without a key"
        mark = await anyio.to_thread.run_sync(
            lambda: desk.store.triage.undo(mark_id, author=author, now_us=desk.now_us())
        )
        news = "gone" if mark is None else "undone"
        return RedirectResponse(_with_news(own_path(fields.get("next", "/triage")), news), 303)

    return routes


def read_wish(fields: dict[str, Any], key_name: str, now_us: int) -> Wish:
    """The mark that a form asks for. key_name: of a visitor who is signed in; then nobody else can be the author."""
    text = {name: str(clean(str(value))).strip() for name, value in fields.items()}
    author, reason = key_name or text.get("author", ""), text.get("reason", "")
    if not author:
        raise Refused("Say who you are: somebody may want to ask.")
    if not reason:
        raise Refused("Say why it is expected: somebody will want to know.")
    if len(author) > MAX_AUTHOR_CHARS or len(reason) > MAX_REASON_CHARS:
        raise Refused(f"A reason has at most {MAX_REASON_CHARS} characters, a name {MAX_AUTHOR_CHARS}.")
    entity_ref, actor, rule = text.get("entity", ""), text.get("actor", ""), text.get("rule", "")
    event_id = text.get("event", "")
    if not (event_id or actor or rule or entity_ref):
        raise Refused("Name an actor, a rule or a service.")
    if entity_ref and not valid_entity_ref(entity_ref):
        raise Refused("A service is kind:namespace/name.")
    if max(len(actor), len(rule), len(event_id)) > MAX_AUTHOR_CHARS:
        raise Refused("That name is too long.")
    until_us = _end_of_day(text.get("until", ""))
    if until_us is None and not event_id:
        raise Refused("Say until when: what is expected for ever belongs into the rules.")
    if until_us is not None and until_us <= now_us:
        raise Refused("That day is over already.")
    return Wish(
        event_id=event_id,
        actor=actor,
        rule=rule,
        entity_ref=entity_ref,
        until_us=until_us,
        author=author,
        reason=reason,
    )


def _mark(desk: Desk, wish: Wish) -> str:
    """Make the mark; a word for the page that comes next."""
    triage, now_us = desk.store.triage, desk.now_us()
    if wish.event_id:
        marking = triage.expect_events(
            [wish.event_id], author=wish.author, reason=wish.reason, now_us=now_us, until_us=wish.until_us
        )
        if marking.marks:
            return "marked"
        return "already" if marking.already_marked else "test" if marking.tests else "unknown"
    assert wish.until_us is not None
    triage.expect_pattern(
        actor=wish.actor,
        rule=wish.rule,
        entity_ref=wish.entity_ref,
        author=wish.author,
        reason=wish.reason,
        now_us=now_us,
        until_us=wish.until_us,
    )
    return "marked"


NEWS = {
    "marked": "Marked as expected: it does not count any more.",
    "undone": "Undone: it counts again.",
    "already": "Nothing changed: that event is expected already.",
    "test": "Nothing changed: that is a test event, which does not count anyway.",
    "unknown": "Nothing changed: that event is not there; it may be older than this backend keeps events.",
    "gone": "Nothing changed: that mark was undone already.",
}


def _page(
    desk: Desk, request: Request, fields: dict[str, Any], *, problem: str = "", status: int = 200
) -> HTMLResponse:
    store, now_us = desk.store, desk.now_us()
    before = page_offset(request, "before")
    ended = store.triage.marks("ended", before=before, limit=PAGE_MARKS + 1)
    marks = store.triage.marks("in force")
    more = ended[PAGE_MARKS:]
    return desk.page(
        request,
        "triage.html",
        status=status,
        here="/triage",
        marks=marks,
        hidden=sum(mark.hidden for mark in marks),
        until_words={mark.id: until_words(mark) for mark in (*marks, *ended)},
        ended=ended[:PAGE_MARKS],
        older=address("/triage", before=ended[PAGE_MARKS - 1].id) if more else "",
        fields={
            name: str(fields.get(name, ""))
            for name in ("actor", "rule", "entity", "event", "author", "reason", "until")
        },
        usual_until=moment(now_us + USUAL_DAYS * DAY_US)[:10],
        today=moment(now_us)[:10],
        problem=problem,
        news=NEWS.get(request.query_params.get("news", ""), ""),
    )


def until_words(mark: Mark) -> str:
    """The last day that a mark covers."""
    return "no end" if mark.until_us >= FOREVER_US else moment(mark.until_us - 1)[:10]


def _end_of_day(text: str) -> int | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        if text:
            raise Refused("Write the day as 2026-01-31.") from None
        return None
    return int(day.timestamp()) * 1_000_000 + DAY_US


def _with_news(path: str, news: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}news={news}"
