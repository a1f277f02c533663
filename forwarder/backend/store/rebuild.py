"""Making buckets anew: all of them from all events, or their weights for a new half-life while the backend runs.

A new half-life is worked into the weight that is not in use, service by service and day by day, each step in a
transaction of its own. Writers keep both weights, so a step only has to set what it finds: whatever stood there before
is gone, and what comes later is added to what is true. In the transaction of the last step the two weights change
roles. Until then scores are told with the old half-life.
"""

import gc
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from forwarder.backend.database import CACHE_KIB, Database
from forwarder.backend.schema import events, names, pairs, scores, tallies
from forwarder.backend.store.names import MAX_TEXTS_IN_QUERY, Names
from forwarder.backend.store.rolling import sum_everything
from forwarder.backend.store.rows import COUNTED_COLUMNS, counted, team
from forwarder.backend.store.state import State, change_state, read_state
from forwarder.backend.store.views import DAY_US, HOUR_US, NameKind, Sums, View

log = logging.getLogger(__name__)

BUILD_CACHE_KIB = 1 << 20  # while all sums are made: a page that is written twice goes through the log twice
REBUILD_STEP_EVENTS = 5000  # writers wait for about a fifth of a second
FIRST_DAY = -1_000_000  # before the year 1
BUILD_STEP_EVENTS = 50_000  # summed in memory before they are written: about 100 MB of small rows


def build(database: Database, known: Names) -> None:
    """Every sum anew from the events, in one transaction; nothing is done where they are built already."""
    with database.reading() as connection:
        if read_state(connection).built:
            return
    with database.writing() as connection:
        state = read_state(connection)
        if not state.built:
            last_us = connection.execute(sa.select(sa.func.max(events.c.occurred_us))).scalar()
            if database.sqlite:
                connection.exec_driver_sql(f"PRAGMA cache_size=-{BUILD_CACHE_KIB}")
            build_all(connection, known, state, int(last_us or 0))
            if database.sqlite:
                connection.exec_driver_sql(f"PRAGMA cache_size=-{CACHE_KIB}")


def build_all(connection: sa.Connection, known: Names, state: State, now_us: int) -> None:
    """The same, whatever they say of themselves."""
    collecting = gc.isenabled()
    gc.disable()  # millions of small rows, none in a cycle: looking for some would take half of the time
    try:
        _build_all(connection, known, state, now_us)
    finally:
        if collecting:
            gc.enable()


def _build_all(connection: sa.Connection, known: Names, state: State, now_us: int) -> None:
    for table in (tallies, pairs, scores):
        connection.execute(sa.delete(table))
    connection.execute(sa.update(names).values({"count": 0}))
    state = state._replace(edge_us=1 << 62)  # the scores are made in the end, from the buckets
    done = 0
    for rows in _in_parts(connection):
        part = [counted(row) for row in rows if not row["test"]]
        ids = known.resolve(connection, part)
        sums = Sums(state.frame, ids)
        for event in part:
            sums.add(event)
        sums.write(connection)
        teams = {
            ids[NameKind.ENTITY, row["entity_ref"]]: name for row in rows if (name := team(row)) and not row["test"]
        }
        for entity, name in sorted(teams.items()):
            connection.execute(sa.update(names).where(names.c.id == entity).values(team=name))
        done += len(rows)
        log.info("sums made of %d events", done)
    state = sum_everything(connection, state, now_us)
    change_state(connection, state, built=True)


def aim_at(connection: sa.Connection, state: State, half_life_days: float, now_us: int) -> None:
    """Begin to change the half-life; where nothing is stored it is changed at once."""
    first = None if half_life_days == state.half_life_days else _next_entity(connection, 0)
    place = {"rebuilding_entity": first, "rebuilding_day": FIRST_DAY}
    state = change_state(connection, state, **place, **_other(state, half_life_days))
    if first is None and half_life_days != state.half_life_days:
        _flip(connection, state, now_us)


def step(database: Database, now_us: int) -> bool:
    """Work about REBUILD_STEP_EVENTS events into the new weight; False when there is nothing left to do."""
    with database.reading() as connection:
        if read_state(connection).rebuilding_entity is None:
            return False
    with database.writing() as connection:
        state = read_state(connection)
        entity, day = state.rebuilding_entity, state.rebuilding_day
        left = REBUILD_STEP_EVENTS
        while entity is not None and left > 0:
            done, following = _work_in(connection, state, entity, day, left)
            left -= max(done, 1)
            if following is None:
                entity, day = _next_entity(connection, entity), FIRST_DAY
            else:
                day = following
        if state.rebuilding_entity is not None and entity is None:
            _flip(connection, state, now_us)
        elif entity is not None:
            change_state(connection, state, rebuilding_entity=entity, rebuilding_day=day)
        return entity is not None


def _flip(connection: sa.Connection, state: State, now_us: int) -> None:
    half_life_days = state.other_half_life_days
    state = change_state(connection, state, rebuilding_entity=None, active=1 - state.active)
    # Nothing is told by the other weight now; with the same half-life writers need not reckon twice.
    state = change_state(connection, state, **_other(state, half_life_days))
    sum_everything(connection, state, now_us)


def _other(state: State, half_life_days: float) -> dict[str, float]:
    return {"half_life_0" if state.active else "half_life_1": half_life_days}


def _next_entity(connection: sa.Connection, after: int) -> int | None:
    query = sa.select(sa.func.min(names.c.id)).where(names.c.kind == int(NameKind.ENTITY), names.c.id > after)
    return connection.execute(query).scalar()


def _work_in(connection: sa.Connection, state: State, entity: int, day: int, limit: int) -> tuple[int, int | None]:
    """Set the other weight of one entity's rows from `day` on, whole days, about `limit` events: (how many, next day)."""
    of = sa.select(names.c.text).where(names.c.id == entity).scalar_subquery()
    query = (
        sa.select(events.c.type, events.c.workflow, events.c.cluster, events.c.points, events.c.occurred_us)
        .where(
            events.c.entity_ref == of,
            events.c.occurred_us >= day * DAY_US,
            events.c.test.is_(sa.false()),
            events.c.mark == 0,
        )
        .order_by(events.c.occurred_us)
    )
    rows = connection.execute(query.limit(limit + 1)).all()
    following = None
    if len(rows) > limit:
        following = rows[-1].occurred_us // DAY_US
        if following == rows[0].occurred_us // DAY_US:  # one long day
            following += 1
            rows = connection.execute(query.where(events.c.occurred_us < following * DAY_US)).all()
        else:
            rows = [row for row in rows if row.occurred_us < following * DAY_US]
    _set_weights(connection, state, entity, rows)
    return len(rows), following


def _set_weights(connection: sa.Connection, state: State, entity: int, rows: Sequence[Any]) -> None:
    half_life_days = state.other_half_life_days
    ways = _ids(connection, NameKind.WAY, {f"{row.type}|{row.workflow}" for row in rows})
    clusters = _ids(connection, NameKind.CLUSTER, {row.cluster for row in rows})
    weights: dict[tuple[View, int, int, int], float] = defaultdict(float)
    for row in rows:
        way, cluster = ways[f"{row.type}|{row.workflow}"], clusters[row.cluster]
        for grain_us, views in _GRAINS:
            slot, inside_us = divmod(row.occurred_us, grain_us)
            weight = row.points * 2.0 ** (inside_us / DAY_US / half_life_days)
            weights[views[0], 0, slot, cluster] += weight
            weights[views[1], way, slot, cluster] += weight
    if weights:
        changes = [
            {"v": int(view), "x": entity, "y": b, "s": slot, "k": cluster, "w": weight}
            for (view, b, slot, cluster), weight in sorted(weights.items())
        ]
        connection.execute(_SET_WEIGHT[1 - state.active], changes)


_GRAINS = (
    (HOUR_US, (View.ENTITY_HOURS, View.ENTITY_WAY_HOURS)),
    (DAY_US, (View.ENTITY_DAYS, View.ENTITY_WAY_DAYS)),
)
_SET_WEIGHT = [
    sa.update(tallies)
    .where(
        tallies.c.view == sa.bindparam("v"),
        tallies.c.a == sa.bindparam("x"),
        tallies.c.b == sa.bindparam("y"),
        tallies.c.slot == sa.bindparam("s"),
        tallies.c.cluster == sa.bindparam("k"),
    )
    .values({name: sa.bindparam("w", type_=sa.Double)})
    for name in ("weight_0", "weight_1")
]


def _ids(connection: sa.Connection, kind: NameKind, wanted: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    texts = sorted(wanted)
    for start in range(0, len(texts), MAX_TEXTS_IN_QUERY):
        query = sa.select(names.c.text, names.c.id).where(
            names.c.kind == int(kind), names.c.text.in_(texts[start : start + MAX_TEXTS_IN_QUERY])
        )
        found |= {row[0]: row[1] for row in connection.execute(query)}
    return found


def _in_parts(connection: sa.Connection) -> Iterator[list[Any]]:
    last = 0
    while True:
        query = sa.select(*COUNTED_COLUMNS).where(events.c.seq > last).order_by(events.c.seq).limit(BUILD_STEP_EVENTS)
        rows = [row._mapping for row in connection.execute(query)]
        if not rows:
            return
        yield rows
        last = rows[-1]["seq"]
