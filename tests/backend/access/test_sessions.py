"""Sessions: kept as hashes, ended by time, by signing out and when there are too many."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from forwarder.backend.access import sessions as module
from forwarder.backend.access.sessions import Sessions
from forwarder.backend.database import Database
from forwarder.backend.schema import sessions as table

NOW_US = 1_780_000_000_000_000
SECOND_US = 1_000_000


def count(database: Database) -> int:
    with database.reading() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def test_life(database: Database) -> None:
    """A session holds until its lifetime is over, also for another process, and not a moment longer."""
    cookie = Sessions(database).open("k" * 64, NOW_US, 60)
    for opened in (Sessions(database), Sessions(database)):
        session = opened.find(cookie, NOW_US + 60 * SECOND_US - 1)
        assert session is not None
        assert session.key_hash == "k" * 64
        assert opened.find(cookie, NOW_US + 60 * SECOND_US) is None
    assert Sessions(database).find("", NOW_US) is None
    assert Sessions(database).find(cookie + "x", NOW_US) is None


def test_only_a_hash_is_kept(database: Database, tmp_path: Path) -> None:
    """Who has a copy of the database is signed in nowhere."""
    cookie = Sessions(database).open("k" * 64, NOW_US, 60)
    database.close()
    assert cookie.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_sign_out(database: Database) -> None:
    """A closed session is over at once, although it was looked up a moment ago."""
    sessions = Sessions(database)
    cookie = sessions.open("k" * 64, NOW_US, 60)
    assert sessions.find(cookie, NOW_US) is not None
    sessions.close(cookie)
    assert sessions.find(cookie, NOW_US) is None


def test_old_ones_are_removed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening one removes those that have ended, and the one closest to its end when there are too many."""
    sessions = Sessions(database)
    sessions.open("k" * 64, NOW_US, 1)
    sessions.open("k" * 64, NOW_US + 2 * SECOND_US, 60)
    assert count(database) == 1
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    cookies = [sessions.open("k" * 64, NOW_US + 3 * SECOND_US, 60 + number) for number in range(3)]
    assert count(database) == 2
    assert [sessions.find(cookie, NOW_US) is not None for cookie in cookies] == [False, True, True]


def test_memory_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cookies that somebody makes up do not pile up."""
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    sessions = Sessions(database)
    for number in range(10):
        sessions.find(str(number), NOW_US)
    assert len(sessions._remembered) <= 3
