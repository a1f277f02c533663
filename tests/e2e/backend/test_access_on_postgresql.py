"""Keys and sessions on a real PostgreSQL server, as on SQLite."""

import pytest

from forwarder.backend.access import sessions as sessions_module
from forwarder.backend.access.keys import KeyRing, KeyStore
from forwarder.backend.access.sessions import Sessions
from forwarder.backend.database import Database, open_database
from tests.backend.conftest import new_database

pytestmark = pytest.mark.e2e

NOW_US = 1_780_000_000_000_000


def test_keys_and_sessions(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made, found, rotated, noted and revoked; a session opened, found, pushed out by newer ones and closed."""
    database = Database(open_database(new_database(postgresql)))
    keys = KeyStore(database)
    old = keys.create("ci", ["write"], NOW_US)
    new = keys.rotate("ci", NOW_US + 1, grace_s=60)
    ring = KeyRing([], keys, lambda: NOW_US / 1e6 + 1)
    ring.refresh()
    assert [ring.find(secret.encode()) is not None for secret in (old, new, "x")] == [True, True, False]
    keys.note_uses({key.hash: NOW_US for key in keys.all()})
    assert {key.used_us for key in keys.all()} == {NOW_US}
    assert keys.revoke("ci", NOW_US + 2) == 2

    monkeypatch.setattr(sessions_module, "MAX_SESSIONS", 2)
    sessions = Sessions(database)
    cookies = [sessions.open("k" * 64, NOW_US, 60 + number) for number in range(3)]
    assert [sessions.find(cookie, NOW_US) is not None for cookie in cookies] == [False, True, True]
    sessions.close(cookies[2])
    assert sessions.find(cookies[2], NOW_US) is None
    database.close()
