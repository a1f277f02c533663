"""Series for pictures: hours of the week, and days by rule. All times are UTC; events that marks take out are not in."""

import functools
from typing import Any

import msgspec
import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import names, tallies
from forwarder.backend.store.events import day_name
from forwarder.backend.store.names import find, texts
from forwarder.backend.store.views import DAY_US, NameKind, View

MAX_CHART_DAYS = 366


class Heatmap(msgspec.Struct, frozen=True, kw_only=True):
    """counts[weekday][hour], Monday first. since_us: where it begins; it ends now."""

    counts: list[list[int]]
    highest: int
    total: int
    since_us: int


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """counts[rule][i]: events of `rule` on days[i] (ISO dates, the oldest first). rules: the most frequent first."""

    days: list[str]
    rules: list[str]
    counts: dict[str, list[int]]
    total: int


class TooNarrow(ValueError):
    """A combination that no view answers."""


class Charts:
    """The series of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def heatmap(
        self,
        now_us: int,
        *,
        days: int = 28,
        entity_ref: str = "",
        actor: str = "",
        rule: str = "",
        cluster: str | None = None,
    ) -> Heatmap:
        """Events by hour of the week: of a service (and one of its rules), of an actor, of a rule, or of everything.

        Raises TooNarrow for an actor together with a service or a rule.
        """
        if actor and (entity_ref or rule):
            raise TooNarrow("an actor's hours are kept without service and rule; leave those out")
        since_hour = (now_us // DAY_US - days + 1) * 24
        grid = [[0] * 24 for _ in range(7)]
        with self._database.reading() as connection:
            if entity_ref and rule:
                a = _number(connection, NameKind.ENTITY, entity_ref)
                query, values = _HOURS_OF_WAYS, {"view": int(View.ENTITY_WAY_HOURS), "ways": _ways(connection, rule)}
            else:
                view, kind, text = (
                    (View.ENTITY_HOURS, NameKind.ENTITY, entity_ref)
                    if entity_ref
                    else (View.ACTOR_HOURS, NameKind.ACTOR, actor)
                    if actor
                    else (View.RULE_HOURS, NameKind.RULE, rule)
                    if rule
                    else (View.HOURS, None, "")
                )
                a = 0 if kind is None else _number(connection, kind, text)
                query, values = _HOURS, {"view": int(view)}
            values |= {"a": a, "since": since_hour}
            if cluster is not None:
                query, values = _in_cluster(query), values | {"cluster": _number(connection, NameKind.CLUSTER, cluster)}
            for slot, count in connection.execute(query, values).all():
                grid[(slot // 24 + 3) % 7][slot % 24] += int(count)  # 1970-01-01 was a Thursday
        return Heatmap(
            counts=grid,
            highest=max(map(max, grid)),
            total=sum(map(sum, grid)),
            since_us=since_hour * 3_600_000_000,
        )

    def calendar(
        self,
        now_us: int,
        *,
        days: int = 30,
        entity_ref: str = "",
        actor: str = "",
        namespace: str = "",
        team: str = "",
        cluster: str | None = None,
    ) -> Calendar:
        """Events by day and rule: of a service, an actor, a namespace, a team (one of these), or of everything.

        Raises TooNarrow for more than one.
        """
        chosen = [
            (View.ENTITY_WAY_DAYS, NameKind.ENTITY, entity_ref),
            (View.ACTOR_RULE_DAYS, NameKind.ACTOR, actor),
            (View.SPACE_RULE_DAYS, NameKind.SPACE, namespace),
            (View.TEAM_RULE_DAYS, NameKind.TEAM, team),
        ]
        given = [choice for choice in chosen if choice[2]]
        if len(given) > 1:
            raise TooNarrow("days are kept for a service, an actor, a namespace or a team; ask for one of them")
        first = now_us // DAY_US - days + 1
        counts: dict[str, list[int]] = {}
        with self._database.reading() as connection:
            view, a = View.RULE_DAYS, 0
            if given:
                view, a = given[0][0], _number(connection, given[0][1], given[0][2])
            query, values = _DAYS, {"view": int(view), "a": a, "since": first, "until": first + days}
            if cluster is not None:
                query, values = _in_cluster(query), values | {"cluster": _number(connection, NameKind.CLUSTER, cluster)}
            rows = connection.execute(query, values).all()
            known = texts(connection, {row[0] for row in rows})
        for b, slot, count in rows:
            rule = known[b].partition("|")[0]
            counts.setdefault(rule, [0] * days)[slot - first] += int(count)
        return Calendar(
            days=[day_name(first + index) for index in range(days)],
            rules=sorted(counts, key=lambda rule: (-sum(counts[rule]), rule)),
            counts=counts,
            total=sum(map(sum, counts.values())),
        )


def _number(connection: sa.Connection, kind: NameKind, text: str) -> int:
    found = find(connection, kind, text)
    return -1 if found is None else found  # no row has it


def _ways(connection: sa.Connection, rule: str) -> list[int]:
    query = sa.select(names.c.id).where(
        names.c.kind == int(NameKind.WAY), names.c.text.startswith(f"{rule}|", autoescape=True)
    )
    return list(connection.execute(query).scalars())


@functools.cache
def _in_cluster(query: sa.Select[Any]) -> sa.Select[Any]:
    return query.where(tallies.c.cluster == sa.bindparam("cluster"))


# Made once: to build a statement takes longer than to run it.
_OF = (
    tallies.c.view == sa.bindparam("view"),
    tallies.c.a == sa.bindparam("a"),
    tallies.c.slot >= sa.bindparam("since"),
)
_COUNT = sa.func.sum(tallies.c["count"])
_OF_HOURS: sa.Select[Any] = sa.select(tallies.c.slot, _COUNT).where(*_OF).group_by(tallies.c.slot)
_HOURS = _OF_HOURS.where(tallies.c.b == 0)
_HOURS_OF_WAYS = _OF_HOURS.where(tallies.c.b.in_(sa.bindparam("ways", expanding=True)))
_DAYS: sa.Select[Any] = (
    sa.select(tallies.c.b, tallies.c.slot, _COUNT)
    .where(*_OF, tallies.c.slot < sa.bindparam("until"))
    .group_by(tallies.c.b, tallies.c.slot)
)
