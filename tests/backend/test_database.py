"""Opening and migrating: from nothing, again, from the future, and what is no database of ours."""

import logging
import os
import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import OperationalError

from forwarder.backend.database import cause, open_database, writing
from forwarder.backend.intake import NewEvent, read_event
from forwarder.backend.schema import events, metadata
from forwarder.backend.store import Store
from forwarder.backend.store.events import EventFilter
from forwarder.errors import ConfigError


def test_from_empty(tmp_path: Path) -> None:
    """A path that does not exist becomes a database, folders included, which only its owner can read."""
    path = tmp_path / "new" / "100 %" / "backend.db"
    open_database(str(path)).dispose()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0003",)]
    connection.close()


def test_again(tmp_path: Path) -> None:
    """Migrating what is up to date changes nothing and keeps the rows."""
    path = tmp_path / "backend.db"
    open_database(str(path)).dispose()
    with sqlite3.connect(path) as connection:
        connection.execute(_A_ROW)
    connection.close()
    engine = open_database(f"sqlite:///{path}")
    with engine.connect() as reading:
        assert reading.execute(sa.select(events.c.id)).scalars().all() == ["a"]
    engine.dispose()


_A_ROW = """INSERT INTO events VALUES
    (1, 'a', 0, 'c:n/a', '', 'abc', 'low', 3, '', '', '', '', '', 'allowed', 0, NULL, '', 0, 0, 0, '{}', 'n', '', 1, 0)"""


def test_migrations_give_the_schema(tmp_path: Path) -> None:
    """The tables that the migrations make are the ones that the code believes in."""
    engine = open_database(str(tmp_path / "backend.db"))
    with engine.connect() as connection:
        options = {"include_object": lambda _, name, kind, *__: not (kind == "table" and name.startswith("search"))}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def test_from_the_first_schema(tmp_path: Path) -> None:
    """Events of the first version are kept, and get namespaces, objects, words and every sum."""
    path = tmp_path / "backend.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(_FIRST_SCHEMA)
    connection.close()
    store = Store.open(str(path))
    (event,) = store.latest(5)
    assert (event.space, event.object, event.change, event.mark) == ("shop", "pods/shop/web-1", 1, 0)
    assert store.scores.friction("component:shop/web", 1_780_000_000_000_000).score == 20
    assert [tally.name for tally in store.people.actors()] == ["jane"]
    assert len(store.events.page(EventFilter(text="whoami"), limit=5).events) == 1
    store.close()


# A database as the first version made it, with one event and one test event.
_FIRST_SCHEMA = """
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL);
INSERT INTO alembic_version VALUES ('0001');
CREATE TABLE events (
    seq INTEGER NOT NULL, id VARCHAR(64) NOT NULL, revision INTEGER NOT NULL, entity_ref VARCHAR(200) NOT NULL,
    cluster VARCHAR(200) NOT NULL, type VARCHAR(50) NOT NULL, severity VARCHAR(6) NOT NULL, points INTEGER NOT NULL,
    actor VARCHAR(200) NOT NULL, workflow VARCHAR(200) NOT NULL, service VARCHAR(200) NOT NULL,
    namespace VARCHAR(200) NOT NULL, description VARCHAR(500) NOT NULL, outcome VARCHAR(7) NOT NULL,
    response_code INTEGER NOT NULL, duration_s DOUBLE, stage VARCHAR(64) NOT NULL, test BOOLEAN NOT NULL,
    occurred_us BIGINT NOT NULL, recorded_us BIGINT NOT NULL, details JSON NOT NULL,
    PRIMARY KEY (seq), CONSTRAINT events_id UNIQUE (id)
);
CREATE INDEX events_entity_occurred ON events (entity_ref, occurred_us);
CREATE INDEX events_occurred ON events (occurred_us);
INSERT INTO events VALUES (1, 'a', 0, 'component:shop/web', 'east', 'kubectl-exec', 'high', 10, 'jane', 'debug', '', 'shop',
    'a shell', 'allowed', 101, NULL, '', 0, 1780000000000000, 1780000000000000,
    '{"resource": "pods", "name": "web-1", "command": "whoami"}');
INSERT INTO events VALUES (2, 't', 0, 'component:shop/web', 'east', 'kubectl-exec', 'high', 10, 'jane', 'debug', '', 'shop',
    'a shell', 'allowed', 101, NULL, '', 1, 1780000000000000, 1780000000000000, '{}');
"""


def test_durable(tmp_path: Path) -> None:
    """Every connection writes ahead and syncs fully: an answer of 200 survives a power cut."""
    engine = open_database(str(tmp_path / "backend.db"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    engine.dispose()


def test_newer(tmp_path: Path) -> None:
    """A database of a newer version is refused and left as it is."""
    path = tmp_path / "backend.db"
    open_database(str(path)).dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ConfigError, match=r"backend\.db: written by a newer version .*revision 9999"):
        open_database(str(path))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


def test_tables_of_another_program(tmp_path: Path) -> None:
    """A file in which `events` is something else is refused and left as it is."""
    path = tmp_path / "calendar.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (day TEXT)")
    connection.close()
    with pytest.raises(ConfigError, match="holds tables of another program"):
        open_database(str(path))
    with sqlite3.connect(path) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    connection.close()
    assert names == ["events"]


def test_file_of_a_healert_backend(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The default path may hold Healert's own table: it stays, and a warning says that it is not shown."""
    path = tmp_path / "healert.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE friction_events (id TEXT)")
        connection.execute("INSERT INTO friction_events VALUES ('old')")
    connection.close()
    with caplog.at_level(logging.WARNING):
        open_database(str(path)).dispose()
    assert "holds events of a Healert backend" in caplog.text
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT id FROM friction_events").fetchall() == [("old",)]
    connection.close()


def test_not_a_database(tmp_path: Path) -> None:
    """Another kind of file is refused by name."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be taken for one" * 40)
    with pytest.raises(
        ConfigError, match=r"cannot open the database .*notes\.txt: file is not a database; move it aside"
    ):
        open_database(str(path))


def test_path_through_a_file(tmp_path: Path) -> None:
    """A path that cannot exist is refused with the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot open the database .*: Not a directory"):
        open_database(str(tmp_path / "file" / "backend.db"))


def test_folder(tmp_path: Path) -> None:
    """A folder is no database."""
    with pytest.raises(ConfigError, match=r"cannot open the database .*: Is a directory"):
        open_database(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable(tmp_path: Path) -> None:
    """A folder without write permission is refused with the system's reason."""
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="Permission denied"):
        open_database(str(tmp_path / "backend.db"))


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ("sqlite://", "write the path of a file"),
        ("sqlite:///:memory:", "write the path of a file"),
        ("sqlite:///x.db?mode=memory", "write the path of a file"),
        ("mysql://root@localhost/x", "mysql is not supported; use SQLite or PostgreSQL"),
        ("://", "no valid database URL"),
        ("postgresql://me:hunter2@localhost:port/x", "no valid database URL"),
    ],
)
def test_urls(database: str, words: str) -> None:
    """A database that would forget, or that is not supported, is refused in words and without its password."""
    with pytest.raises(ConfigError, match=words) as caught:
        open_database(database)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        ("postgresql", r"needs psycopg: pip install 'friction-forwarder\[postgres\]'"),
        ("postgresql+psycopg", r"needs psycopg: pip install 'friction-forwarder\[postgres\]'"),
        ("postgresql+pg8000", "needs the Python package pg8000; install it, or write postgresql://user@host/name"),
        ("postgresql+nothing", "postgresql\\+nothing is not supported; write postgresql://user@host/name"),
    ],
)
def test_missing_driver(monkeypatch: pytest.MonkeyPatch, driver: str, words: str) -> None:
    """A URL whose driver is not installed says what to install, and not the password."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(ConfigError, match=words) as caught:
        open_database(f"{driver}://me:hunter2@localhost/x")
    assert "hunter2" not in str(caught.value)


def test_errors_hold_no_values(tmp_path: Path) -> None:
    """A failed statement's text carries neither the statement's values nor, as a cause, the statement."""
    engine = open_database(str(tmp_path / "backend.db"))
    with pytest.raises(OperationalError) as caught, writing(engine) as connection:
        connection.execute(sa.text("INSERT INTO nowhere VALUES (:value)"), {"value": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert cause(caught.value) == "no such table: nowhere"
    engine.dispose()


def test_one_moment(tmp_path: Path) -> None:
    """What a thread reads in one moment does not change, whoever writes meanwhile; afterwards it has."""
    store = Store.open(str(tmp_path / "backend.db"))
    event = read_event({"entity_ref": "component:a/b", "type": "kubectl-exec", "severity": "high"})
    assert isinstance(event, NewEvent)
    with store.database.one_moment():
        before = store.count()
        writer = threading.Thread(target=store.record, args=([event], 1_780_000_000_000_000))
        writer.start()
        writer.join()
        assert (before, store.count()) == (0, 0)
    assert store.count() == 1
    store.close()
