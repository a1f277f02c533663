"""The pictures of a service, an actor or a rule as tables: for those who hear them, and for those who want the numbers.

A page of their own: a table has a cell for every hour or for every rule on every day, most readers want none of them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markupsafe import Markup, escape
from starlette.requests import Request

from forwarder.backend.dashboard.desk import Desk
from forwarder.backend.dashboard.drawing.heatmaps import WEEKDAYS
from forwarder.backend.dashboard.filters import MAX_TEXT_CHARS
from forwarder.backend.dashboard.words import address, iso, quoted
from forwarder.backend.store.charts import Calendar, Heatmap

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
    calendar = None if what == "rule" else store.charts.calendar(now_us, **argument)
    explanation = store.scores.explain(name, now_us) if what == "entity" else None
    return {
        "name": name,
        "back": address(PLACES[what], {_PARAMETER[what]: name}),
        "where": {what: name},
        "weekdays": WEEKDAYS,
        "hours": hours(store.charts.heatmap(now_us, **argument), {what: name}),
        "calendar": calendar,
        "days": days(calendar, {what: name}) if calendar else [],
        "explanation": explanation,
        "since": iso(explanation.since_us) if explanation else "",
        "severities": {rule: card.severity for rule, card in desk.rules().items()},
    }


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One row: what it is about, and its cells."""

    label: str
    cells: Markup


def hours(heatmap: Heatmap, where: dict[str, str]) -> list[Line]:
    """Hour by hour, a cell for each weekday; hours without events are left out."""
    base = address("/search", where, since=iso(heatmap.since_us), expected="exclude")
    lines = []
    for hour in range(24):
        counts = [day[hour] for day in heatmap.counts]
        if any(counts):
            links = [f"{base}&weekday={weekday}&hour={hour}" for weekday in range(7)]
            said = [f"on {name} at {hour}" for name in WEEKDAYS]
            lines.append(Line(label=f"{hour:02}", cells=_cells(counts, links, said)))
    return lines


def days(calendar: Calendar, where: dict[str, str]) -> list[Line]:
    """Day by day, the latest first, a cell for each rule; days without events are left out."""
    lines = []
    rules = [f"&rule={quoted(rule)}" for rule in calendar.rules]
    for index in range(len(calendar.days) - 1, -1, -1):
        counts = [calendar.counts[rule][index] for rule in calendar.rules]
        if any(counts):
            day = calendar.days[index]
            base = address("/search", where, since=day, until=day, expected="exclude")
            said = [f"{rule} on {day}" for rule in calendar.rules]
            lines.append(Line(label=day, cells=_cells(counts, [base + rule for rule in rules], said)))
    return lines


def _cells(counts: Sequence[int], links: Sequence[str], said: Sequence[str]) -> Markup:
    """Cells of one row. Written out, not by the template: a table may have a thousand."""
    return Markup(  # noqa: S704 - the texts are escaped, the rest are numbers
        "".join(
            f'<td class="number"><a href="{escape(link)}">{count:,}<span class="hidden-text"> {escape(words)}</span></a></td>'
            if count
            else '<td class="number">0</td>'
            for count, link, words in zip(counts, links, said, strict=True)
        )
    )
