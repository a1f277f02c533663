"""Writing events: every row once, and every sum in the same transaction."""

from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.intake import NewEvent
from forwarder.backend.schema import events
from forwarder.backend.store.names import Names
from forwarder.backend.store.rolling import roll_if_old
from forwarder.backend.store.rows import COUNTED_COLUMNS, Row, differs, make_row, move
from forwarder.backend.store.state import change_state, read_state
from forwarder.backend.store.triage import patterns
from forwarder.backend.store.words import SEARCHED, add_words, drop_words

PURGE_STEP_EVENTS = 1000  # deletes in steps, so that writers wait for a tenth of a second and the WAL stays small
MAX_IDS_IN_QUERY = 500  # far below the 999 parameters of an old SQLite

Result = Literal["recorded", "updated", "duplicate"]


class Writing:
    """What adds to the table of events, and what takes from it."""

    def __init__(self, database: Database, names: Names) -> None:
        self._database = database
        self._names = names

    def record(self, batch: Sequence[NewEvent], now_us: int) -> list[Result]:
        """Store `batch`, all of it or nothing; one result per event, in order, as if they had come one by one."""
        if not batch:
            return []
        newest: dict[str, NewEvent] = {}
        for event in batch:
            if event.id not in newest or event.revision > newest[event.id].revision:
                newest[event.id] = event
        with self._database.writing() as connection:
            state = roll_if_old(connection, read_state(connection), now_us)
            before = _stored(connection, sorted(newest))
            mark_of = patterns(connection)
            change = state.change
            new: list[dict[str, Any]] = []
            changed: list[tuple[Row, dict[str, Any]]] = []
            for event_id, event in newest.items():
                old = before.get(event_id)
                if old and event.revision <= old["revision"]:
                    continue
                change += 1
                row = make_row(event, now_us, old)
                row["mark"] = (old["mark"] if old else 0) or mark_of(row)
                row["change"] = change
                if old:
                    changed.append((old, row))
                else:
                    new.append(row)
            reworded = [old["seq"] for old, row in changed if any(old[name] != row[name] for name in SEARCHED)]
            drop_words(connection, reworded)
            if new:
                last = connection.execute(sa.select(sa.func.max(events.c.seq))).scalar() or 0
                connection.execute(sa.insert(events), new)
                add_words(connection, "seq > :last", {"last": last})
            if changed:
                _update(connection, [row for _, row in changed])
                for seq in reworded:
                    add_words(connection, "seq = :seq", {"seq": seq})
            moved = [(old, row) for old, row in changed if differs(old, row)]
            ids = move(
                connection,
                self._names,
                state,
                [old for old, _ in moved],
                [*new, *(row for _, row in moved)],
                now_us,
            )
            if change != state.change:
                change_state(connection, state, change=change)
        self._names.remember(ids)
        return _results(batch, {event_id: row["revision"] for event_id, row in before.items()})

    def purge(self, before_us: int, now_us: int) -> int:
        """Delete the events that happened before `before_us`, and what they added to the sums; returns how many."""
        with self._database.reading() as connection:
            old = sa.select(events.c.seq).where(events.c.occurred_us < before_us).limit(1)
            if connection.execute(old).scalar() is None:
                return 0
        total = 0
        deleted = PURGE_STEP_EVENTS
        while deleted == PURGE_STEP_EVENTS and not self._database.closed:
            deleted = self._purge_step(before_us, now_us)
            total += deleted
        return total

    def _purge_step(self, before_us: int, now_us: int) -> int:
        doomed = sa.select(*COUNTED_COLUMNS).where(events.c.occurred_us < before_us).order_by(events.c.occurred_us)
        with self._database.writing() as connection:
            rows = [row._mapping for row in connection.execute(doomed.limit(PURGE_STEP_EVENTS))]
            drop_words(connection, [row["seq"] for row in rows])
            if rows:
                connection.execute(_DELETE, [{"s": row["seq"]} for row in rows])
            ids = move(connection, self._names, read_state(connection), rows, [], now_us)
        self._names.remember(ids)
        return len(rows)


_DELETE = sa.delete(events).where(events.c.seq == sa.bindparam("s"))


def _stored(connection: sa.Connection, ids: list[str]) -> dict[str, Row]:
    """By id: the rows that are there."""
    found: dict[str, Row] = {}
    for start in range(0, len(ids), MAX_IDS_IN_QUERY):
        query = sa.select(*COUNTED_COLUMNS, events.c.description).where(
            events.c.id.in_(ids[start : start + MAX_IDS_IN_QUERY])
        )
        found |= {row.id: row._mapping for row in connection.execute(query)}
    return found


def _update(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    names = [name for name in rows[0] if name not in ("id", "recorded_us")]
    update = sa.update(events).where(events.c.id == sa.bindparam("row_id"))
    changes = [{name: row[name] for name in names} | {"row_id": row["id"]} for row in rows]
    connection.execute(update.values({name: sa.bindparam(name) for name in names}), changes)


def _results(batch: Sequence[NewEvent], before: dict[str, int]) -> list[Result]:
    highest = dict(before)
    results: list[Result] = []
    for event in batch:
        known = highest.get(event.id)
        if known is not None and event.revision <= known:
            results.append("duplicate")
            continue
        results.append("recorded" if known is None else "updated")
        highest[event.id] = event.revision
    return results
