"""One service: its score in words, when and what, who, the timeline, and what was changed by whom."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from starlette.requests import Request

from forwarder.backend.dashboard.desk import LATEST_EVENTS, Desk
from forwarder.backend.dashboard.drawing.heatmaps import day_grid, week_grid
from forwarder.backend.dashboard.drawing.sparkline import sparkline
from forwarder.backend.dashboard.filters import MAX_TEXT_CHARS
from forwarder.backend.dashboard.lists import event_pages
from forwarder.backend.dashboard.words import address, iso, plural, split_ref
from forwarder.backend.intake import valid_entity_ref
from forwarder.backend.scoring import OVERHEAD_MINUTES
from forwarder.backend.store.charts import Calendar, Heatmap
from forwarder.backend.store.events import BadCursor, EventFilter
from forwarder.backend.store.explanation import Contribution, Explanation
from forwarder.backend.store.views import DAY_US

MAX_RULE_ROWS = 12  # of the calendar; the rest is in its table
TOLD = 3  # contributions in the sentence
LISTED = 10  # and below it; all of them stand in the tables
HISTORY_DAYS = 30


def router(desk: Desk) -> APIRouter:
    """`GET /service?ref=kind:namespace/name`, and its pictures, which the page fetches: it is there before they are."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/service", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def service(request: Request) -> HTMLResponse:
        ref = request.query_params.get("ref", "")
        if not valid_entity_ref(ref):
            message = "That is no service: an entity reference is kind:namespace/name."
            return desk.page(request, "message.html", status=400, title="No such service", message=message)
        try:
            return desk.page(request, "service.html", here="/", service=gather(desk, request, ref))
        except BadCursor:
            return desk.page(
                request, "message.html", status=400, title="No such page", message="That page is not there."
            )

    @routes.get("/service/charts", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def charts(request: Request) -> HTMLResponse:
        ref = request.query_params.get("ref", "")[:MAX_TEXT_CHARS]
        return desk.page(request, "charts.html", charts=gather_charts(desk, ref))

    return routes


def gather_charts(desk: Desk, ref: str) -> dict[str, Any]:
    """The two pictures; of an unknown service they are empty."""
    charts, now_us, where = desk.store.charts, desk.now_us(), {"entity": ref}
    calendar = charts.calendar(now_us, entity_ref=ref)
    return {
        "where": where,
        "week": week(charts.heatmap(now_us, entity_ref=ref), where),
        "days": days(calendar, where),
        "calendar": calendar,
    }


def gather(desk: Desk, request: Request, ref: str) -> dict[str, Any]:
    """Everything that the page shows; of an unknown service all of it is empty."""
    store, now_us = desk.store, desk.now_us()
    card = store.scores.card(ref, now_us, days=HISTORY_DAYS)
    explanation = card.explanation
    cursor = request.query_params.get("cursor", "")
    page = store.events.page(EventFilter(entity_ref=ref), limit=LATEST_EVENTS, cursor=cursor)
    kind, namespace, name = split_ref(ref)
    return {
        "ref": ref,
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "view": store.people.entity(ref),
        "severities": {name: card.severity for name, card in desk.rules().items()},
        "explanation": explanation,
        "contributions": explanation.contributions[:LISTED],
        "sentence": sentence(explanation, now_us),
        "friction": card.friction,
        "overhead_minutes": OVERHEAD_MINUTES,
        "since": iso(explanation.since_us),
        "history": sparkline([point.score for point in card.history], explanation.severity, 320, 48),
        "open": store.events.sessions(now_us, entity_ref=ref),
        "touched": store.people.touched(ref, limit=15),
        "marks": store.triage.marks("in force", entity_ref=ref, limit=20),
        "events": page.events,
        "page": event_pages("/service", {"ref": ref}, page, cursor),
    }


def sentence(explanation: Explanation, now_us: int) -> str:
    """`62 = 24 from 3 kubectl-exec today + 20 from 2 config-drift 3 days ago + 18 from 5 others`."""
    if not explanation.count:
        return f"Nobody went around the platform here in the last {explanation.window_days} days."
    told, rest = explanation.contributions[:TOLD], explanation.contributions[TOLD:]
    shares = [part.share for part in told] + ([sum(part.share for part in rest)] if rest else [])
    whole = round(sum(shares))
    points = adding_up(shares, whole)
    words = [f"{part.count:,} {part.rule} {_when(part, now_us)}" for part in told]
    if rest:
        words.append(plural(sum(part.count for part in rest), "other"))
    parts = " + ".join(f"{number:,} from {text}" for number, text in zip(points, words, strict=True))
    return f"{whole:,} = {parts}" + ("; a score ends at 100." if whole > 100 else ".")


def adding_up(shares: Sequence[float], whole: int) -> list[int]:
    """The shares as whole numbers whose sum is `whole`: the largest remainders are rounded up."""
    numbers = [int(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda index: numbers[index] - shares[index])
    for index in order[: max(0, whole - sum(numbers))]:
        numbers[index] += 1
    return numbers


def week(heatmap: Heatmap, where: dict[str, str]) -> Markup:
    """The hours of the week, each linked to its events."""
    return week_grid(heatmap.counts, address("/search", where, since=iso(heatmap.since_us), expected="exclude"))


def days(calendar: Calendar, where: dict[str, str]) -> Markup:
    """The days of each rule, each linked to its events."""
    rules = calendar.rules[:MAX_RULE_ROWS]
    return day_grid(
        {rule: calendar.counts[rule] for rule in rules},
        [date.fromisoformat(day) for day in calendar.days],
        {rule: address("/search", where, rule=rule, expected="exclude") for rule in rules},
    )


def _when(part: Contribution, now_us: int) -> str:
    age = now_us // DAY_US - (date.fromisoformat(part.day) - date(1970, 1, 1)).days
    return {0: "today", 1: "yesterday"}.get(age, f"{age} days ago")
