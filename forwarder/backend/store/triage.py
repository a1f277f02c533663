"""Triage: what somebody said is expected, taken out of the score, counted and visible, and put back at a word.

A mark is about single events, or about everything of an (actor, rule, service) that happens until a date, what is stored
already included; "" stands for any. Marks on patterns stay on what they covered when their date has passed, and
cover nothing that happens later; they lapse when the retention has taken all that they could cover. A mark on a single
event lapses at its date, where it has one (then the event counts again), or when the event is gone. Nothing is deleted: a
mark that was undone or has lapsed stays in the list, with who ended it and when.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import events, marks
from forwarder.backend.store.names import Names
from forwarder.backend.store.rolling import roll_if_old
from forwarder.backend.store.rows import COUNTED_COLUMNS, Row, move
from forwarder.backend.store.state import read_state

FOREVER_US = 253_402_300_799_999_999  # the last microsecond of the year 9999
STEP_EVENTS = 2000  # events moved at once: bounds memory, not the transaction
MAX_MARKED_EVENTS = 500  # single events in one call
MAX_LISTED_MARKS = 500
CACHE_S = 1.0  # how long after a mark in another process somebody may still be told

Which = Literal["in force", "ended", "all"]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """One mark. since_us, until_us: which events it covers; FOREVER_US: no end. hidden: events it takes out of the score.

    event_id: set for a mark on one event; then actor, rule and entity_ref are those of the event. ended_us: 0 while it is
    in force. ended_how: undone or lapsed.
    """

    id: int
    event_id: str
    actor: str
    rule: str
    entity_ref: str
    since_us: int
    until_us: int
    author: str
    reason: str
    created_us: int
    hidden: int
    ended_us: int
    ended_by: str
    ended_how: str


class Marking(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a wish to mark single events: the new marks, and the ids that got none, as they were asked for.

    unknown: no such event is stored. already_marked: a mark covers it. tests: a test event, which never counts.
    """

    marks: list[Mark]
    unknown: list[str]
    already_marked: list[str]
    tests: list[str]


class CoversNothing(ValueError):
    """A pattern whose date has passed, and that no stored event fits."""


class Triage:
    """The marks of one store."""

    def __init__(self, database: Database, names: Names) -> None:
        self._database = database
        self._names = names
        self._in_force: tuple[float, Callable[[Row], int] | None] = (0.0, None)

    def expect_events(
        self, event_ids: Sequence[str], *, author: str, reason: str, now_us: int, until_us: int | None = None
    ) -> Marking:
        """Mark single events; at most MAX_MARKED_EVENTS."""
        asked = list(dict.fromkeys(event_ids))[:MAX_MARKED_EVENTS]
        made: list[Mark] = []
        with self._database.writing() as connection:
            query = sa.select(*COUNTED_COLUMNS).where(events.c.id.in_(asked)).order_by(events.c.seq)
            found = {row.id: row._mapping for row in connection.execute(query)}
            rows = [row for row in found.values() if not row["test"] and not row["mark"]]
            changed = []
            for row in rows:
                mark = _insert(
                    connection,
                    event_id=row["id"],
                    actor=row["actor"],
                    rule=row["type"],
                    entity_ref=row["entity_ref"],
                    since_us=row["occurred_us"],
                    until_us=FOREVER_US if until_us is None else until_us,
                    author=author,
                    reason=reason,
                    created_us=now_us,
                )
                made.append(mark)
                changed.append((row, mark.id))
            ids = self._move(connection, changed, now_us)
        self._names.remember(ids)
        known = [found[event_id] for event_id in asked if event_id in found]
        return Marking(
            marks=[msgspec.structs.replace(mark, hidden=1) for mark in made],
            unknown=[event_id for event_id in asked if event_id not in found],
            already_marked=[row["id"] for row in known if row["mark"]],
            tests=[row["id"] for row in known if row["test"] and not row["mark"]],
        )

    def expect_pattern(
        self,
        *,
        actor: str,
        rule: str,
        entity_ref: str,
        author: str,
        reason: str,
        now_us: int,
        until_us: int,
        since_us: int = 0,
    ) -> Mark:
        """Mark everything of (actor, rule, entity_ref) that happens from since_us until until_us; at least one is given.

        Raises ValueError when none of the three is, CoversNothing when it could never hide anything.
        """
        if not (actor or rule or entity_ref):
            raise ValueError("a mark names an actor, a rule or a service")
        with self._database.writing() as connection:
            mark = _insert(
                connection,
                event_id="",
                actor=actor,
                rule=rule,
                entity_ref=entity_ref,
                since_us=since_us,
                until_us=until_us,
                author=author,
                reason=reason,
                created_us=now_us,
            )
            rows = connection.execute(_covered(mark)).all()
            if until_us <= now_us and not rows:
                raise CoversNothing("its date has passed, and nothing that is stored fits it")
            ids = self._move(connection, [(row._mapping, mark.id) for row in rows], now_us)
            found = _read(connection, mark.id)
        self._names.remember(ids)
        assert found is not None
        return found

    def undo(self, mark_id: int, *, author: str, now_us: int) -> Mark | None:
        """End a mark: what it took out counts again, unless another mark covers it. None when it is not in force."""
        return self._end(mark_id, author, "undone", now_us)

    def lapse(self, now_us: int, oldest_us: int) -> int:
        """End the marks that have had their time; how many. On a single event: when its date has passed, or the event is
        gone. On a pattern: when all that it can cover is older than `oldest_us` and gone.
        """
        gone = marks.c.hidden == 0
        over = sa.or_(
            sa.and_(marks.c.event_id != "", sa.or_(marks.c.until_us <= now_us, gone)),
            sa.and_(marks.c.event_id == "", marks.c.until_us <= oldest_us, gone),
        )
        with self._database.reading() as connection:
            query = sa.select(marks.c.id).where(marks.c.ended_us == 0, over)
            due = list(connection.execute(query).scalars())
        for mark_id in due:
            self._end(mark_id, "", "lapsed", now_us)
        return len(due)

    def find(self, mark_id: int) -> Mark | None:
        """One mark, ended ones too."""
        with self._database.reading() as connection:
            return _read(connection, mark_id)

    def marks(
        self,
        which: Which = "in force",
        *,
        entity_ref: str = "",
        actor: str = "",
        rule: str = "",
        before: int = 0,
        limit: int = MAX_LISTED_MARKS,
    ) -> list[Mark]:
        """Marks, newest first; `before` is the id of the last one of the page before."""
        query = sa.select(marks).order_by(marks.c.id.desc()).limit(min(limit, MAX_LISTED_MARKS))
        if which != "all":
            query = query.where(marks.c.ended_us == 0 if which == "in force" else marks.c.ended_us != 0)
        for column, value in ((marks.c.entity_ref, entity_ref), (marks.c.actor, actor), (marks.c.rule, rule)):
            if value:
                query = query.where(column.in_((value, "")))
        if before:
            query = query.where(marks.c.id < before)
        with self._database.reading() as connection:
            return [Mark(**row._mapping) for row in connection.execute(query)]

    def suppressed(self, *, actor: str, rule: str, entity_ref: str, occurred_us: int | None = None) -> bool:
        """Whether a pattern that is in force covers such an event (None: one that happens now).

        Asked once for every event that goes on to sinks, so what is in force is read at most once in CACHE_S.
        """
        at_us = time.time_ns() // 1000 if occurred_us is None else occurred_us
        row = {"actor": actor, "type": rule, "entity_ref": entity_ref, "occurred_us": at_us}
        read_at, mark_of = self._in_force
        if mark_of is None or time.monotonic() - read_at > CACHE_S:
            with self._database.reading() as connection:
                mark_of = patterns(connection)
            self._in_force = (time.monotonic(), mark_of)
        return bool(mark_of(row))

    def _end(self, mark_id: int, author: str, how: str, now_us: int) -> Mark | None:
        with self._database.writing() as connection:
            mark = _read(connection, mark_id)
            if mark is None or mark.ended_us:
                return None
            change = sa.update(marks).where(marks.c.id == mark_id)
            connection.execute(change.values(ended_us=now_us, ended_by=author, ended_how=how))
            others = patterns(connection)
            rows = connection.execute(sa.select(*COUNTED_COLUMNS).where(events.c.mark == mark_id)).all()
            ids = self._move(connection, [(row._mapping, others(row._mapping)) for row in rows], now_us)
            ended = _read(connection, mark_id)
        self._names.remember(ids)
        return ended

    def _move(self, connection: sa.Connection, changed: Sequence[tuple[Row, int]], now_us: int) -> dict[Any, int]:
        """Give each row its new mark, in the table and in the sums."""
        self._in_force = (0.0, None)
        state = roll_if_old(connection, read_state(connection), now_us)
        ids: dict[Any, int] = {}
        for start in range(0, len(changed), STEP_EVENTS):
            part = changed[start : start + STEP_EVENTS]
            connection.execute(_SET_MARK, [{"s": row["seq"], "m": mark} for row, mark in part])
            added = [{**row, "mark": mark} for row, mark in part]
            ids |= move(connection, self._names, state, [row for row, _ in part], added, now_us)
        return ids


def patterns(connection: sa.Connection) -> Callable[[Row], int]:
    """What is expected now: a function that gives the mark that covers a row, 0 for none; the oldest mark wins."""
    query = sa.select(marks).where(marks.c.ended_us == 0, marks.c.event_id == "").order_by(marks.c.id)
    found = [Mark(**row._mapping) for row in connection.execute(query)]

    def mark_of(row: Row) -> int:
        for mark in found:
            if (
                mark.actor in ("", row["actor"])
                and mark.rule in ("", row["type"])
                and mark.entity_ref in ("", row["entity_ref"])
                and mark.since_us <= row["occurred_us"] < mark.until_us
            ):
                return mark.id
        return 0

    return mark_of


def _covered(mark: Mark) -> sa.Select[Any]:
    query = sa.select(*COUNTED_COLUMNS).where(
        events.c.occurred_us >= mark.since_us, events.c.occurred_us < mark.until_us, events.c.mark == 0
    )
    for column, value in (
        (events.c.entity_ref, mark.entity_ref),
        (events.c.actor, mark.actor),
        (events.c.type, mark.rule),
    ):
        if value:
            query = query.where(column == value)
    return query


def _insert(connection: sa.Connection, **values: Any) -> Mark:
    row = {**values, "hidden": 0, "ended_us": 0, "ended_by": "", "ended_how": ""}
    mark_id = connection.execute(sa.insert(marks).returning(marks.c.id), row).scalar_one()
    return Mark(id=mark_id, **row)


def _read(connection: sa.Connection, mark_id: int) -> Mark | None:
    row = connection.execute(sa.select(marks).where(marks.c.id == mark_id)).one_or_none()
    return None if row is None else Mark(**row._mapping)


_SET_MARK = sa.update(events).where(events.c.seq == sa.bindparam("s")).values(mark=sa.bindparam("m"))
