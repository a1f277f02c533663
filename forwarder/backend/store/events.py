"""Reading events: which ones, page by page, latest first. Nothing here ever reads more than a bounded number of rows.

A page is found by one index (the most telling field of the filter) and the rest of the filter is looked at row by row,
at most SCAN_EVENTS of them. So a filter that fits hardly anything gives a short page, `searched_us` says how far back it
looked, and `next` goes on from there. A page is the last one only when `next` is "".
"""

import functools
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import events
from forwarder.backend.store.views import DAY_US, HOUR_US
from forwarder.backend.store.words import WordSearch
from forwarder.events.friction import EventOutcome, Severity

SCAN_EVENTS = 600  # rows looked at for one page: some milliseconds, also where they are spread over a large file
OPEN_SESSION_US = DAY_US  # a session whose end was never seen (the node died) is not open for ever
MAX_OPEN_SESSIONS = 200
MAX_STREAM_EVENTS = 500  # read at once by exports and live feeds; the rest stays in the database
MAX_IDS_IN_QUERY = 500  # far below the 999 parameters of an old SQLite
FIRST_US, LAST_US = -(1 << 62), 1 << 62

Expected = Literal["exclude", "include", "only"]


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A row. seq: order of arrival. occurred_us, recorded_us: Unix microseconds. details: what has no column.

    space: the namespace in entity_ref. object: `resource/namespace/name` that was touched, or "". change: order of
    writing, new with every update. mark: the triage mark that takes it out of the score, 0 when it scores.
    """

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
    space: str
    object: str
    change: int
    mark: int


class RecentEvent(NamedTuple):
    """What a card shows of an event; light, for five hundred at once."""

    occurred_us: int
    actor: str
    type: str
    description: str
    workflow: str


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events. "" and None: any. since_us (included) to until_us (not included): when they happened.

    rule: the event's `type`. namespace: that of the entity. object: as in StoredEvent. weekday: 0 is Monday, and hour:
    both of UTC. text: words that must all occur. expected: what becomes of events that a mark takes out of the score.
    """

    entity_ref: str = ""
    actor: str = ""
    rule: str = ""
    severity: str = ""
    outcome: str = ""
    namespace: str = ""
    cluster: str | None = None
    object: str = ""
    mark: int | None = None
    since_us: int | None = None
    until_us: int | None = None
    weekday: int | None = None
    hour: int | None = None
    text: str = ""
    expected: Expected = "include"
    tests: bool = False


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """events: latest first. next: hand it in as `cursor` for what comes after, "" at the end.

    searched_us: how far back this page looked, Unix microseconds; None when it looked at everything.
    """

    events: list[StoredEvent]
    next: str
    searched_us: int | None = None


class BadCursor(ValueError):
    """A cursor that no page gave."""


class Events:
    """The stored events."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._words = WordSearch(database)

    def page(self, where: EventFilter, *, limit: int, cursor: str = "") -> EventPage:
        """At most `limit` events; of a text search by arrival, else by when they happened. Raises BadCursor."""
        position = _read_cursor(cursor, words=bool(where.text))
        with self._database.reading() as connection:
            if where.text:
                return self._by_words(connection, where, limit, position)
            return self._by_time(connection, where, limit, position)

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
        with self._database.reading() as connection:
            return [stored(row) for row in connection.execute(query)]

    def recent(self, entity_ref: str, *, since_us: int, limit: int) -> list[RecentEvent]:
        """The latest events of one service in few words, without test events."""
        query = (
            sa.select(*(events.c[name] for name in RecentEvent._fields))
            .where(events.c.entity_ref == entity_ref, events.c.occurred_us >= since_us, events.c.test.is_(sa.false()))
            .order_by(events.c.occurred_us.desc(), events.c.seq.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [RecentEvent._make(row) for row in connection.execute(query)]

    def find(self, event_id: str) -> StoredEvent | None:
        """The event with this id, test events too."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(events).where(events.c.id == event_id)).one_or_none()
        return None if row is None else stored(row)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that are stored, test events too."""
        found: set[str] = set()
        with self._database.reading() as connection:
            for start in range(0, len(ids), MAX_IDS_IN_QUERY):
                query = sa.select(events.c.id).where(events.c.id.in_(ids[start : start + MAX_IDS_IN_QUERY]))
                found.update(connection.execute(query).scalars())
        return found

    def count(self, *, include_tests: bool = False) -> int:
        """How many events are stored. Counts them one by one: for commands and tests."""
        query = sa.select(sa.func.count()).select_from(events)
        if not include_tests:
            query = query.where(events.c.test.is_(sa.false()))
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def sessions(self, now_us: int, *, entity_ref: str = "", limit: int = MAX_OPEN_SESSIONS) -> list[StoredEvent]:
        """Sessions (shells, tunnels) that began within OPEN_SESSION_US and whose end has not been seen, latest first."""
        query = sa.select(events).where(
            events.c.stage == sa.literal_column("'ResponseStarted'"),  # a literal, so that the partial index is used
            events.c.occurred_us >= now_us - OPEN_SESSION_US,
            events.c.outcome == "allowed",
            events.c.test.is_(sa.false()),
        )
        if entity_ref:
            query = query.where(_plus(events.c.entity_ref) == entity_ref)
        query = query.order_by(events.c.occurred_us.desc(), events.c.seq.desc()).limit(limit)
        with self._database.reading() as connection:
            return [stored(row) for row in connection.execute(query)]

    def changed_since(self, change: int, limit: int = MAX_STREAM_EVENTS) -> list[StoredEvent]:
        """Events written (recorded or updated) after `change`, in the order of writing: what a live feed tells."""
        query = sa.select(events).where(events.c.change > change).order_by(events.c.change).limit(limit)
        with self._database.reading() as connection:
            return [stored(row) for row in connection.execute(query)]

    def last_change(self) -> int:
        """The `change` of the event written last; 0 when there is none."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.max(events.c.change))).scalar() or 0)

    def every(self, where: EventFilter) -> Iterator[list[StoredEvent]]:
        """All events of the filter in bounded parts, as an export reads them. Each part sees the database as it is then."""
        cursor = ""
        while True:
            page = self.page(where, limit=MAX_STREAM_EVENTS, cursor=cursor)
            if page.events:
                yield page.events
            if not page.next:
                return
            cursor = page.next

    # --- private -----------------------------------------------------------------------------------------------------

    def _by_time(
        self, connection: sa.Connection, where: EventFilter, limit: int, position: tuple[int, int] | None
    ) -> EventPage:
        """Range by range (one, unless hours of the week are asked for), each found by the driving index."""
        driver, rest = _conditions(where)
        scans = len(rest) > (not where.tests)  # test events are few
        found: list[StoredEvent] = []
        if where.weekday is not None or where.hour is not None:
            where = _since_the_first(connection, where, driver)
        for since_us, until_us in _ranges(where, position):
            inside = [*driver, events.c.occurred_us < until_us]
            if position:
                inside.append(_before(*position))
            bound = _nth(connection, [*inside, events.c.occurred_us >= since_us], SCAN_EVENTS) if scans else None
            if bound:
                # Said twice: the first ends the walk along the index, the second is exact. SQLite walks to the first
                # lower end that it is given, so there must be no other.
                inside += [events.c.occurred_us >= bound[0], sa.not_(_before(*bound))]
            else:
                inside.append(events.c.occurred_us >= since_us)
            query = sa.select(events).where(*inside, *rest)
            query = query.order_by(events.c.occurred_us.desc(), events.c.seq.desc()).limit(limit + 1 - len(found))
            found += [stored(row) for row in connection.execute(query)]
            if len(found) > limit:
                last = found[limit - 1]
                return EventPage(
                    events=found[:limit], next=_cursor(last.occurred_us, last.seq), searched_us=last.occurred_us
                )
            if bound:
                return EventPage(events=found, next=_cursor(*bound), searched_us=bound[0])
        return EventPage(events=found, next="")

    def _by_words(
        self, connection: sa.Connection, where: EventFilter, limit: int, position: tuple[int, int] | None
    ) -> EventPage:
        _, rest = _conditions(where, drives=False)
        conditions = [*rest, *_time_conditions(where)]
        found: list[StoredEvent] = []
        before = position[1] if position else LAST_US
        for candidates, reached in self._words.candidates(connection, where.text, before, first=limit + 1):
            if candidates:
                query = sa.select(events).where(events.c.seq.in_(candidates), *conditions).order_by(events.c.seq.desc())
                found += [stored(row) for row in connection.execute(query.limit(limit + 1 - len(found)))]
            if len(found) > limit:
                return EventPage(
                    events=found[:limit],
                    next=_cursor(0, found[limit - 1].seq),
                    searched_us=found[limit - 1].occurred_us,
                )
            before = reached
        searched = found[-1].occurred_us if found and before else None
        return EventPage(events=found, next=_cursor(0, before) if before else "", searched_us=searched)


# What finds the rows, the most telling first; the first that a filter has is the one that drives.
_DRIVERS = ("object", "mark", "entity_ref", "actor", "rule", "namespace", "cluster")
_COLUMN = {"rule": events.c.type, "namespace": events.c.space}


def _conditions(where: EventFilter, *, drives: bool = True) -> tuple[list[Any], list[Any]]:
    """Conditions that an index answers, and those that are looked at row by row (`+column`: no other index, please).

    drives: false where the rows are found otherwise; then all of them are of the second kind.
    """
    driver: list[Any] = []
    rest: list[Any] = []
    for name in _DRIVERS:
        value = getattr(where, name)
        if value is None or (value == "" and name != "cluster"):  # a cluster may have no name
            continue
        column = _COLUMN.get(name, events.c.get(name))
        if driver or not drives:
            rest.append(_plus(column) == value)
        else:
            driver.append(column == value)
            if name == "object":
                driver.append(sa.literal_column("object") != sa.literal_column("''"))
            if name == "mark":
                driver.append(sa.literal_column("mark") != sa.literal_column("0"))
    if where.severity:
        rest.append(events.c.severity == where.severity)
    if where.outcome:
        rest.append(events.c.outcome == where.outcome)
    if where.expected == "exclude":
        rest.append(_plus(events.c.mark) == 0)
    elif where.expected == "only":
        (driver if drives and not driver else rest).append(sa.literal_column("mark") != sa.literal_column("0"))
    if not where.tests:
        rest.append(events.c.test.is_(sa.false()))
    return driver, rest


def _time_conditions(where: EventFilter) -> list[Any]:
    conditions: list[Any] = []
    if where.since_us is not None:
        conditions.append(events.c.occurred_us >= where.since_us)
    if where.until_us is not None:
        conditions.append(events.c.occurred_us < where.until_us)
    hours = events.c.occurred_us // HOUR_US
    if where.hour is not None:
        conditions.append(hours % 24 == where.hour)
    if where.weekday is not None:
        conditions.append((hours // 24 + 3) % 7 == where.weekday)  # 1970-01-01 was a Thursday
    return conditions


def _ranges(where: EventFilter, position: tuple[int, int] | None) -> Iterator[tuple[int, int]]:
    """The stretches of time that the filter wants, latest first: (since, until)."""
    since_us = FIRST_US if where.since_us is None else where.since_us
    until_us = LAST_US if where.until_us is None else where.until_us
    if position:
        until_us = min(until_us, position[0] + 1)
    if where.weekday is None and where.hour is None:
        yield since_us, until_us
        return
    now_us = int(datetime.now(UTC).timestamp() * 1_000_000)
    until_us = min(until_us, now_us + DAY_US)  # nothing is stored that has yet to happen
    since_us = max(since_us, until_us - MAX_WEEKS * 7 * DAY_US)
    day = (until_us - 1) // DAY_US
    while (day + 1) * DAY_US > since_us:
        if where.weekday is None or (day + 3) % 7 == where.weekday:
            first, hours = (0, 24) if where.hour is None else (where.hour, 1)
            start_us = day * DAY_US + first * HOUR_US
            start, end = max(start_us, since_us), min(start_us + hours * HOUR_US, until_us)
            if start < end:
                yield start, end
        day -= 1


def _since_the_first(connection: sa.Connection, where: EventFilter, driver: list[Any]) -> EventFilter:
    """The filter without the weeks before anything happened."""
    first = connection.execute(sa.select(sa.func.min(events.c.occurred_us)).where(*driver)).scalar()
    since_us = max(where.since_us or FIRST_US, LAST_US if first is None else int(first))
    return msgspec.structs.replace(where, since_us=since_us)


MAX_WEEKS = 60  # of a filter for hours of the week without a beginning: a little more than a year


def _nth(connection: sa.Connection, conditions: list[Any], n: int) -> tuple[int, int] | None:
    """The position of the n-th row that `conditions` find, from their index alone; None when there are fewer."""
    query = sa.select(events.c.occurred_us, events.c.seq).where(*conditions)
    query = query.order_by(events.c.occurred_us.desc(), events.c.seq.desc()).limit(1).offset(n)
    row = connection.execute(query).one_or_none()
    return None if row is None else (row[0], row[1])


def _before(occurred_us: int, seq: int) -> Any:
    return sa.or_(events.c.occurred_us < occurred_us, sa.and_(events.c.occurred_us == occurred_us, events.c.seq < seq))


def _plus(column: Any) -> Any:
    """The column as something that no index answers: the planner must not leave the driving index for it."""
    return column.concat("") if isinstance(column.type, sa.String) else column + 0


_CURSOR = re.compile(r"(-?[0-9]{1,19})\.([0-9]{1,19})")


def _cursor(occurred_us: int, seq: int) -> str:
    return f"{occurred_us}.{seq}"


def _read_cursor(text: str, *, words: bool) -> tuple[int, int] | None:
    if not text:
        return None
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise BadCursor("not a cursor that a page gave")
    occurred_us, seq = int(match[1]), int(match[2])
    if not (FIRST_US <= occurred_us <= LAST_US and seq <= LAST_US) or (words and occurred_us):
        raise BadCursor("not a cursor that a page of this list gave")
    return occurred_us, seq


def stored(row: sa.Row[Any]) -> StoredEvent:
    """A whole row of `events`."""
    return StoredEvent(**row._mapping)


@functools.lru_cache(1024)
def day_name(day: int) -> str:
    """`2026-01-31` for a day's number since 1970."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()
