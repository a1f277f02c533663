"""Opening the database: SQLite by path, PostgreSQL by URL, brought up to date by the migrations in this package.

What differs between the two stands here and nowhere else. Every way in which a database cannot be used is a
ConfigError that names it without its password.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from forwarder.backend.schema import metadata
from forwarder.errors import ConfigError

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 10.0  # another process (a backup, a second backend) may hold the file; longer than that is a fault
POOL_CONNECTIONS = 8  # readers beside one writer; more only adds page caches
CACHE_KIB = 16_384  # of pages, for each connection: enough to keep the upper levels of every index of a large database
CHECKPOINT_PAGES = 8192  # 32 MiB of log before it is worked in: pages that many batches touch are written once
WAL_LIMIT_BYTES = 64 << 20  # a large purge or backlog must not leave its log on disk for ever
MIGRATION_LOCK = 0x66726963  # PostgreSQL advisory lock: two backends that start together migrate one after the other

WRITE_LOCK = MIGRATION_LOCK + 1  # PostgreSQL: writers come one by one, as in SQLite, so that sums cannot deadlock

WRITES = "forwarder_writes"

POSTGRESQL_URL = "postgresql://user@host/name"
PSYCOPG = "postgresql+psycopg"  # the driver that such a URL gets

_DAMAGED = ("file is not a database", "database disk image is malformed")  # SQLite's words


def open_database(database: str) -> sa.Engine:
    """The database at its newest revision. `database` is a path or a URL. Raises ConfigError when it cannot be used."""
    url = _url(database)
    name = url.render_as_string(hide_password=True) if url.drivername.startswith("postgresql") else str(url.database)
    try:
        if url.get_backend_name() == "sqlite":
            _create_private(Path(str(url.database)))
        engine = _engine(url)
    except OSError as error:
        raise ConfigError(f"cannot open the database {name}: {error.strerror}") from None
    except NoSuchModuleError:
        raise ConfigError(f"{url.drivername} is not supported; write {POSTGRESQL_URL}", where="database") from None
    except ImportError as error:
        if url.drivername != PSYCOPG:
            raise ConfigError(
                f"the database {name} needs the Python package {error.name}; install it, or write {POSTGRESQL_URL}"
            ) from None
        raise ConfigError(f"the database {name} needs psycopg: pip install 'friction-forwarder[postgres]'") from None
    try:
        migrate(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        reason = cause(error)
        what = "; move it aside or choose another" if reason in _DAMAGED else ""
        raise ConfigError(f"cannot open the database {name}: {reason}{what}") from None
    except ConfigError as error:
        engine.dispose()
        raise ConfigError(str(error), where=name) from None
    return engine


class Database:
    """One database and this process's turn at writing to it."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.sqlite = engine.dialect.name == "sqlite"
        self.closed = False
        # SQLite has one writer anyway, and waiting here is fairer than its busy polling.
        self._turn = threading.Lock()
        self._held = threading.local()

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """All that this thread reads inside is read from one moment of the database, over one connection."""
        with self.reading() as connection:
            self._held.connection = connection
            try:
                yield
            finally:
                self._held.connection = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One moment of the database, whatever is written meanwhile."""
        held = getattr(self._held, "connection", None)
        if held is not None:
            yield held
            return
        options = {} if self.sqlite else {"isolation_level": "REPEATABLE READ"}
        with self.engine.connect().execution_options(**options) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction, alone in the database; kept when the block ends, forgotten when it raises."""
        with self._turn, writing(self.engine) as connection:
            if not self.sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITE_LOCK)))
            yield connection

    def close(self) -> None:
        """Wait for the write that is under way, then release the connections."""
        with self._turn:
            self.closed = True
            self.engine.dispose()


def insert(connection: sa.Connection, table: sa.Table) -> Any:
    """INSERT with `on_conflict_…`, in the dialect at hand."""
    return (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)


def add_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add `rows` (a value for every column, in order) to those with the same key: numbers are added, a `last_us` moves
    forward only. Straight to the driver: this is the hot path, and most of its time was spent in naming parameters.
    """
    names = table.columns.keys()
    keys = [column.name for column in table.primary_key.columns]
    changes = [
        f"last_us = CASE WHEN {table.name}.last_us < excluded.last_us THEN excluded.last_us ELSE {table.name}.last_us END"
        if name == "last_us"
        else f"{name} = {table.name}.{name} + excluded.{name}"
        for name in names
        if name not in keys
    ]
    marks = ", ".join(["?" if connection.dialect.name == "sqlite" else "%s"] * len(names))
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 - names of ours alone
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {', '.join(changes)}",
        list(rows),
    )


@contextlib.contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that takes SQLite's write lock at its beginning: taken later, it could fail half-way."""
    with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        yield connection


def migrate(engine: sa.Engine) -> None:
    """Create or update the tables, all steps or none. Raises ConfigError for a database that is not ours to change."""
    scripts = Path(__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise ConfigError(
                f"written by a newer version of this program (revision {current}); update the program or choose another"
                " database"
            )
        inspector = sa.inspect(connection)
        if current is None and any(inspector.has_table(table) for table in metadata.tables):
            raise ConfigError("holds tables of another program under our names; choose another database")
        if current is None and inspector.has_table("friction_events"):
            log.warning("the database holds events of a Healert backend: they stay where they are and are not shown")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def cause(error: SQLAlchemyError) -> str:
    """Why the database said no, without statement or values: SQLite's words hold neither, PostgreSQL's may."""
    original = getattr(error, "orig", None)
    if original is None:
        return type(error).__name__
    if type(original).__module__ == "sqlite3":
        return str(original)
    return str(getattr(original, "sqlstate", None) or type(original).__name__)


def _url(database: str) -> URL:
    if "://" not in database:
        return URL.create("sqlite", database=str(Path(database).expanduser()))
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        raise ConfigError(f"no valid database URL; write a path or {POSTGRESQL_URL}", where="database") from None
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername=PSYCOPG)
    if url.get_backend_name() == "postgresql":
        return url
    if url.drivername != "sqlite":
        raise ConfigError(f"{url.drivername} is not supported; use SQLite or PostgreSQL", where="database")
    if not url.database or url.database == ":memory:" or url.query:
        raise ConfigError("write the path of a file: sqlite:////var/lib/forwarder/backend.db", where="database")
    return url


def _create_private(path: Path) -> None:
    """The file holds commands that people typed: only its owner may read it, and SQLite gives its log the same mode."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _engine(url: URL) -> sa.Engine:
    arguments: dict[str, Any] = {
        "hide_parameters": True,  # an error's text must not carry what was being stored
        "json_serializer": lambda value: msgspec.json.encode(value).decode(),
        "json_deserializer": msgspec.json.decode,
    }
    if url.get_backend_name() == "sqlite":
        arguments |= {
            "poolclass": sa.QueuePool,
            "connect_args": {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        }
    # Last in, first out: the connection that was used last has in its cache what is asked for next.
    engine = sa.create_engine(url, pool_size=POOL_CONNECTIONS, max_overflow=0, pool_use_lifo=True, **arguments)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late and never IMMEDIATE
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    cursor.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    cursor.execute("PRAGMA journal_mode=WAL")
    # FULL: the answer 200 lets the sender forget the event, so it must survive a power cut. NORMAL would not.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
