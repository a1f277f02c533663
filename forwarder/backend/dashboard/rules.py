"""Rules: what each detects, its tests, how often it fired, and who is noisiest."""

from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.requests import Request

from forwarder.backend.dashboard.desk import LATEST_EVENTS, Desk
from forwarder.backend.dashboard.filters import MAX_TEXT_CHARS
from forwarder.backend.dashboard.lists import event_pages
from forwarder.backend.dashboard.rulebook import RuleCard
from forwarder.backend.dashboard.service import week
from forwarder.backend.store.events import BadCursor, EventFilter


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One rule in the list. card: None for one that this backend has no file of. last_us: 0 for never."""

    name: str
    card: RuleCard | None
    count: int
    last_us: int


def router(desk: Desk) -> APIRouter:
    """`GET /rules` and `GET /rule?name=`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/rules", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def rules(request: Request) -> HTMLResponse:
        return desk.page(request, "rules.html", here="/rules", lines=lines(desk))

    @routes.get("/rule", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def rule(request: Request) -> HTMLResponse:
        name = request.query_params.get("name", "")[:MAX_TEXT_CHARS]
        try:
            return desk.page(request, "rule.html", here="/rules", rule=gather(desk, request, name))
        except BadCursor:
            return desk.page(
                request, "message.html", status=400, title="No such page", message="That page is not there."
            )

    return routes


def lines(desk: Desk) -> list[Line]:
    """Every rule that fired or is known, the noisiest first."""
    cards = desk.rules()
    fired = {tally.name: tally for tally in desk.store.people.rules()}
    found = [
        Line(
            name=name,
            card=cards.get(name),
            count=fired[name].count if name in fired else 0,
            last_us=fired[name].last_us if name in fired else 0,
        )
        for name in {*cards, *fired}
    ]
    return sorted(found, key=lambda line: (-line.count, line.name))


def gather(desk: Desk, request: Request, name: str) -> dict[str, Any]:
    """Everything that a rule's page shows."""
    store, now_us = desk.store, desk.now_us()
    cursor = request.query_params.get("cursor", "")
    page = store.events.page(EventFilter(rule=name), limit=LATEST_EVENTS, cursor=cursor)
    heatmap = store.charts.heatmap(now_us, rule=name)
    return {
        "name": name,
        "card": desk.rules().get(name),
        "view": store.people.rule(name),
        "week": week(heatmap, {"rule": name}),
        "marks": store.triage.marks("in force", rule=name, limit=20),
        "events": page.events,
        "page": event_pages("/rule", {"name": name}, page, cursor),
    }
