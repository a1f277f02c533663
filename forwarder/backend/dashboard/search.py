"""Events by every filter, search across everything, and one event with all that is known of it."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.requests import Request

from forwarder.backend.dashboard.desk import PAGE_EVENTS, Desk
from forwarder.backend.dashboard.drawing.heatmaps import WEEKDAYS
from forwarder.backend.dashboard.filters import read_filter
from forwarder.backend.dashboard.lists import event_pages
from forwarder.backend.store.events import BadCursor
from forwarder.backend.store.search import SUGGESTED
from forwarder.backend.store.views import NameKind


def router(desk: Desk) -> APIRouter:
    """`GET /search` and `GET /event?id=`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/search", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def search(request: Request) -> HTMLResponse:
        asked = read_filter(request.query_params)
        cursor = request.query_params.get("cursor", "")
        store = desk.store
        try:
            page = store.events.page(asked.where, limit=PAGE_EVENTS, cursor=cursor)
        except BadCursor:
            return desk.page(
                request, "message.html", status=400, title="No such page", message="That page is not there."
            )
        text = "" if cursor else asked.where.text
        names = {
            word: store.people.names(kind, text=text, limit=SUGGESTED) if text else []
            for word, kind in (("service", NameKind.ENTITY), ("actor", NameKind.ACTOR), ("rule", NameKind.RULE))
        }
        return desk.page(
            request,
            "search.html",
            here="/search",
            query=asked.given.get("q", ""),
            asked=asked,
            names=names,
            events=page.events,
            page=event_pages("/search", asked.given, page, cursor),
            rules=[tally.name for tally in store.people.rules()],
            choices=desk.places(),
            weekdays=WEEKDAYS,
        )

    @routes.get("/event", response_class=HTMLResponse)
    def event(request: Request) -> HTMLResponse:
        found = desk.store.find(request.query_params.get("id", "")[:64])
        if found is None:
            message = "It may be older than this backend keeps events."
            return desk.page(request, "message.html", status=404, title="No such event", message=message)
        mark = desk.store.triage.find(found.mark) if found.mark else None
        return desk.page(request, "event.html", here="/search", event=found, mark=mark)

    return routes
