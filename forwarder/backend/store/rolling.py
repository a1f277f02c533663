"""Keeping `scores` true as time passes: the running sum of every entity over the score's window.

Decay costs nothing: weights are as of a common moment (`frame_hour`), so all of them shrink by the same factor and their
order stays. What leaves the window is subtracted as it leaves, every few seconds (`roll`); once an hour all sums are
made anew from the buckets, so that rounding cannot pile up. `edge_us` tells a reader how far the subtraction has come.
"""

from typing import Any

import sqlalchemy as sa

from forwarder.backend.database import insert
from forwarder.backend.schema import events, names, score_days, scores, tallies
from forwarder.backend.store.state import State, change_state
from forwarder.backend.store.views import ALL, DAY_US, HOUR_US, NameKind, View

FRAME_HOURS = 24  # weights as of a moment further away could overflow with the shortest half-life
KEEP_SCORE_DAYS = 400  # a year and some weeks of history: one small row a day for each entity
MAX_BACKFILL_DAYS = 7  # ends of days that passed while the backend was down

Totals = dict[tuple[int, int], list[float]]  # (entity, cluster) -> count, weight


def roll_if_old(connection: sa.Connection, state: State, now_us: int) -> State:
    """The state, moved on first where its moment is too far from now to add to."""
    if abs(now_us // HOUR_US - state.frame_hour) <= FRAME_HOURS:
        return state
    return sum_everything(connection, state, now_us)


def roll(connection: sa.Connection, state: State, now_us: int) -> State:
    """Subtract what has left the window since the last time; once an hour make all sums anew. For a writing connection."""
    state = _end_days(connection, state, now_us)
    edge_us = now_us - state.window_days * DAY_US
    if state.frame_hour != now_us // HOUR_US or edge_us < state.edge_us:
        return sum_everything(connection, state, now_us)
    gone = of_events(connection, state, state.edge_us, edge_us, state.frame_hour)
    if gone:
        change = [{"e": key[0], "c": key[1], "n": n, "w": weight} for key, (n, weight) in sorted(gone.items())]
        connection.execute(_SUBTRACT, change)
        connection.execute(sa.delete(scores).where(scores.c["count"] <= 0))
    return change_state(connection, state, edge_us=edge_us)


def roll_is_due(connection: sa.Connection, state: State, now_us: int) -> bool:
    """Whether `roll` would change anything: an idle backend leaves the disk alone."""
    edge_us = now_us - state.window_days * DAY_US
    if state.frame_hour != now_us // HOUR_US or state.last_day < now_us // DAY_US - 1 or edge_us < state.edge_us:
        return True
    left = sa.select(events.c.seq).where(events.c.occurred_us >= state.edge_us, events.c.occurred_us < edge_us).limit(1)
    return connection.execute(left).scalar() is not None


def sum_everything(connection: sa.Connection, state: State, now_us: int, *, window_days: int | None = None) -> State:
    """All of `scores` anew, as of now."""
    window = state.window_days if window_days is None else window_days
    state = change_state(
        connection, state, window_days=window, edge_us=now_us - window * DAY_US, frame_hour=now_us // HOUR_US
    )
    last = {
        (row.entity, row.cluster): row.last_us
        for row in connection.execute(sa.select(scores.c.entity, scores.c.cluster, scores.c.last_us))
    }
    connection.execute(sa.delete(scores))
    _store(connection, window_totals(connection, state), last)
    return state


def sum_anew(connection: sa.Connection, state: State, entities: set[int], now_us: int) -> None:
    """The scores of `entities` anew: they lost events."""
    for entity in sorted(entities):
        connection.execute(sa.delete(scores).where(scores.c.entity == entity))
        _store(connection, window_totals(connection, state, entity), {})


def window_totals(connection: sa.Connection, state: State, entity: int | None = None) -> Totals:
    """Count and weight in the window from `state.edge_us` on, of one entity or of all, for each cluster and for ALL."""
    edge_hour = state.edge_us // HOUR_US
    edge_day = edge_hour // 24
    rest_of_hour_us = (edge_hour + 1) * HOUR_US
    totals = of_events(connection, state, state.edge_us, rest_of_hour_us, state.frame_hour, entity)
    half_life_days, weight = state.half_life_days, weight_column(state.active)
    days = sa.select(tallies.c.a, tallies.c.slot, tallies.c.cluster, tallies.c["count"], weight).where(
        tallies.c.view == int(View.ENTITY_DAYS), tallies.c.b == 0, tallies.c.slot > edge_day
    )
    hours = sa.select(tallies.c.a, tallies.c.slot, tallies.c.cluster, tallies.c["count"], weight).where(
        tallies.c.view == int(View.ENTITY_HOURS),
        tallies.c.b == 0,
        tallies.c.slot > edge_hour,
        tallies.c.slot < (edge_day + 1) * 24,
    )
    if entity is None:
        living = sa.select(names.c.id).where(names.c.kind == int(NameKind.ENTITY), names.c["count"] > 0)
        of = living.subquery("living")
        hours = hours.select_from(of.join(tallies, tallies.c.a == of.c.id))
    else:
        days, hours = days.where(tallies.c.a == entity), hours.where(tallies.c.a == entity)
    for query, grain in ((days, 24), (hours, 1)):
        factors: dict[int, float] = {}
        for a, slot, cluster, count, value in connection.execute(query):
            factor = factors.get(slot)
            if factor is None:
                factor = factors[slot] = 2.0 ** ((slot * grain - state.frame_hour) / 24 / half_life_days)
            for key in ((a, ALL), (a, cluster)):
                _add(totals, key, count, value * factor)
    return totals


def weight_column(active: int) -> Any:
    """The weight that belongs to half-life 0 or 1."""
    return tallies.c.weight_1 if active else tallies.c.weight_0


def end_of_day_points(connection: sa.Connection, state: State, day: int) -> dict[int, tuple[float, int]]:
    """By entity: decayed points and count in the window when `day` ended."""
    weight = weight_column(state.active)
    query = sa.select(tallies.c.a, tallies.c.slot, sa.func.sum(weight), sa.func.sum(tallies.c["count"])).where(
        tallies.c.view == int(View.ENTITY_DAYS),
        tallies.c.b == 0,
        tallies.c.slot > day - state.window_days,
        tallies.c.slot <= day,
    )
    found: dict[int, tuple[float, int]] = {}
    for entity, slot, value, count in connection.execute(query.group_by(tallies.c.a, tallies.c.slot)):
        points, n = found.get(entity, (0.0, 0))
        found[entity] = (points + value * 2.0 ** ((slot - day - 1) / state.half_life_days), n + int(count))
    return found


def _end_days(connection: sa.Connection, state: State, now_us: int) -> State:
    """Write down the scores at the end of every day that has ended since the last time."""
    yesterday = now_us // DAY_US - 1
    if state.last_day >= yesterday:
        return state
    for day in range(max(state.last_day + 1, yesterday - MAX_BACKFILL_DAYS + 1), yesterday + 1):
        found = end_of_day_points(connection, state, day)
        rows = [{"entity": entity, "day": day, "points": p, "count": n} for entity, (p, n) in sorted(found.items())]
        if rows:
            connection.execute(insert(connection, score_days).on_conflict_do_nothing(), rows)
    connection.execute(sa.delete(score_days).where(score_days.c.day < yesterday - KEEP_SCORE_DAYS))
    return change_state(connection, state, last_day=yesterday)


def of_events(
    connection: sa.Connection, state: State, since_us: int, until_us: int, frame_hour: int, entity: int | None = None
) -> Totals:
    """The same as window_totals, straight from the events of a short stretch of time."""
    query = _STRETCH if entity is None else _STRETCH_OF_ENTITY
    totals: Totals = {}
    rows = connection.execute(query, {"since": since_us, "until": until_us, "e": entity}).all()
    clusters = _clusters(connection, {row.cluster for row in rows})
    for found, cluster, points, occurred_us in rows:
        weight = points * 2.0 ** ((occurred_us - frame_hour * HOUR_US) / DAY_US / state.half_life_days)
        for key in ((found, ALL), (found, clusters[cluster])):
            _add(totals, key, 1, weight)
    return totals


_OF_STRETCH = (
    names.c.kind == int(NameKind.ENTITY),
    events.c.occurred_us >= sa.bindparam("since"),
    events.c.occurred_us < sa.bindparam("until"),
    events.c.test.is_(sa.false()),
    events.c.mark == 0,
)
_COLUMNS = (names.c.id, events.c.cluster, events.c.points, events.c.occurred_us)
# Without the concatenation SQLite would look for events of this stretch entity by entity: thousands that have none.
_STRETCH = sa.select(*_COLUMNS).where(names.c.text == events.c.entity_ref.concat(""), *_OF_STRETCH)
_STRETCH_OF_ENTITY = sa.select(*_COLUMNS).where(
    names.c.text == events.c.entity_ref, names.c.id == sa.bindparam("e"), *_OF_STRETCH
)


def _clusters(connection: sa.Connection, wanted: set[str]) -> dict[str, int]:
    if not wanted:
        return {}
    query = sa.select(names.c.text, names.c.id).where(names.c.kind == int(NameKind.CLUSTER), names.c.text.in_(wanted))
    return {row[0]: row[1] for row in connection.execute(query)}


def _add(totals: Totals, key: tuple[int, int], count: int, weight: float) -> None:
    total = totals.get(key)
    if total is None:
        totals[key] = [count, weight]
    else:
        total[0] += count
        total[1] += weight


def _store(connection: sa.Connection, totals: Totals, last: dict[tuple[int, int], int]) -> None:
    rows = [
        {
            "entity": entity,
            "cluster": cluster,
            "count": int(count),
            "weight": weight,
            "last_us": last.get((entity, cluster)) or _latest_us(connection, entity, cluster),
        }
        for (entity, cluster), (count, weight) in sorted(totals.items())
    ]
    if rows:
        connection.execute(sa.insert(scores), rows)


def _latest_us(connection: sa.Connection, entity: int, cluster: int) -> int:
    ref = sa.select(names.c.text).where(names.c.id == entity).scalar_subquery()
    query = sa.select(events.c.occurred_us).where(
        events.c.entity_ref == ref, events.c.test.is_(sa.false()), events.c.mark == 0
    )
    if cluster != ALL:
        query = query.where(events.c.cluster == sa.select(names.c.text).where(names.c.id == cluster).scalar_subquery())
    return int(connection.execute(query.order_by(events.c.occurred_us.desc()).limit(1)).scalar() or 0)


_less = sa.bindparam("w", type_=sa.Double)
_SUBTRACT = (
    sa.update(scores)
    .where(scores.c.entity == sa.bindparam("e"), scores.c.cluster == sa.bindparam("c"))
    .values(
        {
            "count": scores.c["count"] - sa.bindparam("n", type_=sa.BigInteger),
            "weight": sa.case((scores.c.weight > _less, scores.c.weight - _less), else_=0.0),
        }
    )
)
