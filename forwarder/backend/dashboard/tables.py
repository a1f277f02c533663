"""The pictures of a service, an actor or a rule as tables: for those who hear them, and for those who want the numbers.

A page of their own: a table has a cell for every hour or for every rule on every day, most readers want none of them.
"""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.requests import Request

from forwarder.backend.dashboard.desk import Desk
from forwarder.backend.dashboard.drawing.heatmaps import WEEKDAYS
from forwarder.backend.dashboard.filters import MAX_TEXT_CHARS
from forwarder.backend.dashboard.words import address, iso

PLACES = {"entity": "/service", "actor": "/actor", "rule": "/rule"}  # whose tables there are, and where they came from
_PARAMETER = {"entity": "ref", "actor": "name", "rule": "name"}
_ARGUMENT = {"entity": "entity_ref", "actor": "actor", "rule": "rule"}


def router(desk: Desk) -> APIRouter:
    """`GET /table?entity=`, `?actor=` or `?rule=`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/table", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def table(request: Request) -> HTMLResponse:
        given = {what: request.query_params.get(what, "")[:MAX_TEXT_CHARS] for what in PLACES}
        chosen = [(what, name) for what, name in given.items() if name]
        if len(chosen) != 1:
            message = "A table is about one service (entity=), one actor (actor=) or one rule (rule=)."
            return desk.page(request, "message.html", status=400, title="No such table", message=message)
        return desk.page(request, "table.html", table=gather(desk, *chosen[0]))

    return routes


def gather(desk: Desk, what: str, name: str) -> dict[str, Any]:
    """Everything that the page shows. what: a key of PLACES. There is no calendar of a rule."""
    store, now_us = desk.store, desk.now_us()
    argument: dict[str, Any] = {_ARGUMENT[what]: name}
    explanation = store.scores.explain(name, now_us) if what == "entity" else None
    return {
        "name": name,
        "back": address(PLACES[what], {_PARAMETER[what]: name}),
        "where": {what: name},
        "weekdays": WEEKDAYS,
        "heatmap": store.charts.heatmap(now_us, **argument),
        "calendar": None if what == "rule" else store.charts.calendar(now_us, **argument),
        "explanation": explanation,
        "since": iso(explanation.since_us) if explanation else "",
        "severities": {rule: card.severity for rule, card in desk.rules().items()},
    }
