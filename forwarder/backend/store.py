"""Friction events on disk: SQLite by default, PostgreSQL by URL, the same calls for both.

Once means one row per id. A higher revision replaces the row's content, an equal or lower one changes nothing, so that
the order and the number of deliveries do not matter. Every call is one transaction and may come from any thread;
what fails is an `sqlalchemy.exc.SQLAlchemyError`, and then nothing of the call was kept.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from forwarder.backend.database import open_database, writing
from forwarder.backend.intake import NewEvent
from forwarder.backend.schema import events
from forwarder.backend.scoring import Sample
from forwarder.events.friction import EventOutcome, Severity

PURGE_STEP_EVENTS = 5000  # deletes in steps, so that writers wait for milliseconds and the WAL stays small
READ_STEP_EVENTS = 2000  # rows fetched at once while streaming; the rest stays in the database
MAX_IDS_IN_QUERY = 500  # far below the 999 parameters of an old SQLite

Result = Literal["recorded", "updated", "duplicate"]


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A row. seq: order of arrival. occurred_us, recorded_us: Unix microseconds. details: what has no column."""

    seq: int
    id: str
    revision: int
    entity_ref: str
    cluster: str
    type: str
    severity: Severity
    points: int
    actor: str
    workflow: str
    service: str
    namespace: str
    description: str
    outcome: EventOutcome
    response_code: int
    duration_s: float | None
    stage: str
    test: bool
    occurred_us: int
    recorded_us: int
    details: dict[str, Any]


class Store:
    """The events of all clusters."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
        # One writer at a time: SQLite has only one anyway, and waiting here is fairer than its busy polling.
        self._write_lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(cls, database: str) -> "Store":
        """The store in `database` (a path or a URL), created or migrated. Raises ConfigError."""
        return cls(open_database(database))

    def close(self) -> None:
        """Wait for the write that is under way, end a purge after its step, release the connections."""
        with self._write_lock:
            self._closed = True
            self._engine.dispose()

    def record(self, batch: Sequence[NewEvent], now_us: int) -> list[Result]:
        """Store `batch`, all of it or nothing; one result per event, in order, as if they had come one by one."""
        if not batch:
            return []
        newest: dict[str, NewEvent] = {}
        for event in batch:
            if event.id not in newest or event.revision > newest[event.id].revision:
                newest[event.id] = event
        rows = [_row(newest[event_id], now_us) for event_id in sorted(newest)]  # sorted: two writers cannot deadlock
        with self._write_lock, writing(self._engine) as connection:
            insert = self._insert(events).on_conflict_do_nothing(index_elements=[events.c.id]).returning(events.c.id)
            inserted = set(connection.execute(insert, rows).scalars())
            before = self._lock_revisions(connection, [row["id"] for row in rows if row["id"] not in inserted])
            changed = [
                _change(row, newest[row["id"]], before[row["id"]][1])
                for row in rows
                if row["id"] in before and row["revision"] > before[row["id"]][0]
            ]
            if changed:
                names = [name for name in changed[0] if name != "row_id"]
                update = sa.update(events).where(events.c.id == sa.bindparam("row_id"))
                connection.execute(update.values({name: sa.bindparam(name) for name in names}), changed)
        return _results(batch, {event_id: revision for event_id, (revision, _) in before.items()})

    def samples(self, since_us: int, entity_ref: str | None = None) -> Iterator[Sample]:
        """What scores are made of: events from `since_us` on, of one service or of all, without test events."""
        query = sa.select(
            events.c.entity_ref, events.c.occurred_us, events.c.points, events.c.workflow, events.c.type
        ).where(events.c.occurred_us >= since_us, events.c.test.is_(sa.false()))
        if entity_ref is not None:
            query = query.where(events.c.entity_ref == entity_ref)
        with self._engine.connect() as connection:
            rows = connection.execution_options(yield_per=READ_STEP_EVENTS).execute(query)
            for row in rows:
                yield Sample._make(row)

    def latest(
        self, limit: int, *, entity_ref: str | None = None, since_us: int | None = None, include_tests: bool = False
    ) -> list[StoredEvent]:
        """At most `limit` events, the latest to happen first; those of one moment in reverse order of arrival."""
        query = sa.select(events).order_by(events.c.occurred_us.desc(), events.c.seq.desc()).limit(limit)
        if entity_ref is not None:
            query = query.where(events.c.entity_ref == entity_ref)
        if since_us is not None:
            query = query.where(events.c.occurred_us >= since_us)
        if not include_tests:
            query = query.where(events.c.test.is_(sa.false()))
        with self._engine.connect() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def find(self, event_id: str) -> StoredEvent | None:
        """The event with this id, test events too."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(events).where(events.c.id == event_id)).one_or_none()
        return None if row is None else _stored(row)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that are stored, test events too."""
        found: set[str] = set()
        with self._engine.connect() as connection:
            for start in range(0, len(ids), MAX_IDS_IN_QUERY):
                query = sa.select(events.c.id).where(events.c.id.in_(ids[start : start + MAX_IDS_IN_QUERY]))
                found.update(connection.execute(query).scalars())
        return found

    def count(self, *, include_tests: bool = False) -> int:
        """How many events are stored."""
        query = sa.select(sa.func.count()).select_from(events)
        if not include_tests:
            query = query.where(events.c.test.is_(sa.false()))
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def purge(self, before_us: int, now_us: int) -> int:
        """Delete the events that happened before `before_us`; returns how many.

        One with a time still to come is judged by its arrival: a clock that ran ahead must not keep it for ever.
        """
        ahead = sa.and_(events.c.occurred_us > now_us, events.c.recorded_us < before_us)
        doomed = sa.select(events.c.seq).where(sa.or_(events.c.occurred_us < before_us, ahead)).limit(PURGE_STEP_EVENTS)
        step = sa.delete(events).where(events.c.seq.in_(doomed))
        total = 0
        deleted = PURGE_STEP_EVENTS
        while deleted == PURGE_STEP_EVENTS:
            with self._write_lock:
                if self._closed:
                    break
                with writing(self._engine) as connection:
                    deleted = connection.execute(step).rowcount
            total += deleted
        return total

    def _lock_revisions(self, connection: sa.Connection, ids: list[str]) -> dict[str, tuple[int, int]]:
        """By id: (revision, occurred_us) of rows that another transaction cannot change until this one ends."""
        found: dict[str, tuple[int, int]] = {}
        for start in range(0, len(ids), MAX_IDS_IN_QUERY):
            query = sa.select(events.c.id, events.c.revision, events.c.occurred_us).order_by(events.c.id)
            part = query.where(events.c.id.in_(ids[start : start + MAX_IDS_IN_QUERY])).with_for_update()
            found |= {row.id: (row.revision, row.occurred_us) for row in connection.execute(part)}
        return found


def _row(event: NewEvent, now_us: int) -> dict[str, Any]:
    row = msgspec.structs.asdict(event)
    row["occurred_us"] = now_us if event.occurred_us is None else event.occurred_us
    row["recorded_us"] = now_us
    return row


def _change(row: dict[str, Any], event: NewEvent, occurred_us: int) -> dict[str, Any]:
    """The parameters of an update: all of `row` but its id and arrival; a missing time leaves the stored one."""
    change = {name: value for name, value in row.items() if name not in ("id", "recorded_us")}
    if event.occurred_us is None:
        change["occurred_us"] = occurred_us
    change["row_id"] = event.id
    return change


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


def _stored(row: sa.Row[Any]) -> StoredEvent:
    return StoredEvent(**row._mapping)
