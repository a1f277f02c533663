"""Sessions: what a browser gets for a key, so that the key is typed once and never kept in a page.

A session is a random cookie; the database keeps its hash, the hash of the key that it was opened with, and its end. It
holds as long as that key does: whoever revokes or replaces a key ends its sessions with it. Restarts end none.
"""

import secrets
import threading
import time

import msgspec
import sqlalchemy as sa

from forwarder.backend.access.keys import FRESH_S, hash_key
from forwarder.backend.database import Database
from forwarder.backend.schema import sessions

COOKIE_BYTES = 32
MAX_REMEMBERED = 1000  # sessions looked up lately: people, not machines
MAX_SESSIONS = 10_000  # of all; signing in once more ends the oldest


class Session(msgspec.Struct, frozen=True):
    """key_hash: of the key it was opened with. expires_us: Unix microseconds."""

    key_hash: str
    expires_us: int


class Sessions:
    """The sessions in a database. Every call is one transaction and may come from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._remembered: dict[str, tuple[float, Session | None]] = {}

    def open(self, key_hash: str, now_us: int, lifetime_s: float) -> str:
        """The cookie of a new session; sessions that have ended are removed on the way."""
        cookie = secrets.token_urlsafe(COOKIE_BYTES)
        oldest = sa.select(sessions.c.hash).order_by(sessions.c.expires_us.desc()).offset(MAX_SESSIONS - 1)
        with self._database.writing() as connection:
            connection.execute(sa.delete(sessions).where(sessions.c.expires_us <= now_us))
            connection.execute(sa.delete(sessions).where(sessions.c.hash.in_(oldest)))
            connection.execute(
                sa.insert(sessions).values(
                    hash=hash_key(cookie.encode()), key_hash=key_hash, expires_us=now_us + int(lifetime_s * 1e6)
                )
            )
        return cookie

    def find(self, cookie: str, now_us: int) -> Session | None:
        """The session of a cookie, unless it has ended. The key is the caller's to check."""
        hashed = hash_key(cookie.encode())
        with self._lock:
            read_at, session = self._remembered.get(hashed, (float("-inf"), None))
        if time.monotonic() - read_at >= FRESH_S:
            with self._database.reading() as connection:
                row = connection.execute(sa.select(sessions).where(sessions.c.hash == hashed)).one_or_none()
            session = None if row is None else Session(row.key_hash, row.expires_us)
            with self._lock:
                if len(self._remembered) >= MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[hashed] = (time.monotonic(), session)
        return session if session is not None and now_us < session.expires_us else None

    def close(self, cookie: str) -> None:
        """End a session now."""
        hashed = hash_key(cookie.encode())
        with self._database.writing() as connection:
            connection.execute(sa.delete(sessions).where(sessions.c.hash == hashed))
        with self._lock:
            self._remembered.pop(hashed, None)
