"""Making buckets anew: all of them from all events, or their weights for a new half-life while the backend runs.

A new half-life is worked into the weight that is not in use, hour by hour, each hour in a transaction of its own, while
writers keep both weights. Whatever stood in that weight, a day's row stays the sum of its hours: an hour is replaced by
its true value, and the day moves by the difference. So when the last hour is done the weights are true, and in that
transaction the two change roles. Until then scores are told with the old half-life.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import events, names, pairs, scores, tallies
from forwarder.backend.store.names import Names
from forwarder.backend.store.rolling import sum_everything
from forwarder.backend.store.rows import COUNTED_COLUMNS, counted, team
from forwarder.backend.store.state import State, change_state, read_state
from forwarder.backend.store.views import DAY_US, HOUR_US, NameKind, Sums, View

log = logging.getLogger(__name__)

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
            build_all(connection, known, state, int(last_us or 0))


def build_all(connection: sa.Connection, known: Names, state: State, now_us: int) -> None:
    """The same, whatever they say of themselves."""
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
    if half_life_days == state.half_life_days:
        change_state(connection, state, rebuilding_hour=None, **_other(state, half_life_days))
        return
    first = _next_hour(connection, None)
    state = change_state(connection, state, rebuilding_hour=first, **_other(state, half_life_days))
    if first is None:
        _flip(connection, state, now_us)


def step(database: Database, now_us: int) -> bool:
    """Work one hour into the new weight; False when there is nothing left to do."""
    with database.writing() as connection:
        state = read_state(connection)
        if state.rebuilding_hour is None:
            return False
        _work_in(connection, state, state.rebuilding_hour)
        following = _next_hour(connection, state.rebuilding_hour)
        if following is None:
            _flip(connection, state, now_us)
            return False
        change_state(connection, state, rebuilding_hour=following)
        return True


def _flip(connection: sa.Connection, state: State, now_us: int) -> None:
    half_life_days = state.other_half_life_days
    state = change_state(connection, state, rebuilding_hour=None, active=1 - state.active)
    # Nothing is told by the other weight now; with the same half-life writers need not reckon twice.
    state = change_state(connection, state, **_other(state, half_life_days))
    sum_everything(connection, state, now_us)


def _other(state: State, half_life_days: float) -> dict[str, float]:
    return {"half_life_0" if state.active else "half_life_1": half_life_days}


def _next_hour(connection: sa.Connection, after: int | None) -> int | None:
    """The first hour with an event, behind `after` where it is given."""
    query = sa.select(events.c.occurred_us).order_by(events.c.occurred_us).limit(1)
    if after is not None:
        query = query.where(events.c.occurred_us >= (after + 1) * HOUR_US)
    first_us = connection.execute(query).scalar()
    return None if first_us is None else int(first_us) // HOUR_US


def _work_in(connection: sa.Connection, state: State, hour: int) -> None:
    """Replace what one hour's rows hold in the weight that is not in use, and move their days' rows by the difference."""
    weight = tallies.c.weight_0 if state.active else tallies.c.weight_1
    found = _weights(connection, hour, state.other_half_life_days)
    in_day = 2.0 ** ((hour % 24) / 24 / state.other_half_life_days)
    rows = [{"x": a, "y": b, "k": cluster, "w": value, "f": in_day} for (a, b, cluster), value in sorted(found.items())]
    if not rows:
        return
    w, f = sa.bindparam("w", type_=sa.Double), sa.bindparam("f", type_=sa.Double)
    inner = tallies.alias()
    for hours, days, has_way in (
        (View.ENTITY_WAY_HOURS, View.ENTITY_WAY_DAYS, True),
        (View.ENTITY_HOURS, View.ENTITY_DAYS, False),
    ):
        chosen = [row for row in rows if (row["y"] != 0) == has_way]
        old = (
            sa.select(inner.c.weight_0 if state.active else inner.c.weight_1)
            .where(*_key(inner, hours, hour))
            .scalar_subquery()
        )
        connection.execute(
            sa.update(tallies).where(*_key(tallies, days, hour // 24)).values({weight.name: weight + (w - old) * f}),
            chosen,
        )
        connection.execute(sa.update(tallies).where(*_key(tallies, hours, hour)).values({weight.name: w}), chosen)


def _key(table: Any, view: View, slot: int) -> list[Any]:
    return [
        table.c.view == int(view),
        table.c.a == sa.bindparam("x"),
        table.c.b == sa.bindparam("y"),
        table.c.slot == slot,
        table.c.cluster == sa.bindparam("k"),
    ]


def _weights(connection: sa.Connection, hour: int, half_life_days: float) -> dict[tuple[int, int, int], float]:
    """By (entity, way or 0, cluster): the weight of one hour's events."""
    query = sa.select(
        events.c.entity_ref, events.c.type, events.c.workflow, events.c.cluster, events.c.points, events.c.occurred_us
    ).where(
        events.c.occurred_us >= hour * HOUR_US,
        events.c.occurred_us < (hour + 1) * HOUR_US,
        events.c.test.is_(sa.false()),
        events.c.mark == 0,
    )
    by_text: dict[tuple[str, str, str], float] = defaultdict(float)
    for row in connection.execute(query):
        weight = row.points * 2.0 ** ((row.occurred_us - hour * HOUR_US) / DAY_US / half_life_days)
        by_text[row.entity_ref, f"{row.type}|{row.workflow}", row.cluster] += weight
    ids = _ids(connection, {part for key in by_text for part in zip(_KINDS, key, strict=True)})
    found: dict[tuple[int, int, int], float] = defaultdict(float)
    for key, weight in by_text.items():
        entity, way, cluster = (ids[part] for part in zip(_KINDS, key, strict=True))
        found[entity, way, cluster] += weight
        found[entity, 0, cluster] += weight
    return found


_KINDS = (NameKind.ENTITY, NameKind.WAY, NameKind.CLUSTER)


def _ids(connection: sa.Connection, wanted: set[tuple[NameKind, str]]) -> dict[tuple[NameKind, str], int]:
    found: dict[tuple[NameKind, str], int] = {}
    for kind in _KINDS:
        texts = sorted(text for other, text in wanted if other is kind)
        for start in range(0, len(texts), 500):
            query = sa.select(names.c.text, names.c.id).where(
                names.c.kind == int(kind), names.c.text.in_(texts[start : start + 500])
            )
            found |= {(kind, row[0]): row[1] for row in connection.execute(query)}
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
