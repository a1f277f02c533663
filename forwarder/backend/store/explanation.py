"""Where one score comes from, by rule and day: exact at any moment.

Days inside the window come from the buckets by day, what is left of the day that the window's edge cuts from the
buckets by hour, and what is left of the hour that it cuts from the events themselves.
"""

import msgspec
import sqlalchemy as sa

from forwarder.backend.schema import events, tallies
from forwarder.backend.scoring import Band, Scoring, band
from forwarder.backend.store.events import day_name
from forwarder.backend.store.names import find, texts
from forwarder.backend.store.rolling import weight_column
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
    weight = weight_column(state.active)
    found: dict[tuple[int, int], tuple[int, float]] = {}

    def add(way: int, slot: int, hours: int, count: int, value: float) -> None:
        age_days = now_us / DAY_US - slot * hours / 24
        n, points = found.get((way, slot * hours // 24), (0, 0.0))
        found[way, slot * hours // 24] = (n + count, points + value * 2.0 ** (-age_days / half_life_days))

    sums = sa.select(tallies.c.b, tallies.c.slot, sa.func.sum(tallies.c["count"]), sa.func.sum(weight)).group_by(
        tallies.c.b, tallies.c.slot
    )
    query = sums.where(tallies.c.view == int(View.ENTITY_WAY_DAYS), tallies.c.a == entity, tallies.c.slot >= edge_day)
    on_edge = []
    for way, day, count, value in connection.execute(query):
        if day > edge_day:
            add(way, day, 24, int(count), value)
        else:
            on_edge.append(way)
    if on_edge:
        query = sums.where(
            tallies.c.view == int(View.ENTITY_WAY_HOURS),
            tallies.c.a == entity,
            tallies.c.b.in_(on_edge),
            tallies.c.slot > edge_hour,
            tallies.c.slot < (edge_day + 1) * 24,
        )
        for way, hour, count, value in connection.execute(query):
            add(way, hour, 1, int(count), value)
    ways = texts(connection, {way for way, _ in found})
    parts = {(ways[way], day): part for (way, day), part in found.items()}
    if on_edge:
        cut = sa.select(events.c.type, events.c.workflow, events.c.points, events.c.occurred_us).where(
            events.c.entity_ref == entity_ref,
            events.c.occurred_us >= edge_us,
            events.c.occurred_us < (edge_hour + 1) * HOUR_US,
            events.c.test.is_(sa.false()),
            events.c.mark == 0,
        )
        for rule, workflow, points, occurred_us in connection.execute(cut):
            key = (f"{rule}|{workflow}", edge_day)
            n, sum_of_points = parts.get(key, (0, 0.0))
            decayed = points * 2.0 ** (-(now_us - occurred_us) / DAY_US / half_life_days)
            parts[key] = (n + 1, sum_of_points + decayed)
    return parts


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
