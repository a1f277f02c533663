"""Actors: the noisiest first, and one of them: where, how, when."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.requests import Request

from forwarder.backend.dashboard.desk import LATEST_EVENTS, Desk
from forwarder.backend.dashboard.filters import MAX_TEXT_CHARS
from forwarder.backend.dashboard.lists import event_pages, name_pages, page_offset
from forwarder.backend.dashboard.service import days, week
from forwarder.backend.store.events import BadCursor, EventFilter

PAGE_ACTORS = 50


def router(desk: Desk) -> APIRouter:
    """`GET /actors` and `GET /actor?name=`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/actors", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def actors(request: Request) -> HTMLResponse:
        text = request.query_params.get("q", "").strip()[:MAX_TEXT_CHARS]
        offset = page_offset(request)
        found = desk.store.people.actors(text=text, limit=PAGE_ACTORS + 1, offset=offset)
        page = name_pages("/actors", {"q": text}, offset, found, PAGE_ACTORS, "actor")
        return desk.page(request, "actors.html", here="/actors", actors=found[:PAGE_ACTORS], text=text, page=page)

    @routes.get("/actor", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def actor(request: Request) -> HTMLResponse:
        name = request.query_params.get("name", "")[:MAX_TEXT_CHARS]
        try:
            return desk.page(request, "actor.html", here="/actors", actor=gather(desk, request, name))
        except BadCursor:
            return desk.page(
                request, "message.html", status=400, title="No such page", message="That page is not there."
            )

    return routes


def gather(desk: Desk, request: Request, name: str) -> dict[str, Any]:
    """Everything that an actor's page shows; of an unknown one all of it is empty."""
    store, now_us = desk.store, desk.now_us()
    cursor = request.query_params.get("cursor", "")
    where = EventFilter(actor=name)
    page = store.events.page(where, limit=LATEST_EVENTS, cursor=cursor)
    heatmap = store.charts.heatmap(now_us, actor=name)
    calendar = store.charts.calendar(now_us, actor=name)
    return {
        "name": name,
        "view": store.people.actor(name),
        "severities": {rule: card.severity for rule, card in desk.rules().items()},
        "week": week(heatmap, {"actor": name}),
        "days": days(calendar, {"actor": name}),
        "calendar": calendar,
        "marks": store.triage.marks("in force", actor=name, limit=20),
        "events": page.events,
        "page": event_pages("/actor", {"name": name}, page, cursor),
    }
