"""Who and what: lists of actors and rules, and what each has to do with the others. Counts are of all stored events
that score.
"""

from typing import Any

import msgspec
import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import events, names, pairs
from forwarder.backend.store.names import find
from forwarder.backend.store.views import NameKind, Relation

TOP = 20  # of the others, on the page of one
MAX_LISTED = 1000
TOUCHED_EVENTS = 100  # the latest of a service, from which its objects are told


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One name with its number of events and the latest of them, Unix microseconds."""

    name: str
    count: int
    last_us: int


class ActorView(msgspec.Struct, frozen=True, kw_only=True):
    """One actor: where and how."""

    actor: Tally
    entities: list[Tally]
    rules: list[Tally]


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: by whom and where."""

    rule: Tally
    actors: list[Tally]
    entities: list[Tally]


class EntityView(msgspec.Struct, frozen=True, kw_only=True):
    """One service: by whom and how. namespace, team: as in EntityScore."""

    entity: Tally
    namespace: str
    team: str
    actors: list[Tally]
    rules: list[Tally]


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """One object of a service, and who changed it last; its whole story is EventFilter(object=…).

    count: among the latest TOUCHED_EVENTS events of the service.
    """

    object: str
    resource: str
    namespace: str
    name: str
    cluster: str
    count: int
    last_us: int
    last_actor: str
    last_verb: str
    last_rule: str
    last_event_id: str


class People:
    """The names of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def names(self, kind: NameKind, *, text: str = "", limit: int = 100, offset: int = 0) -> list[Tally]:
        """Names of a kind, the most frequent first; `text`: those that contain it, in any case."""
        query = sa.select(names.c.text, names.c["count"], names.c.last_us).where(
            names.c.kind == int(kind), names.c["count"] > 0
        )
        if text:
            query = query.where(names.c.text.icontains(text, autoescape=True))
        query = query.order_by(names.c["count"].desc(), names.c.id).offset(offset).limit(min(limit, MAX_LISTED))
        with self._database.reading() as connection:
            return [_tally(row) for row in connection.execute(query)]

    def actors(self, *, text: str = "", limit: int = 100, offset: int = 0) -> list[Tally]:
        """Actors, the noisiest first."""
        return self.names(NameKind.ACTOR, text=text, limit=limit, offset=offset)

    def rules(self) -> list[Tally]:
        """Rules that fired, the noisiest first."""
        return self.names(NameKind.RULE, limit=MAX_LISTED)

    def clusters(self) -> list[str]:
        """Every cluster that sent an event that is stored, by name."""
        return sorted(tally.name for tally in self.names(NameKind.CLUSTER, limit=MAX_LISTED))

    def namespaces(self) -> list[str]:
        """Every namespace with an event that is stored, by name."""
        return sorted(tally.name for tally in self.names(NameKind.SPACE, limit=MAX_LISTED))

    def teams(self) -> list[str]:
        """Every team of a service with an event that is stored, by name."""
        query = (
            sa.select(names.c.team)
            .where(names.c.kind == int(NameKind.ENTITY), names.c.team != "", names.c["count"] > 0)
            .distinct()
            .limit(MAX_LISTED)
        )
        with self._database.reading() as connection:
            return sorted(connection.execute(query).scalars())

    def actor(self, name: str) -> ActorView | None:
        """One actor; None when no event of theirs ever came."""
        with self._database.reading() as connection:
            number, tally = _one(connection, NameKind.ACTOR, name)
            if tally is None:
                return None
            return ActorView(
                actor=tally,
                entities=_others(connection, Relation.ENTITY_ACTOR, "b", number),
                rules=_others(connection, Relation.RULE_ACTOR, "b", number),
            )

    def rule(self, name: str) -> RuleView | None:
        """One rule; None when it never fired."""
        with self._database.reading() as connection:
            number, tally = _one(connection, NameKind.RULE, name)
            if tally is None:
                return None
            return RuleView(
                rule=tally,
                actors=_others(connection, Relation.RULE_ACTOR, "a", number),
                entities=_others(connection, Relation.ENTITY_RULE, "b", number),
            )

    def entity(self, entity_ref: str) -> EntityView | None:
        """One service; None when no event of it ever came."""
        with self._database.reading() as connection:
            number = find(connection, NameKind.ENTITY, entity_ref)
            if number is None:
                return None
            row = connection.execute(_NAME, {"n": number}).one()
            return EntityView(
                entity=_tally(row),
                namespace=row.space,
                team=row.team,
                actors=_others(connection, Relation.ENTITY_ACTOR, "a", number),
                rules=_others(connection, Relation.ENTITY_RULE, "a", number),
            )

    def touched(self, entity_ref: str, *, limit: int = 50) -> list[Touched]:
        """The objects of a service that were touched lately, the latest first, each with its last change."""
        found: dict[tuple[str, str], list[Any]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(_LATEST_OF, {"ref": entity_ref}).all():
                if row.object:
                    found.setdefault((row.object, row.cluster), [row, 0])[1] += 1
            shown = list(found.values())[:limit]
            of_shown = sa.select(events.c.seq, events.c.details).where(events.c.seq.in_([row.seq for row, _ in shown]))
            details = {row.seq: row.details for row in connection.execute(of_shown).all()}
        return [_touched(row, count, details[row.seq]) for row, count in shown]


def _one(connection: sa.Connection, kind: NameKind, text: str) -> tuple[int, Tally | None]:
    number = find(connection, kind, text)
    if number is None:
        return 0, None
    return number, _tally(connection.execute(_NAME, {"n": number}).one())


def _others(connection: sa.Connection, relation: Relation, side: str, number: int) -> list[Tally]:
    """The names on the other side of a relation, the most frequent first."""
    return [_tally(row) for row in connection.execute(_OTHERS[side], {"r": int(relation), "n": number})]


# Made once: to build a statement takes longer than to run it.
_LATEST_OF = (
    sa.select(*(events.c[name] for name in ("object", "cluster", "occurred_us", "actor", "type", "id", "seq")))
    .where(events.c.entity_ref == sa.bindparam("ref"), events.c.test.is_(sa.false()))
    .order_by(events.c.occurred_us.desc(), events.c.seq.desc())
    .limit(TOUCHED_EVENTS)
)
_NAME = sa.select(names.c.text, names.c["count"], names.c.last_us, names.c.space, names.c.team).where(
    names.c.id == sa.bindparam("n")
)
_OTHERS = {
    side: sa.select(names.c.text, pairs.c["count"], pairs.c.last_us)
    .where(pairs.c.relation == sa.bindparam("r"), pairs.c[side] == sa.bindparam("n"), names.c.id == other)
    .order_by(pairs.c["count"].desc(), other.desc())
    .limit(TOP)
    for side, other in (("a", pairs.c.b), ("b", pairs.c.a))
}


def _tally(row: Any) -> Tally:
    return Tally(name=row[0], count=int(row[1]), last_us=row[2])


def _touched(row: Any, count: int, details: dict[str, Any]) -> Touched:
    resource, _, rest = row.object.partition("/")
    namespace, _, name = rest.partition("/")
    return Touched(
        object=row.object,
        resource=resource,
        namespace=namespace,
        name=name,
        cluster=row.cluster,
        count=count,
        last_us=row.occurred_us,
        last_actor=row.actor,
        last_verb=str(details.get("verb", "")),
        last_rule=row.type,
        last_event_id=row.id,
    )
