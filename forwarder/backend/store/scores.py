"""Reading scores: the list of services, one service with its explanation, and how its score went.

All of it is exact at the moment that is asked for: days and hours inside the window come from the buckets, the hour
that the window's edge cuts from the events themselves.
"""

import sys
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import names, pairs, score_days, scores, tallies
from forwarder.backend.scoring import BANDS, Band, FrictionScore, Scoring, band, friction_score
from forwarder.backend.store.events import day_name
from forwarder.backend.store.explanation import Explanation, breakdown, expected, explanation, workflows
from forwarder.backend.store.names import find
from forwarder.backend.store.rolling import Totals, of_events
from forwarder.backend.store.settings import ScoreSettings
from forwarder.backend.store.state import State, read_state
from forwarder.backend.store.views import ALL, DAY_US, HOUR_US, NameKind, Relation, View

TREND_DAYS = 14
MAX_LISTED_ENTITIES = 1000

Sort = Literal["score", "events", "latest", "name"]


class ScoreFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which services. "" and None: any. severity: a band. text: a part of the entity's reference, in any case."""

    cluster: str | None = None
    namespace: str = ""
    team: str = ""
    severity: Band | Literal[""] = ""
    text: str = ""


class EntityScore(msgspec.Struct, frozen=True, kw_only=True):
    """One line in the list of services. points: decayed. count: events in the window. last_event_us: Unix microseconds.

    top_rule: the one with most stored events. trend: events on each of the last TREND_DAYS days, today last (UTC).
    """

    entity_ref: str
    score: int
    severity: Band
    points: float
    count: int
    top_rule: str
    last_event_us: int
    namespace: str = ""
    team: str = ""
    trend: tuple[int, ...] = ()


class ScorePage(msgspec.Struct, frozen=True, kw_only=True):
    """entities: those from `offset` on. total: how many fit the filter."""

    entities: list[EntityScore]
    total: int
    offset: int


class ScorePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The score when a day ended; of today: now."""

    day: str
    score: int
    points: float
    count: int


class ScoreCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows of one service: the score explained, in Healert's words, and how it went."""

    explanation: Explanation
    friction: FrictionScore
    history: list[ScorePoint]


class Scores:
    """The scores of one store. now_us: the moment at which they are told."""

    def __init__(self, database: Database, settings: ScoreSettings) -> None:
        self._database = database
        self._settings = settings

    def page(
        self, where: ScoreFilter, now_us: int, *, offset: int = 0, limit: int = 50, sort: Sort = "score"
    ) -> ScorePage:
        """The services that fit, worst first."""
        with self._database.reading() as connection:
            state = read_state(connection)
            scoring = self._settings.scoring(connection, state)
            cluster = ALL if where.cluster is None else find(connection, NameKind.CLUSTER, where.cluster)
            if cluster is None:
                return ScorePage(entities=[], total=0, offset=offset)
            factor = _factor(state, now_us)
            conditions = _conditions(where, scoring, factor)
            of_names = where.namespace or where.team or where.text
            counted = sa.select(sa.func.count()).select_from(scores)
            if of_names:
                counted = sa.select(sa.func.count()).select_from(scores.join(names, names.c.id == scores.c.entity))
            total = connection.execute(counted.where(scores.c.cluster == cluster, *conditions)).scalar_one()
            query = (
                sa.select(scores, names.c.text, names.c.space, names.c.team, _TOP_RULE)
                .join_from(scores, names, names.c.id == scores.c.entity)
                .where(scores.c.cluster == cluster, *conditions)
                .order_by(*_ORDER[sort])
                .offset(offset)
                .limit(min(limit, MAX_LISTED_ENTITIES))
            )
            rows = connection.execute(query).all()
            gone = correction(connection, state, now_us)
            found = {row.entity for row in rows}
            trends = _trends(connection, found, cluster, now_us)
        entities = []
        for row in rows:
            less_count, less_weight = gone.get((row.entity, cluster), (0, 0.0))
            points = max(0.0, row.weight - less_weight) * factor
            score = scoring.score(points)
            entities.append(
                EntityScore(
                    entity_ref=row.text,
                    score=score,
                    severity=band(score),
                    points=points,
                    count=int(row[2] - less_count),
                    top_rule=row.top_rule or "",
                    last_event_us=row.last_us,
                    namespace=row.space,
                    team=row.team,
                    trend=trends.get(row.entity, (0,) * TREND_DAYS),
                )
            )
        return ScorePage(entities=[entity for entity in entities if entity.count > 0], total=total, offset=offset)

    def bands(self, now_us: int, *, cluster: str | None = None) -> dict[Band, int]:
        """How many services are in each band."""
        with self._database.reading() as connection:
            state = read_state(connection)
            scoring = self._settings.scoring(connection, state)
            number = ALL if cluster is None else find(connection, NameKind.CLUSTER, cluster)
            factor = _factor(state, now_us)
            counts: dict[Band, int] = {}
            for _, word in BANDS:
                query = sa.select(sa.func.count()).where(
                    scores.c.cluster == number, *_conditions(ScoreFilter(severity=word), scoring, factor)
                )
                counts[word] = connection.execute(query).scalar_one()
        return counts

    def friction(self, entity_ref: str, now_us: int) -> FrictionScore:
        """The score in Healert's words; of an unknown service 0."""
        with self._database.reading() as connection:
            state = read_state(connection)
            scoring = self._settings.scoring(connection, state)
            points, count = _now(connection, entity_ref, state, now_us)
            counts = workflows(connection, entity_ref, state, now_us) if count else {}
        return friction_score(points, count, counts, scoring)

    def explain(self, entity_ref: str, now_us: int) -> Explanation:
        """The score and what it is made of."""
        with self._database.reading() as connection:
            return self._explain(connection, read_state(connection), entity_ref, now_us)[0]

    def history(self, entity_ref: str, now_us: int, *, days: int = 30) -> list[ScorePoint]:
        """The score at the end of each of the last days, and now; a day before the first event is left out.

        A day that was not written down when it ended (the backend was not there yet) is reckoned from what is stored.
        """
        with self._database.reading() as connection:
            state = read_state(connection)
            now = _now(connection, entity_ref, state, now_us)
            return self._history(connection, state, entity_ref, now_us, days, now)

    def card(self, entity_ref: str, now_us: int, *, days: int = 30) -> ScoreCard:
        """All three for a page, cheaper than one by one."""
        with self._database.reading() as connection:
            state = read_state(connection)
            told, counts, scoring = self._explain(connection, state, entity_ref, now_us)
            now = (told.points, told.count)
            return ScoreCard(
                explanation=told,
                friction=friction_score(*now, counts, scoring),
                history=self._history(connection, state, entity_ref, now_us, days, now),
            )

    # --- private -----------------------------------------------------------------------------------------------------

    def _explain(
        self, connection: sa.Connection, state: State, entity_ref: str, now_us: int
    ) -> tuple[Explanation, dict[str, int], Scoring]:
        """The explanation, how many events each workflow has in it, and what it was told with."""
        scoring = self._settings.scoring(connection, state)
        parts = breakdown(connection, entity_ref, state, now_us)
        hidden = expected(connection, entity_ref, scoring.since_us(now_us))
        counts: dict[str, int] = {}
        for way, days in parts.items():
            workflow = way.partition("|")[2]
            counts[workflow] = counts.get(workflow, 0) + sum(count for count, _ in days.values())
        return explanation(entity_ref, parts, scoring, now_us, expected_count=hidden), counts, scoring

    def _history(
        self,
        connection: sa.Connection,
        state: State,
        entity_ref: str,
        now_us: int,
        days: int,
        now: tuple[float, int],
    ) -> list[ScorePoint]:
        today = now_us // DAY_US
        entity = find(connection, NameKind.ENTITY, entity_ref)
        if entity is None:
            return []
        scoring = self._settings.scoring(connection, state)
        written = connection.execute(_ENDED_DAYS, {"e": entity, "after": today - days}).all()
        known = {row[0]: (row[2], int(row[1])) for row in written}
        wanted = {"e": entity, "after": today - days - state.window_days}
        rows = connection.execute(_SUMS_OF_DAYS[state.active], wanted).all()
        of_days = [(slot, value, int(count)) for slot, value, count in rows]
        shrunk = [2.0 ** (-age / state.half_life_days) for age in range(state.window_days + 1)]
        points: list[ScorePoint] = []
        for day in range(today - days + 1, today):
            found = known.get(day) or _at_end(of_days, day, shrunk)
            if found[1] or points:
                points.append(_point(scoring, day, *found))
        return [*points, _point(scoring, today, *now)]


def correction(connection: sa.Connection, state: State, now_us: int, entity: int | None = None) -> Totals:
    """By (entity, cluster): count and weight that `scores` holds and the window at `now_us` does not (negative: lacks)."""
    edge_us = now_us - state.window_days * DAY_US
    if edge_us >= state.edge_us:
        return of_events(connection, state, state.edge_us, edge_us, state.frame_hour, entity)
    missing = of_events(connection, state, edge_us, state.edge_us, state.frame_hour, entity)
    return {key: [-count, -weight] for key, (count, weight) in missing.items()}


_ORDER: dict[Sort, tuple[Any, ...]] = {
    "score": (scores.c.weight.desc(), scores.c.entity.desc()),
    "events": (scores.c["count"].desc(), scores.c.entity.desc()),
    "latest": (scores.c.last_us.desc(), scores.c.entity.desc()),
    "name": (names.c.text,),
}


def _conditions(where: ScoreFilter, scoring: Scoring, factor: float) -> list[Any]:
    conditions: list[Any] = []
    if where.namespace:
        conditions += [names.c.kind == int(NameKind.ENTITY), names.c.space == where.namespace]
    if where.team:
        conditions += [names.c.kind == int(NameKind.ENTITY), names.c.team == where.team]
    if where.text:
        conditions.append(names.c.text.icontains(where.text, autoescape=True))
    if where.severity:
        above = 101
        for least, word in BANDS:
            if word == where.severity:
                if least:
                    conditions.append(scores.c.weight >= _weight(scoring.points_of(least), factor))
                if above <= 100:
                    conditions.append(scores.c.weight < _weight(scoring.points_of(above), factor))
            above = least
    return conditions


def _weight(points: float, factor: float) -> float:
    """The weight in `scores` that is worth `points` now; beyond all numbers where everything has decayed to nothing."""
    return points / factor if factor > 1e-290 else sys.float_info.max


def _now(connection: sa.Connection, entity_ref: str, state: State, now_us: int) -> tuple[float, int]:
    """Decayed points and count of one service in the window at `now_us`."""
    entity = find(connection, NameKind.ENTITY, entity_ref)
    if entity is None:
        return 0.0, 0
    row = connection.execute(_SCORE_OF, {"e": entity}).one_or_none()
    count, weight = (int(row[0]), float(row[1])) if row else (0, 0.0)
    less_count, less_weight = correction(connection, state, now_us, entity).get((entity, ALL), (0, 0.0))
    return max(0.0, weight - less_weight) * _factor(state, now_us), int(count - less_count)


def _factor(state: State, now_us: int) -> float:
    """By how much every weight in `scores` has shrunk since the moment that it is as of."""
    return float(2.0 ** ((state.frame_hour * HOUR_US - now_us) / DAY_US / state.half_life_days))


def _trends(connection: sa.Connection, entities: set[int], cluster: int, now_us: int) -> dict[int, tuple[int, ...]]:
    first = now_us // DAY_US - TREND_DAYS + 1
    query, values = _TREND, {"ids": sorted(entities), "first": first, "end": first + TREND_DAYS}
    if cluster != ALL:
        query, values = _TREND_OF_CLUSTER, values | {"cluster": cluster}
    found: dict[int, list[int]] = {}
    for entity, slot, count in connection.execute(query, values).all():
        found.setdefault(entity, [0] * TREND_DAYS)[slot - first] += int(count)
    return {entity: tuple(counts) for entity, counts in found.items()}


# Made once: to build a statement takes longer than to run it.
_SCORE_OF = sa.select(scores.c["count"], scores.c.weight).where(
    scores.c.entity == sa.bindparam("e"), scores.c.cluster == ALL
)
_ENDED_DAYS = sa.select(score_days.c.day, score_days.c["count"], score_days.c.points).where(
    score_days.c.entity == sa.bindparam("e"), score_days.c.day > sa.bindparam("after")
)
_SUMS_OF_DAYS = [
    sa.select(tallies.c.slot, sa.func.sum(weight), sa.func.sum(tallies.c["count"]))
    .where(
        tallies.c.view == int(View.ENTITY_DAYS),
        tallies.c.a == sa.bindparam("e"),
        tallies.c.b == 0,
        tallies.c.slot > sa.bindparam("after"),
    )
    .group_by(tallies.c.slot)
    for weight in (tallies.c.weight_0, tallies.c.weight_1)
]
_TREND = (
    sa.select(tallies.c.a, tallies.c.slot, sa.func.sum(tallies.c["count"]))
    .where(
        tallies.c.view == int(View.ENTITY_DAYS),
        tallies.c.a.in_(sa.bindparam("ids", expanding=True)),
        tallies.c.b == 0,
        tallies.c.slot >= sa.bindparam("first"),
        tallies.c.slot < sa.bindparam("end"),
    )
    .group_by(tallies.c.a, tallies.c.slot)
)
_TREND_OF_CLUSTER = _TREND.where(tallies.c.cluster == sa.bindparam("cluster"))
_rules = names.alias("rules")
_TOP_RULE = (
    sa.select(_rules.c.text)
    .join_from(pairs, _rules, _rules.c.id == pairs.c.b)
    .where(pairs.c.relation == int(Relation.ENTITY_RULE), pairs.c.a == scores.c.entity)
    .order_by(pairs.c["count"].desc(), pairs.c.b.desc())
    .limit(1)
    .scalar_subquery()
    .label("top_rule")
)


def _at_end(rows: list[tuple[int, float, int]], day: int, shrunk: list[float]) -> tuple[float, int]:
    """Points and count when `day` ended. rows: slot, weight, count. shrunk: what a weight is worth n days later."""
    points, n, first = 0.0, 0, day - len(shrunk) + 2
    for slot, value, count in rows:
        if first <= slot <= day:
            points += value * shrunk[day + 1 - slot]
            n += count
    return points, n


def _point(scoring: Scoring, day: int, points: float, count: int) -> ScorePoint:
    return ScorePoint(day=day_name(day), score=scoring.score(points), points=points, count=count)
