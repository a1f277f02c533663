"""Texts as numbers: every entity, actor, rule, cluster, namespace and team once, so that sums have short keys.

A name is never deleted: a number in the cache of a process is right for ever.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from forwarder.backend.database import WRITES, insert
from forwarder.backend.schema import names
from forwarder.backend.store.views import Counted, Ids, NameKind

MAX_CACHED = 200_000  # about 40 MB; an attacker may invent names for ever
MAX_FOUND = 5000  # for each connection that reads
MAX_TEXTS_IN_QUERY = 500  # far below the 999 parameters of an old SQLite

Key = tuple[NameKind, str]


class Names:
    """The cache of one process. What a transaction made is believed when it has committed."""

    def __init__(self) -> None:
        self._known: dict[Key, int] = {}

    def resolve(self, connection: sa.Connection, events: Iterable[Counted]) -> dict[Key, int]:
        """The numbers of all names in `events`; new ones are made. For a writing connection."""
        wanted: dict[Key, str] = {}
        for event in events:
            for key in keys(event):
                wanted[key] = event.space if key[0] is NameKind.ENTITY else ""
        found = {key: self._known[key] for key in wanted if key in self._known}
        missing = sorted(key for key in wanted if key not in found)
        if missing:
            found |= _look_up(connection, missing)
            new = [{"kind": int(key[0]), "text": key[1], "space": wanted[key]} for key in missing if key not in found]
            if new:
                connection.execute(insert(connection, names).on_conflict_do_nothing(), new)
                found |= _look_up(connection, [key for key in missing if key not in found])
        return found

    def remember(self, found: Ids) -> None:
        """Believe `found`, now that its transaction has committed."""
        if len(self._known) > MAX_CACHED:
            self._known = {}
        self._known.update(found)


def keys(event: Counted) -> tuple[Key, ...]:
    """The names in one event."""
    found = (
        (NameKind.ENTITY, event.entity_ref),
        (NameKind.ACTOR, event.actor),
        (NameKind.RULE, event.rule),
        (NameKind.WAY, f"{event.rule}|{event.workflow}"),
        (NameKind.CLUSTER, event.cluster),
        (NameKind.SPACE, event.space),
    )
    return (*found, (NameKind.TEAM, event.team)) if event.team else found


def find(connection: sa.Connection, kind: NameKind, text: str) -> int | None:
    """The number of a name; None when no event ever carried it."""
    if connection.get_execution_options().get(WRITES):
        return connection.execute(_FIND, {"k": int(kind), "t": text}).scalar_one_or_none()  # it may be undone yet
    known: dict[Key, int] = connection.info.setdefault("names", {})  # of this connection to the database
    number = known.get((kind, text))
    if number is None:
        number = connection.execute(_FIND, {"k": int(kind), "t": text}).scalar_one_or_none()
        if number is not None:
            if len(known) >= MAX_FOUND:
                known.clear()
            known[kind, text] = number
    return number


def texts(connection: sa.Connection, ids: Iterable[int]) -> dict[int, str]:
    """The other way round."""
    wanted = sorted(set(ids))
    found: dict[int, str] = {}
    for start in range(0, len(wanted), MAX_TEXTS_IN_QUERY):
        part = wanted[start : start + MAX_TEXTS_IN_QUERY]
        found |= {row[0]: row[1] for row in connection.execute(_TEXTS, {"ids": part}).all()}
    return found


_FIND = sa.select(names.c.id).where(names.c.kind == sa.bindparam("k"), names.c.text == sa.bindparam("t"))
_TEXTS = sa.select(names.c.id, names.c.text).where(names.c.id.in_(sa.bindparam("ids", expanding=True)))


def _look_up(connection: sa.Connection, wanted: list[Key]) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for kind in NameKind:
        wanted_texts = [text for other, text in wanted if other is kind]
        for start in range(0, len(wanted_texts), MAX_TEXTS_IN_QUERY):
            part = wanted_texts[start : start + MAX_TEXTS_IN_QUERY]
            query = sa.select(names.c.text, names.c.id).where(names.c.kind == int(kind), names.c.text.in_(part))
            found |= {(kind, row[0]): row[1] for row in connection.execute(query)}
    return found
