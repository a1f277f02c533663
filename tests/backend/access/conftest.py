"""A database with keys in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.backend.access.keys import KeyStore
from forwarder.backend.database import Database, open_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(open_database(str(tmp_path / "backend.db")))
    yield database
    database.close()


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)
