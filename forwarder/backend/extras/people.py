"""Actors and rules, series for pictures, and the search across everything."""

from collections.abc import Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from forwarder.backend.extras.answers import answer, gives, refuse, told
from forwarder.backend.extras.events import FullEvent, full_event
from forwarder.backend.extras.services import found
from forwarder.backend.store import Store
from forwarder.backend.store.charts import MAX_CHART_DAYS, Calendar, Heatmap, TooNarrow
from forwarder.backend.store.people import ActorView, RuleView, Tally

Short = Annotated[str, Query(max_length=200)]
Cluster = Annotated[str | None, Query(max_length=200)]
Days = Annotated[int, Query(ge=1, le=MAX_CHART_DAYS)]


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found: names by a part of them, events by their words; next: the cursor for /api/v1/events."""

    entities: list[Tally]
    actors: list[Tally]
    rules: list[Tally]
    events: list[FullEvent]
    next: str


def router(store: Store, now_us: Callable[[], int]) -> APIRouter:
    """/api/v1/actors, rules, search, heatmap, calendar."""
    routes = APIRouter(prefix="/api/v1", tags=["people and pictures"])

    @routes.get("/actors", **gives(Tally, many=True))
    def actors(
        text: Short = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    ) -> Response:
        """Actors, the noisiest first."""
        return answer(told(store.people.actors(text=text, limit=limit, offset=offset)))

    @routes.get("/actors/{name:path}", **gives(ActorView, also=(404,)))
    def actor(name: str) -> Response:
        """One actor: where, and by which rules."""
        return found(store.people.actor(name), "no event of this actor is stored")

    @routes.get("/rules", **gives(Tally, many=True))
    def rules() -> Response:
        """Rules that fired, the noisiest first."""
        return answer(told(store.people.rules()))

    @routes.get("/rules/{name}", **gives(RuleView, also=(404,)))
    def rule(name: str) -> Response:
        """One rule: its noisiest actors and services."""
        return found(store.people.rule(name), "no event of this rule is stored")

    @routes.get("/search", **gives(SearchAnswer))
    def search(
        text: Annotated[str, Query(max_length=500)], limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> Response:
        """Across everything."""
        answered = store.search.everything(text, limit=limit)
        names = {name: told(getattr(answered, name)) for name in ("entities", "actors", "rules")}
        events = [full_event(event) for event in answered.events.events]
        return answer({**names, "events": events, "next": answered.events.next})

    @routes.get("/heatmap", **gives(Heatmap))
    def heatmap(
        entity_ref: Short = "", actor: Short = "", rule: Short = "", cluster: Cluster = None, days: Days = 28
    ) -> Response:
        """Events by hour of the week (UTC): of a service (and one of its rules), an actor, a rule, or everything."""
        try:
            return answer(
                told(
                    store.charts.heatmap(
                        now_us(), days=days, entity_ref=entity_ref, actor=actor, rule=rule, cluster=cluster
                    )
                )
            )
        except TooNarrow as error:
            refuse("actor", str(error))

    @routes.get("/calendar", **gives(Calendar))
    def calendar(
        entity_ref: Short = "",
        actor: Short = "",
        namespace: Short = "",
        team: Short = "",
        cluster: Cluster = None,
        days: Days = 30,
    ) -> Response:
        """Events by day (UTC) and rule: of a service, an actor, a namespace, a team, or everything."""
        try:
            return answer(
                told(
                    store.charts.calendar(
                        now_us(),
                        days=days,
                        entity_ref=entity_ref,
                        actor=actor,
                        namespace=namespace,
                        team=team,
                        cluster=cluster,
                    )
                )
            )
        except TooNarrow as error:
            refuse("entity_ref", str(error))

    return routes
