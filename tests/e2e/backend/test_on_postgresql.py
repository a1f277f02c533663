"""Every test of the store once more, on a real PostgreSQL server; and what only it has: other processes that write."""

import os
import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from forwarder.backend.api import create_app
from forwarder.backend.schema import metadata
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from tests.backend.conftest import BASE_URL, POSTGRESQL, TestClient, new_database
from tests.backend.store.test_rolling import check_buckets

pytestmark = pytest.mark.e2e

WRITER = """
import sys
from forwarder.backend.intake import read_event
from forwarder.backend.store import Store
store = Store.open(sys.argv[1])
start = int(sys.argv[2])
for first in range(0, 200, 20):
    batch = [
        read_event({"entity_ref": f"c:n/{n % 7}", "type": "abc", "severity": "low", "id": f"id-{(first + n + start) % 250}"})
        for n in range(20)
    ]
    store.record(batch, 1_780_000_000_000_000 + first)
store.close()
"""


def test_the_stores_tests(postgresql: str) -> None:
    """What holds on SQLite holds on PostgreSQL."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/backend/store"]
    run = subprocess.run(
        command, check=False, env={**os.environ, POSTGRESQL: postgresql}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-8000:]


def test_writers_in_other_processes(postgresql: str) -> None:
    """Three processes that deliver overlapping events at once lose none, and the sums are those of what is stored."""
    url = new_database(postgresql)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url, str(start)]) for start in (0, 50, 100)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    store = Store.open(url)
    assert store.count() == 250
    check_buckets(store, 1_780_000_000_000_200)
    store.close()


@pytest.mark.parametrize("name", ["actor", "text", "cluster", "entity_ref"])
def test_a_character_that_it_cannot_take(postgresql: str, name: str) -> None:
    """NUL in a parameter is the client's fault, not the database's."""
    store = Store.open(new_database(postgresql))
    with TestClient(create_app(store, BackendSettings()), base_url=BASE_URL) as client:
        assert client.get(f"/api/v1/events?{name}=a%00b").status_code in (200, 422)
    store.close()


def test_migrations_give_the_schema(postgresql: str) -> None:
    """The tables that the migrations make are the ones that the code believes in; the words column is PostgreSQL's own."""
    store = Store.open(new_database(postgresql))
    with store.database.reading() as connection:
        options = {"include_object": lambda _, name, *__: name not in ("document", "events_document")}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert connection.execute(sa.text("SELECT count(*) FROM events")).scalar() == 0
    store.close()
