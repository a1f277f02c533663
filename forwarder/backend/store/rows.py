"""From a row of `events` to what the sums need of it, and moving rows from one place in the sums to another."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from forwarder.backend.intake import NewEvent
from forwarder.backend.schema import OBJECT_CHARS, events, marks, names
from forwarder.backend.store.names import Names
from forwarder.backend.store.rolling import sum_anew
from forwarder.backend.store.state import State
from forwarder.backend.store.views import Counted, Ids, NameKind, Sums

Row = Mapping[Any, Any]

# What decides where an event is counted; a change of anything else leaves the sums alone.
COUNTED = ("entity_ref", "cluster", "type", "workflow", "actor", "space", "points", "occurred_us", "mark", "test")
COUNTED_COLUMNS = [events.c[name] for name in ("seq", "id", "revision", "details", *COUNTED)]


def make_row(event: NewEvent, now_us: int, old: Row | None = None) -> dict[str, Any]:
    """The columns of an event. A missing time is that of the row that is there, else of the arrival.

    A time still to come is the arrival's: a clock that runs ahead must not raise a score, nor stand at the top of every
    list for years.
    """
    row = msgspec.structs.asdict(event)
    occurred_us = event.occurred_us
    if occurred_us is None:
        occurred_us = old["occurred_us"] if old else now_us
    row["occurred_us"] = min(occurred_us, now_us)
    row["recorded_us"] = now_us
    row["space"] = event.entity_ref.partition(":")[2].partition("/")[0]
    resource, name = event.details.get("resource"), event.details.get("name")
    row["object"] = f"{resource}/{event.namespace}/{name}"[:OBJECT_CHARS] if resource and name else ""
    return row


def counted(row: Row) -> Counted:
    """What the sums need of a row."""
    return Counted(
        row["entity_ref"],
        row["cluster"],
        row["type"],
        row["workflow"],
        row["actor"],
        row["space"],
        team(row),
        row["points"],
        row["occurred_us"],
        row["mark"],
    )


def team(row: Row) -> str:
    """The team that a tag `team:NAME` or `team=NAME` names, else ""."""
    tags = row["details"].get("tags") or ()
    return next((tag[5:205].strip() for tag in tags if tag[:5] in ("team:", "team=")), "")


def differs(old: Row, row: Row) -> bool:
    """Whether the two are counted in different places."""
    return any(old[name] != row[name] for name in COUNTED) or team(old) != team(row)


def move(
    connection: sa.Connection, known: Names, state: State, taken: Sequence[Row], added: Sequence[Row], now_us: int
) -> Ids:
    """Take `taken` out of every sum and put `added` in; test events are in none. Gives the names to remember."""
    out = [counted(row) for row in taken if not row["test"]]
    into = [counted(row) for row in added if not row["test"]]
    ids = known.resolve(connection, [*out, *into])
    sums = Sums(state.frame, ids)
    for event in out:
        sums.add(event, -1)
    for event in into:
        sums.add(event)
    sum_anew(connection, state, sums.write(connection), now_us)
    _count_hidden(connection, out, into)
    _name_teams(connection, ids, into)
    return ids


def _count_hidden(connection: sa.Connection, taken: Sequence[Counted], added: Sequence[Counted]) -> None:
    """What a mark hides is counted with the mark."""
    hidden: dict[int, int] = {}
    for events_counted, sign in ((taken, -1), (added, 1)):
        for event in events_counted:
            if event.mark:
                hidden[event.mark] = hidden.get(event.mark, 0) + sign
    for mark, n in sorted(hidden.items()):
        if n:
            connection.execute(sa.update(marks).where(marks.c.id == mark).values(hidden=marks.c.hidden + n))


def _name_teams(connection: sa.Connection, ids: Ids, added: Sequence[Counted]) -> None:
    """An entity's team is the one that its latest event named."""
    teams = {ids[NameKind.ENTITY, event.entity_ref]: event.team for event in added if event.team}
    for entity, name in sorted(teams.items()):
        connection.execute(sa.update(names).where(names.c.id == entity, names.c.team != name).values(team=name))
