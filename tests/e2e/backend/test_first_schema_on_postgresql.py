"""A PostgreSQL database as the first version left it, with a few hundred events, brought to this one."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from forwarder.backend.intake import NewEvent, format_timestamp, read_event
from forwarder.backend.store import Store
from forwarder.backend.store.events import EventFilter
from forwarder.backend.store.scores import ScoreFilter
from forwarder.backend.store.views import DAY_US, HOUR_US
from tests.backend.conftest import new_database
from tests.backend.store.test_rolling import check_buckets

pytestmark = pytest.mark.e2e

NOW_US = time.time_ns() // 1000 // HOUR_US * HOUR_US
EVENTS = 400
HOSTILE = '<b>"O\'Neil"</b> \\ %s $1 😀'

# What the first version made of an empty database.
FIRST_SCHEMA = """
CREATE TABLE alembic_version (version_num character varying(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0001');
CREATE TABLE events (
    seq bigserial PRIMARY KEY, id character varying(64) NOT NULL, revision integer NOT NULL,
    entity_ref character varying(200) NOT NULL, cluster character varying(200) NOT NULL, type character varying(50) NOT NULL,
    severity character varying(6) NOT NULL, points integer NOT NULL, actor character varying(200) NOT NULL,
    workflow character varying(200) NOT NULL, service character varying(200) NOT NULL,
    namespace character varying(200) NOT NULL, description character varying(500) NOT NULL,
    outcome character varying(7) NOT NULL, response_code integer NOT NULL, duration_s double precision,
    stage character varying(64) NOT NULL, test boolean NOT NULL, occurred_us bigint NOT NULL, recorded_us bigint NOT NULL,
    details jsonb NOT NULL, CONSTRAINT events_id UNIQUE (id)
);
CREATE INDEX events_entity_occurred ON events USING btree (entity_ref, occurred_us);
CREATE INDEX events_occurred ON events USING btree (occurred_us);
"""
COLUMNS = (
    "id", "revision", "entity_ref", "cluster", "type", "severity", "points", "actor", "workflow", "service", "namespace",
    "description", "outcome", "response_code", "duration_s", "stage", "test", "occurred_us",
)  # fmt: skip


def happened() -> list[NewEvent]:
    """Events of six weeks: open and ended sessions, tests, events without an object, and names that nobody should have."""
    found = []
    for n in range(EVENTS):
        fields: dict[str, Any] = {
            "id": f"old-{n}", "revision": n % 2, "entity_ref": f"component:space-{n % 3}/service-{n % 17}", "cluster": ("", "east")[n % 2],
            "type": ("kubectl-exec", "config-drift", "secret-read")[n % 3], "severity": ("high", "medium", "low")[n % 3],
            "actor": HOSTILE if n % 50 == 0 else f"user-{n % 5}", "workflow": ("debug", "")[n % 2], "namespace": f"space-{n % 3}",
            "stage": ("ResponseStarted", "ResponseComplete")[n % 2], "test": n % 40 == 7, "timestamp": format_timestamp(NOW_US - n * DAY_US // 10),
            "command": f"cat /etc/{HOSTILE}", "resource": "" if n % 4 == 0 else "pods", "name": "" if n % 8 == 1 else f"web-{n}", "tags": ["team:red"] if n % 6 == 0 else [],
        }  # fmt: skip
        event = read_event(fields)
        assert isinstance(event, NewEvent), event
        found.append(event)
    return found


@pytest.fixture
def old(postgresql: str) -> str:
    """The URL of a database of the first version with those events in it."""
    url = new_database(postgresql)
    places = ", ".join(["%s"] * (len(COLUMNS) + 2))
    with psycopg.connect(url) as connection:
        connection.execute(FIRST_SCHEMA)
        connection.cursor().executemany(
            f"INSERT INTO events ({', '.join(COLUMNS)}, recorded_us, details) VALUES ({places})",  # type: ignore[arg-type]
            [[*(getattr(e, c) for c in COLUMNS), NOW_US, json.dumps(e.details)] for e in happened()],
        )
    return url


@pytest.fixture
def fresh(postgresql: str) -> Iterator[Store]:
    """A store of this version that was sent the same events."""
    store = Store.open(new_database(postgresql))
    store.record(happened(), NOW_US)
    yield store
    store.close()


def told(store: Store) -> list[Any]:
    """What pages and calls are made of."""
    page = store.scores.page(ScoreFilter(), NOW_US, limit=100).entities
    return [
        store.count(), store.count(include_tests=True), [(e.entity_ref, e.count, round(e.points, 6), e.team) for e in page],
        sorted((t.name, t.count) for t in store.people.actors()), sorted(t.name for t in store.people.rules()),
        sorted(store.people.clusters()), sorted(store.people.namespaces()), sorted(store.people.teams()),
        [(e.id, e.revision, e.space, e.object, e.mark, e.details) for e in store.latest(500, include_tests=True)],
        [e.id for e in store.events.page(EventFilter(text="neil"), limit=500).events],
        [e.id for e in store.events.page(EventFilter(object="pods/space-2/web-5"), limit=5).events],
    ]  # fmt: skip


def test_it_tells_what_a_new_database_would(old: str, fresh: Store) -> None:
    """Scores, sums, objects, words, teams: all as if the events had come to this version; opened again nothing changes."""
    with closing(Store.open(old)) as store:
        store.maintain(NOW_US - 15 * DAY_US)  # the window's edge moves, the retention (30 days) takes nothing yet
        fresh.maintain(NOW_US - 15 * DAY_US)
        found = told(store)
        assert found == told(fresh)
        assert [event.id for event in store.latest(EVENTS, include_tests=True)] == [f"old-{n}" for n in range(EVENTS)]
        assert found[9], "text search finds nothing"
    with closing(Store.open(old)) as again:
        assert told(again) == found
        check_buckets(again, NOW_US)


def test_it_goes_on_from_there(old: str) -> None:
    """Old events are known by id and complete by revision, new ones come behind them, marks and the retention reach both."""
    with closing(Store.open(old)) as store:
        update, known, new = (
            read_event(
                {"entity_ref": "component:space-0/service-0", "type": "kubectl-exec", "severity": "high", **fields}
            )
            for fields in ({"id": "old-0", "revision": 1, "duration_s": 3.5}, {"id": "old-1"}, {"id": "new"})
        )
        assert isinstance(update, NewEvent)
        assert isinstance(known, NewEvent)
        assert isinstance(new, NewEvent)
        assert store.record([update, known, new], NOW_US) == ["updated", "duplicate", "recorded"]
        by_id = {event.id: event for event in store.latest(500, include_tests=True)}
        assert by_id["new"].seq > max(event.seq for name, event in by_id.items() if name != "new")
        assert (by_id["old-0"].duration_s, by_id["old-0"].occurred_us) == (3.5, NOW_US)
        mark = store.triage.expect_pattern(
            actor="user-1", rule="", entity_ref="", author="me", reason="r", now_us=NOW_US, until_us=NOW_US + DAY_US
        )
        assert mark.hidden == sum(event.actor == "user-1" and not event.test for event in by_id.values())
        deleted = store.purge(NOW_US - 30 * DAY_US, NOW_US)
        assert deleted == sum(event.occurred_us < NOW_US - 30 * DAY_US for event in by_id.values()) > 0
        assert store.count(include_tests=True) == EVENTS + 1 - deleted
        check_buckets(store, NOW_US)


def test_two_backends_that_start_at_once(old: str, fresh: Store) -> None:
    """One migrates and sums, the other waits for it; nothing is summed twice."""
    program = "import sys; from forwarder.backend.store import Store; Store.open(sys.argv[1]).close()"
    starts = [subprocess.Popen([sys.executable, "-c", program, old]) for _ in range(2)]
    assert [start.wait(60) for start in starts] == [0, 0]
    with closing(Store.open(old)) as store:
        assert store.count() == fresh.count()
        check_buckets(store, NOW_US)
