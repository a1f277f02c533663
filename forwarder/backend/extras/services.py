"""Services by score, and one service: where its score comes from, how it went, what was touched."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, HTTPException, Query, Response

from forwarder.backend.extras.answers import answer, gives, told
from forwarder.backend.intake import valid_entity_ref
from forwarder.backend.scoring import Band
from forwarder.backend.store import Store
from forwarder.backend.store.explanation import Explanation
from forwarder.backend.store.people import EntityView, Touched
from forwarder.backend.store.scores import (
    MAX_LISTED_ENTITIES,
    EntityScore,
    ScoreFilter,
    ScorePoint,
    Sort,
)

Short = Annotated[str, Query(max_length=200)]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How many services are in each band, and what lists can be filtered by."""

    bands: dict[str, int]
    clusters: list[str]
    namespaces: list[str]
    teams: list[str]


def router(store: Store, now_us: Callable[[], int]) -> APIRouter:
    """/api/v1/entities and what is below it, /api/v1/summary, /friction/{entity_ref}/explain."""
    routes = APIRouter(tags=["services"])

    @routes.get("/api/v1/entities", **gives(EntityScore, many=True))
    def entities(
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED_ENTITIES)] = 100,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
        sort: Sort = "score",
        cluster: Annotated[str | None, Query(max_length=200)] = None,
        namespace: Short = "",
        team: Short = "",
        severity: Band | Literal[""] = "",
        text: Short = "",
    ) -> Response:
        """Services by score, the worst first; `X-Total-Count` says how many fit the filter."""
        where = ScoreFilter(cluster=cluster, namespace=namespace, team=team, severity=severity, text=text)
        page = store.scores.page(where, now_us(), offset=offset, limit=limit, sort=sort)
        return answer(told(page.entities), headers={"X-Total-Count": str(page.total)})

    @routes.get("/api/v1/summary", **gives(Summary))
    def summary(cluster: Annotated[str | None, Query(max_length=200)] = None) -> Response:
        """How many services are in each band; the clusters, namespaces and teams that there are."""
        return answer(
            {
                "bands": store.scores.bands(now_us(), cluster=cluster),
                "clusters": store.people.clusters(),
                "namespaces": store.people.namespaces(),
                "teams": store.people.teams(),
            }
        )

    @routes.get("/friction/{entity_ref:path}/explain", **gives(Explanation, also=(400, 404)))
    def explain(entity_ref: str) -> Response:
        """Where a score comes from: what each rule adds on each day."""
        return answer(told(store.scores.explain(checked(entity_ref), now_us())))

    @routes.get("/api/v1/entities/{entity_ref:path}/history", **gives(ScorePoint, many=True, also=(400, 404)))
    def history(entity_ref: str, days: Annotated[int, Query(ge=1, le=366)] = 30) -> Response:
        """The score at the end of each of the last days (UTC), and now."""
        return answer(told(store.scores.history(checked(entity_ref), now_us(), days=days)))

    @routes.get("/api/v1/entities/{entity_ref:path}/objects", **gives(Touched, many=True, also=(400, 404)))
    def objects(entity_ref: str, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> Response:
        """Who changed what: the objects of a service that were touched lately, each with its last change."""
        return answer(told(store.people.touched(checked(entity_ref), limit=limit)))

    @routes.get("/api/v1/entities/{entity_ref:path}", **gives(EntityView, also=(400, 404)))
    def entity(entity_ref: str) -> Response:
        """One service: who has to do with it, and which rules fire."""
        return found(store.people.entity(checked(entity_ref)), "no event of this service is stored")

    return routes


def checked(entity_ref: str) -> str:
    """The reference. Ends the request with 400 when it is none."""
    if not valid_entity_ref(entity_ref):
        raise HTTPException(400, "not an entity reference; write kind:namespace/name")
    return entity_ref


def found(view: Any, otherwise: str) -> Response:
    """What was found, or 404 in these words."""
    if view is None:
        raise HTTPException(404, otherwise)
    return answer(told(view))
