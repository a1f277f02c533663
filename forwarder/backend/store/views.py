"""The buckets: sums that are kept while events are written, so that no page has to read events.

One row of `tallies` says: in this view, for these two names, in this hour or day, in this cluster, so many events that
score, and their weight. Views are the questions that are asked; an event adds to each of them once. A day is 24 hours
of UTC, a slot the number of the hour or day since 1970.

    weight = Σ points · 2^((t - slot's beginning) / half-life)      so the slot is worth weight · 2^(-age / half-life)

Decay is exponential, so that this is exact whenever it is asked. A row has two weights, each with a half-life of its
own: a new half-life is worked into the one that is not in use, and then they change roles at once (rebuild.py).
Test events and events that a mark takes out are in no view but EXPECTED_DAYS.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import sqlalchemy as sa

from forwarder.backend.database import add_rows
from forwarder.backend.schema import names, pairs, scores, tallies

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
ALL = 0  # as a cluster in `scores`, as a name in a view over everything


class NameKind(IntEnum):
    """What a text in `names` is. WAY is `rule|workflow`: what an event did, as far as scores tell it."""

    ENTITY = 1
    ACTOR = 2
    RULE = 3
    WAY = 4
    CLUSTER = 5
    SPACE = 6
    TEAM = 7


class View(IntEnum):
    """Which names a row of `tallies` is about (a, b), and whether its slots are hours or days."""

    HOURS = 1  # -, -
    RULE_HOURS = 2  # rule, -
    ACTOR_HOURS = 3  # actor, -
    ENTITY_HOURS = 4  # entity, -; weighted
    ENTITY_WAY_HOURS = 5  # entity, way; weighted
    ENTITY_DAYS = 6  # entity, -; weighted
    ENTITY_WAY_DAYS = 7  # entity, way; weighted
    RULE_DAYS = 8  # -, rule
    ACTOR_RULE_DAYS = 9  # actor, rule
    SPACE_RULE_DAYS = 10  # space, rule
    TEAM_RULE_DAYS = 11  # team, rule
    EXPECTED_DAYS = 12  # entity, -; events that a mark takes out of the score


class Relation(IntEnum):
    """What a row of `pairs` joins."""

    ENTITY_ACTOR = 1
    ENTITY_RULE = 2
    RULE_ACTOR = 3


WEIGHTED = (View.ENTITY_HOURS, View.ENTITY_WAY_HOURS, View.ENTITY_DAYS, View.ENTITY_WAY_DAYS)


class Counted(NamedTuple):
    """What the sums need to know of one event. team: "" for none. mark: 0 when it scores."""

    entity_ref: str
    cluster: str
    rule: str
    workflow: str
    actor: str
    space: str
    team: str
    points: int
    occurred_us: int
    mark: int


class Frame(NamedTuple):
    """What sums are made with. edge_us: the oldest moment in `scores`. frame_hour: the moment its weights are as of."""

    half_life_0: float
    half_life_1: float
    active: int
    edge_us: int
    frame_hour: int

    @property
    def half_life_days(self) -> float:
        """The one that scores are told in."""
        return self.half_life_1 if self.active else self.half_life_0


Ids = Mapping[tuple[NameKind, str], int]


class Sums:
    """What a transaction adds to the sums, and takes from them; `write` is its last step."""

    def __init__(self, frame: Frame, ids: Ids) -> None:
        self._frame = frame
        self._ids = ids
        self._tallies: dict[tuple[int, int, int, int, int], list[float]] = {}
        self._pairs: dict[tuple[int, int, int], list[int]] = {}
        self._names: dict[int, list[int]] = {}
        self._scores: dict[tuple[int, int], list[float]] = {}
        self._shrunk: set[int] = set()

    def add(self, event: Counted, sign: int = 1) -> None:
        """Count `event` once more (1) or once less (-1)."""
        ids = self._ids
        entity = ids[NameKind.ENTITY, event.entity_ref]
        cluster = ids[NameKind.CLUSTER, event.cluster]
        hour, in_hour_us = divmod(event.occurred_us, HOUR_US)
        day, hour_of_day = divmod(hour, 24)
        if event.mark:
            self._tally((View.EXPECTED_DAYS, entity, 0, day, cluster), sign)
            return
        actor, rule = ids[NameKind.ACTOR, event.actor], ids[NameKind.RULE, event.rule]
        way = ids[NameKind.WAY, f"{event.rule}|{event.workflow}"]
        space = ids[NameKind.SPACE, event.space]
        frame = self._frame
        points = sign * event.points
        w0 = points * 2.0 ** (in_hour_us / DAY_US / frame.half_life_0)
        d0 = w0 * 2.0 ** (hour_of_day / 24 / frame.half_life_0)
        if frame.half_life_1 == frame.half_life_0:
            w1, d1 = w0, d0
        else:
            w1 = points * 2.0 ** (in_hour_us / DAY_US / frame.half_life_1)
            d1 = w1 * 2.0 ** (hour_of_day / 24 / frame.half_life_1)
        tally = self._tally
        tally((View.HOURS, 0, 0, hour, cluster), sign)
        tally((View.RULE_HOURS, rule, 0, hour, cluster), sign)
        tally((View.ACTOR_HOURS, actor, 0, hour, cluster), sign)
        tally((View.ENTITY_HOURS, entity, 0, hour, cluster), sign, w0, w1)
        tally((View.ENTITY_WAY_HOURS, entity, way, hour, cluster), sign, w0, w1)
        tally((View.ENTITY_DAYS, entity, 0, day, cluster), sign, d0, d1)
        tally((View.ENTITY_WAY_DAYS, entity, way, day, cluster), sign, d0, d1)
        tally((View.RULE_DAYS, 0, rule, day, cluster), sign)
        tally((View.ACTOR_RULE_DAYS, actor, rule, day, cluster), sign)
        tally((View.SPACE_RULE_DAYS, space, rule, day, cluster), sign)
        if event.team:
            tally((View.TEAM_RULE_DAYS, ids[NameKind.TEAM, event.team], rule, day, cluster), sign)
        at = event.occurred_us if sign > 0 else 0
        for pair in (
            (Relation.ENTITY_ACTOR, entity, actor),
            (Relation.ENTITY_RULE, entity, rule),
            (Relation.RULE_ACTOR, rule, actor),
        ):
            _count(self._pairs, pair, sign, at)
        for name in (entity, cluster, actor, rule, space):
            _count(self._names, name, sign, at)
        if event.occurred_us < frame.edge_us:
            return
        if sign < 0:
            self._shrunk.add(entity)
        else:
            weight = (d1 if frame.active else d0) * 2.0 ** ((day * 24 - frame.frame_hour) / 24 / frame.half_life_days)
            for key in ((entity, ALL), (entity, cluster)):
                score = self._scores.get(key)
                if score is None:
                    self._scores[key] = [1, weight, event.occurred_us]
                else:
                    score[0] += 1
                    score[1] += weight
                    score[2] = max(score[2], event.occurred_us)

    def write(self, connection: sa.Connection) -> set[int]:
        """Put everything into the tables; the entities that lost something: their scores are to be summed anew."""
        if self._tallies:
            add_rows(connection, tallies, [(*key, *row) for key, row in sorted(self._tallies.items())])
            empty = [dict(zip("vabsc", key, strict=True)) for key, row in self._tallies.items() if row[0] < 0]
            if empty:
                connection.execute(_EMPTY_TALLY, empty)
        if self._pairs:
            add_rows(connection, pairs, [(*key, *row) for key, row in sorted(self._pairs.items())])
            empty = [dict(zip("rab", key, strict=True)) for key, row in self._pairs.items() if row[0] < 0]
            if empty:
                connection.execute(_EMPTY_PAIR, empty)
        if self._names:
            changes = [{"name": name, "n": n, "at": at} for name, (n, at) in sorted(self._names.items())]
            connection.execute(_NAME, changes)
        kept = [(*key, *row) for key, row in sorted(self._scores.items()) if key[0] not in self._shrunk]
        if kept:
            add_rows(connection, scores, kept)
        return self._shrunk

    def _tally(self, key: tuple[int, int, int, int, int], n: int, w0: float = 0.0, w1: float = 0.0) -> None:
        row = self._tallies.get(key)
        if row is None:
            self._tallies[key] = [n, w0, w1]
        else:
            row[0] += n
            row[1] += w0
            row[2] += w1


def _count(counts: dict[Any, list[int]], key: Any, n: int, at: int) -> None:
    row = counts.get(key)
    if row is None:
        counts[key] = [n, at]
    else:
        row[0] += n
        row[1] = max(row[1], at)


_EMPTY_TALLY = sa.delete(tallies).where(
    tallies.c.view == sa.bindparam("v"),
    tallies.c.a == sa.bindparam("a"),
    tallies.c.b == sa.bindparam("b"),
    tallies.c.slot == sa.bindparam("s"),
    tallies.c.cluster == sa.bindparam("c"),
    tallies.c["count"] <= 0,
)
_EMPTY_PAIR = sa.delete(pairs).where(
    pairs.c.relation == sa.bindparam("r"),
    pairs.c.a == sa.bindparam("a"),
    pairs.c.b == sa.bindparam("b"),
    pairs.c["count"] <= 0,
)
_latest = sa.bindparam("at", type_=sa.BigInteger)
_NAME = (
    sa.update(names)
    .where(names.c.id == sa.bindparam("name"))
    .values(
        {
            "count": names.c["count"] + sa.bindparam("n", type_=sa.BigInteger),
            "last_us": sa.case((names.c.last_us < _latest, _latest), else_=names.c.last_us),
        }
    )
)
