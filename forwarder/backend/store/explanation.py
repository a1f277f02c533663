"""Where one score comes from, by rule and day: exact at any moment.

Days inside the window come from the buckets by day, what is left of the day that the window's edge cuts from the
buckets by hour, and what is left of the hour that it cuts from the events themselves.
"""

import math
from typing import Any

import msgspec
import sqlalchemy as sa

from forwarder.backend.schema import events, tallies
from forwarder.backend.scoring import Band, Scoring, band
from forwarder.backend.store.events import day_name
from forwarder.backend.store.names import find, texts
from forwarder.backend.store.state import State
from forwarder.backend.store.views import DAY_US, HOUR_US, NameKind, View

Parts = dict[str, dict[int, tuple[int, float]]]  # by rule|workflow, then by day: count, decayed points


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule on one day (UTC) adds: `points` are decayed, `share` is its part of the score before it is rounded."""

    rule: str
    day: str
    count: int
    points: float
    share: float


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a score comes from: its contributions add up to `points`, and points / threshold · 100 is the score.

    by_rule, by_day: the same, summed; the largest and the latest first. expected_count: events in the window that marks
    take out. since_us: the window's edge.
    """

    entity_ref: str
    score: int
    severity: Band
    points: float
    count: int
    expected_count: int
    threshold: float
    half_life_days: float
    window_days: int
    since_us: int
    calculated_us: int
    contributions: list[Contribution]
    by_rule: list[Contribution]
    by_day: list[Contribution]


def breakdown(connection: sa.Connection, entity_ref: str, state: State, now_us: int) -> Parts:
    """Count and decayed points of what is in the window at `now_us`, by rule|workflow and day."""
    entity = find(connection, NameKind.ENTITY, entity_ref)
    if entity is None:
        return {}
    edge_us = now_us - state.window_days * DAY_US
    edge_hour = edge_us // HOUR_US
    edge_day = edge_hour // 24
    half_life_days = state.half_life_days
    by_number: dict[int, dict[int, tuple[int, float]]] = {}
    factors: dict[int, float] = {}
    on_edge = []
    days = connection.execute(_DAYS[state.active], {"a": entity, "since": edge_day})
    for way, day, count, value in days.all():
        if day == edge_day:
            on_edge.append(way)
            continue
        factor = factors.get(day)
        if factor is None:
            factor = factors[day] = 2.0 ** ((day * DAY_US - now_us) / DAY_US / half_life_days)
        of_way = by_number.get(way)
        if of_way is None:
            of_way = by_number[way] = {}
        of_way[day] = (int(count), value * factor)
    if on_edge:
        wanted = {"a": entity, "ways": on_edge, "after": edge_hour, "until": (edge_day + 1) * 24}
        for way, hour, count, value in connection.execute(_HOURS[state.active], wanted).all():
            decayed = value * 2.0 ** ((hour * HOUR_US - now_us) / DAY_US / half_life_days)
            _add(by_number.setdefault(way, {}), edge_day, int(count), decayed)
    ways = texts(connection, by_number)
    parts = {ways[way]: of_way for way, of_way in by_number.items()}
    if on_edge:
        cut = {"ref": entity_ref, "since": edge_us, "until": (edge_hour + 1) * HOUR_US}
        for rule, workflow, points, occurred_us in connection.execute(_CUT, cut).all():
            decayed = points * 2.0 ** (-(now_us - occurred_us) / DAY_US / half_life_days)
            _add(parts.setdefault(f"{rule}|{workflow}", {}), edge_day, 1, decayed)
    return parts


def _add(days: dict[int, tuple[int, float]], day: int, count: int, points: float) -> None:
    n, sum_of_points = days.get(day, (0, 0.0))
    days[day] = (n + count, sum_of_points + points)


def workflows(connection: sa.Connection, entity_ref: str, state: State, now_us: int) -> dict[str, int]:
    """How many events of a service in the window at `now_us` belong to each workflow."""
    entity = find(connection, NameKind.ENTITY, entity_ref)
    if entity is None:
        return {}
    edge_us = now_us - state.window_days * DAY_US
    edge_hour = edge_us // HOUR_US
    edge_day = edge_hour // 24
    counts = {way: int(n) for way, n in connection.execute(_WAYS, {"a": entity, "after": edge_day}).all()}
    on_edge = list(connection.execute(_WAYS_OF_DAY, {"a": entity, "day": edge_day}).scalars())
    if on_edge:
        hours = {"a": entity, "ways": on_edge, "after": edge_hour, "until": (edge_day + 1) * 24}
        for way, n in connection.execute(_WAYS_OF_HOURS, hours).all():
            counts[way] = counts.get(way, 0) + int(n)
    names_of = texts(connection, counts)
    found: dict[str, int] = {}
    for way, n in counts.items():
        workflow = names_of[way].partition("|")[2]
        found[workflow] = found.get(workflow, 0) + n
    if on_edge:
        cut = {"ref": entity_ref, "since": edge_us, "until": (edge_hour + 1) * HOUR_US}
        for workflow, n in connection.execute(_CUT_WORKFLOWS, cut).all():
            found[workflow] = found.get(workflow, 0) + n
    return found


# Made once: to build a statement takes longer than to run it.
_A: Any = sa.bindparam("a")
_AFTER: Any = sa.bindparam("after")
_UNTIL: Any = sa.bindparam("until")
_ALL_WAYS = tallies.c.b.in_(sa.bindparam("ways", expanding=True))
_N = sa.func.sum(tallies.c["count"]).label("n")
_SUMS = [
    sa.select(tallies.c.b, tallies.c.slot, _N, sa.func.sum(weight)).group_by(tallies.c.b, tallies.c.slot)
    for weight in (tallies.c.weight_0, tallies.c.weight_1)
]
_OF_DAYS = (tallies.c.view == int(View.ENTITY_WAY_DAYS), tallies.c.a == _A)
_OF_HOURS = (
    tallies.c.view == int(View.ENTITY_WAY_HOURS),
    tallies.c.a == _A,
    _ALL_WAYS,
    tallies.c.slot > _AFTER,
    tallies.c.slot < _UNTIL,
)
_DAYS = [sums.where(*_OF_DAYS, tallies.c.slot >= sa.bindparam("since")) for sums in _SUMS]
_HOURS = [sums.where(*_OF_HOURS) for sums in _SUMS]
_WAYS = sa.select(tallies.c.b, _N).where(*_OF_DAYS, tallies.c.slot > _AFTER).group_by(tallies.c.b)
_WAYS_OF_DAY = sa.select(tallies.c.b).where(*_OF_DAYS, tallies.c.slot == sa.bindparam("day")).distinct()
_WAYS_OF_HOURS = sa.select(tallies.c.b, _N).where(*_OF_HOURS).group_by(tallies.c.b)
_IN_CUT = (
    events.c.entity_ref == sa.bindparam("ref"),
    events.c.occurred_us >= sa.bindparam("since"),
    events.c.occurred_us < _UNTIL,
    events.c.test.is_(sa.false()),
    events.c.mark == 0,
)
_CUT = sa.select(events.c.type, events.c.workflow, events.c.points, events.c.occurred_us).where(*_IN_CUT)
_CUT_WORKFLOWS = sa.select(events.c.workflow, sa.func.count()).where(*_IN_CUT).group_by(events.c.workflow)


def expected(connection: sa.Connection, entity_ref: str, since_us: int) -> int:
    """How many events marks take out of the score, since the day of `since_us`."""
    entity = find(connection, NameKind.ENTITY, entity_ref)
    if entity is None:
        return 0
    query = sa.select(sa.func.sum(tallies.c["count"])).where(
        tallies.c.view == int(View.EXPECTED_DAYS), tallies.c.a == entity, tallies.c.slot >= since_us // DAY_US
    )
    return int(connection.execute(query).scalar() or 0)


def explanation(entity_ref: str, parts: Parts, scoring: Scoring, now_us: int, *, expected_count: int) -> Explanation:
    """`parts` in words that a page can show."""
    by_day: dict[int, dict[str, tuple[int, float]]] = {}
    for way, days in parts.items():
        rule = way.partition("|")[0]
        for day, part in days.items():
            of_day = by_day.get(day)
            if of_day is None:
                of_day = by_day[day] = {}
            other = of_day.get(rule)
            of_day[rule] = part if other is None else (part[0] + other[0], part[1] + other[1])

    def contribution(rule: str, day: str, count: int, points: float) -> Contribution:
        return Contribution(rule=rule, day=day, count=count, points=points, share=points / scoring.threshold * 100)

    contributions: list[Contribution] = []
    of_days: list[Contribution] = []
    rules: dict[str, tuple[int, float]] = {}
    for day in sorted(by_day, reverse=True):
        name, of_day = day_name(day), by_day[day]
        for rule in sorted(of_day):
            count, points = of_day[rule]
            contributions.append(contribution(rule, name, count, points))
            n, sum_of_points = rules.get(rule, (0, 0.0))
            rules[rule] = (n + count, sum_of_points + points)
        of_days.append(
            contribution(
                "", name, sum(part[0] for part in of_day.values()), math.fsum(part[1] for part in of_day.values())
            )
        )
    points = math.fsum(part.points for part in of_days)
    score = scoring.score(points)
    return Explanation(
        entity_ref=entity_ref,
        score=score,
        severity=band(score),
        points=points,
        count=sum(part.count for part in of_days),
        expected_count=expected_count,
        threshold=scoring.threshold,
        half_life_days=scoring.half_life_days,
        window_days=scoring.window_days,
        since_us=scoring.since_us(now_us),
        calculated_us=now_us,
        contributions=contributions,
        by_rule=sorted(
            (contribution(rule, "", *part) for rule, part in rules.items()), key=lambda part: (-part.points, part.rule)
        ),
        by_day=of_days,
    )
