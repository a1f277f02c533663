"""Where one score comes from, by rule and day: exact at any moment.

Days inside the window come from the buckets by day, what is left of the day that the window's edge cuts from the
buckets by hour, and what is left of the hour that it cuts from the events themselves.
"""

from typing import Any

import msgspec
import sqlalchemy as sa

from forwarder.backend.schema import events, tallies
from forwarder.backend.scoring import Band, Scoring, band
from forwarder.backend.store.events import day_name
from forwarder.backend.store.names import find, texts
from forwarder.backend.store.state import State
from forwarder.backend.store.views import DAY_US, HOUR_US, NameKind, View

Parts = dict[tuple[str, int], tuple[int, float]]


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
    """By (rule|workflow, day): count and decayed points of what is in the window at `now_us`."""
    entity = find(connection, NameKind.ENTITY, entity_ref)
    if entity is None:
        return {}
    edge_us = now_us - state.window_days * DAY_US
    edge_hour = edge_us // HOUR_US
    edge_day = edge_hour // 24
    half_life_days = state.half_life_days
    found: dict[tuple[int, int], tuple[int, float]] = {}

    def add(way: int, slot: int, hours: int, count: int, value: float) -> None:
        age_days = now_us / DAY_US - slot * hours / 24
        n, points = found.get((way, slot * hours // 24), (0, 0.0))
        found[way, slot * hours // 24] = (n + count, points + value * 2.0 ** (-age_days / half_life_days))

    weighted = "weight_1" if state.active else "weight_0"
    on_edge = []
    for row in connection.execute(_DAYS, {"a": entity, "since": edge_day}).all():
        if row.slot > edge_day:
            add(row.b, row.slot, 24, int(row.n), getattr(row, weighted))
        else:
            on_edge.append(row.b)
    if on_edge:
        hours = {"a": entity, "ways": on_edge, "after": edge_hour, "until": (edge_day + 1) * 24}
        for row in connection.execute(_HOURS, hours).all():
            add(row.b, row.slot, 1, int(row.n), getattr(row, weighted))
    ways = texts(connection, {way for way, _ in found})
    parts = {(ways[way], day): part for (way, day), part in found.items()}
    if on_edge:
        cut = {"ref": entity_ref, "since": edge_us, "until": (edge_hour + 1) * HOUR_US}
        for rule, workflow, points, occurred_us in connection.execute(_CUT, cut).all():
            key = (f"{rule}|{workflow}", edge_day)
            n, sum_of_points = parts.get(key, (0, 0.0))
            decayed = points * 2.0 ** (-(now_us - occurred_us) / DAY_US / half_life_days)
            parts[key] = (n + 1, sum_of_points + decayed)
    return parts


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
_SUMS = sa.select(
    tallies.c.b,
    tallies.c.slot,
    _N,
    sa.func.sum(tallies.c.weight_0).label("weight_0"),
    sa.func.sum(tallies.c.weight_1).label("weight_1"),
).group_by(tallies.c.b, tallies.c.slot)
_OF_DAYS = (tallies.c.view == int(View.ENTITY_WAY_DAYS), tallies.c.a == _A)
_OF_HOURS = (
    tallies.c.view == int(View.ENTITY_WAY_HOURS),
    tallies.c.a == _A,
    _ALL_WAYS,
    tallies.c.slot > _AFTER,
    tallies.c.slot < _UNTIL,
)
_DAYS = _SUMS.where(*_OF_DAYS, tallies.c.slot >= sa.bindparam("since"))
_HOURS = _SUMS.where(*_OF_HOURS)
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
    by: dict[tuple[str, int], list[float]] = {}
    for (way, day), (count, points) in parts.items():
        sums = by.setdefault((way.partition("|")[0], day), [0, 0.0])
        sums[0] += count
        sums[1] += points

    def contribution(rule: str, day: int | None, sums: list[list[float]]) -> Contribution:
        points = sum(part[1] for part in sums)
        return Contribution(
            rule=rule,
            day="" if day is None else day_name(day),
            count=int(sum(part[0] for part in sums)),
            points=points,
            share=points / scoring.threshold * 100,
        )

    points = sum(part[1] for part in by.values())
    score = scoring.score(points)
    days = sorted({day for _, day in by}, reverse=True)
    rules = [
        contribution(rule, None, [part for (other, _), part in by.items() if other == rule])
        for rule in {rule for rule, _ in by}
    ]
    return Explanation(
        entity_ref=entity_ref,
        score=score,
        severity=band(score),
        points=points,
        count=int(sum(part[0] for part in by.values())),
        expected_count=expected_count,
        threshold=scoring.threshold,
        half_life_days=scoring.half_life_days,
        window_days=scoring.window_days,
        since_us=scoring.since_us(now_us),
        calculated_us=now_us,
        contributions=[
            contribution(rule, day, [part])
            for (rule, day), part in sorted(by.items(), key=lambda item: (-item[0][1], item[0][0]))
        ],
        by_rule=sorted(rules, key=lambda part: (-part.points, part.rule)),
        by_day=[contribution("", day, [part for (_, other), part in by.items() if other == day]) for day in days],
    )
