"""The first page: services by score, what happened by rule, and what happens now."""

from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.requests import Request

from forwarder.backend.dashboard.desk import Desk, plain_host
from forwarder.backend.dashboard.filters import MAX_TEXT_CHARS
from forwarder.backend.dashboard.lists import page_offset
from forwarder.backend.dashboard.words import address, iso, plural, split_ref
from forwarder.backend.store.charts import Calendar
from forwarder.backend.store.scores import TREND_DAYS, EntityScore, ScoreFilter
from forwarder.backend.store.views import DAY_US

PAGE_SERVICES = 30  # two screens
FEED_EVENTS = 20
_FIELDS = ("cluster", "namespace", "team", "q")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One service in the list."""

    ref: str
    kind: str
    namespace: str
    name: str
    team: str
    score: int
    band: str
    count: int
    trend: tuple[int, ...]
    top_rule: str
    last_us: int


class RuleCount(msgspec.Struct, frozen=True, kw_only=True):
    """One rule with its events in the window. severity: "" where the rule is not known here."""

    name: str
    count: int
    severity: str


def router(desk: Desk) -> APIRouter:
    """`GET /`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def home(request: Request) -> HTMLResponse:
        return desk.page(request, "home.html", here="/", home=gather(desk, request))

    return routes


def gather(desk: Desk, request: Request) -> dict[str, Any]:
    """Everything that the page shows."""
    store, now_us = desk.store, desk.now_us()
    where = {name: request.query_params.get(name, "").strip()[:MAX_TEXT_CHARS] for name in _FIELDS}
    feed = store.latest(FEED_EVENTS, include_tests=True)
    if not feed:
        return {"nothing_ever": True, "curl": _curl(desk, request), "where": where}
    offset = page_offset(request)
    chosen = ScoreFilter(
        cluster=where["cluster"] or None, namespace=where["namespace"], team=where["team"], text=where["q"]
    )
    listed = store.scores.page(chosen, now_us, offset=offset, limit=PAGE_SERVICES)
    window_days = store.settings.chosen().score_retention_days
    rules = desk.rules()
    severities = {name: card.severity for name, card in rules.items()}
    calendar = store.charts.calendar(
        now_us,
        days=window_days,
        namespace=where["namespace"],
        team="" if where["namespace"] else where["team"],
        cluster=where["cluster"] or None,
    )
    return {
        "nothing_ever": False,
        "rows": [_row(entity) for entity in listed.entities],
        "page": _pages(where, offset, listed.total),
        "where": where,
        "filtered": any(where.values()),
        "places": desk.places(),
        "window_days": window_days,
        "trend_days": TREND_DAYS,
        "since": iso(now_us // DAY_US * DAY_US - (window_days - 1) * DAY_US),
        "severities": severities,
        "rules": _rule_counts(calendar, severities),
        "expected": sum(mark.hidden for mark in store.triage.marks("in force")),
        "feed": feed,
    }


def _row(entity: EntityScore) -> Row:
    kind, namespace, name = split_ref(entity.entity_ref)
    return Row(
        ref=entity.entity_ref,
        kind=kind,
        namespace=namespace,
        name=name,
        team=entity.team,
        score=entity.score,
        band=entity.severity,
        count=entity.count,
        trend=entity.trend,
        top_rule=entity.top_rule,
        last_us=entity.last_event_us,
    )


def _rule_counts(calendar: Calendar, severities: dict[str, Any]) -> list[RuleCount]:
    return [
        RuleCount(name=rule, count=sum(calendar.counts[rule]), severity=severities.get(rule, ""))
        for rule in calendar.rules
    ]


def _pages(where: dict[str, str], offset: int, total: int) -> dict[str, str]:
    last = min(total, offset + PAGE_SERVICES)
    words = (
        f"{offset + 1} to {last} of {plural(total, 'service')}" if total > PAGE_SERVICES else plural(total, "service")
    )
    return {
        "words": words,
        "first": address("/", where) if offset else "",
        "next": address("/", where, offset=last) if last < total else "",
        "next_words": "Next",
    }


def _curl(desk: Desk, request: Request) -> str:
    """A command that sends one event to where this page came from."""
    key = '-H "Authorization: Bearer $HEALERT_API_KEY" ' if desk.access.keys_in_force else ""
    return (
        f"curl {request.url.scheme}://{plain_host(request)}/events -H 'Content-Type: application/json' {key}\\\n"
        '  -d \'{"entity_ref": "component:default/example", "type": "kubectl-exec", "severity": "high", "actor": "me"}\''
    )
