"""Keys: each has a name, a few rights and perhaps an end; the database keeps its hash and never the key.

    write    POST /events: what a receiver needs
    read     every page and every other GET
    change   triage and settings: what a person needs besides reading

A key has 256 random bits, so one round of SHA-256 protects it as well as a slow hash would: there is nothing to guess.
Several keys may be in force at once, also several of one name: rotating adds one and lets the older ones run out. Each
change is one transaction, seen by a running backend within FRESH_S.
"""

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from forwarder.backend.database import Database
from forwarder.backend.schema import access_keys
from forwarder.errors import ConfigError

Right = Literal["write", "read", "change"]
RIGHTS: tuple[Right, ...] = get_args(Right)

KEY_BYTES = 32
PREFIX = "ff_"  # so that a person, and a scanner of repositories, sees what it is
MAX_KEYS = 500  # each request is compared with all of them: 500 take a fifth of a millisecond
FRESH_S = 1.0  # how long a revoked key may still be taken; one small query a second is no load
NOTED_EVERY_S = 60.0  # how exactly "last used" is known; more often would make readers write

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key as it is kept. hash: SHA-256 in hex. Moments are Unix microseconds; expires_us: None for never."""

    name: str
    hash: str
    rights: frozenset[Right]
    created_us: int = 0
    expires_us: int | None = None
    used_us: int | None = None

    def holds(self, now_us: int) -> bool:
        """Whether it is in force."""
        return self.expires_us is None or now_us < self.expires_us


def hash_key(secret: bytes) -> str:
    """What is kept of a key, or of a session's cookie."""
    return hashlib.sha256(secret).hexdigest()


def make_secret() -> str:
    """A new key: URL-safe, so that it needs no quotes in YAML, in a shell or in a header."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


class KeyStore:
    """The keys in a database. Every call is one transaction and may come from any thread or process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, rights: Iterable[Right], now_us: int, expires_us: int | None = None) -> str:
        """A new key of a new name; the only time that it is seen. Raises ConfigError for a name that is taken or none."""
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name for a key; write up to 64 letters, digits and `._@-`")
        with self._database.writing() as connection:
            present = [key for key in _read(connection) if key.holds(now_us)]
            if any(key.name == name for key in present):
                raise ConfigError(f"a key named {name} is in force; rotate it, or choose another name")
            if len(present) >= MAX_KEYS:
                raise ConfigError(f"{MAX_KEYS} keys are in force; revoke those that nobody uses")
            return _insert(connection, name, frozenset(rights), now_us, expires_us)

    def rotate(self, name: str, now_us: int, grace_s: float = 0.0) -> str:
        """Another key with the name's rights; the older ones end after grace_s seconds. Raises ConfigError."""
        with self._database.writing() as connection:
            present = [key for key in _read(connection) if key.name == name and key.holds(now_us)]
            if not present:
                raise ConfigError(f"no key named {name} is in force; `forwarder keys list` shows them")
            newest = max(present, key=lambda key: key.created_us)
            _end(connection, name, now_us + int(grace_s * 1e6))
            return _insert(connection, name, newest.rights, now_us, newest.expires_us)

    def revoke(self, name: str, now_us: int) -> int:
        """End all keys of that name at once; how many they were."""
        with self._database.writing() as connection:
            return _end(connection, name, now_us)

    def all(self) -> list[Key]:
        """Every key, also those that have ended, by name and age."""
        with self._database.reading() as connection:
            return _read(connection)

    def note_uses(self, uses: dict[str, int]) -> None:
        """Remember when keys were last used: hash to Unix microseconds."""
        update = sa.update(access_keys).where(access_keys.c.hash == sa.bindparam("of"))
        with self._database.writing() as connection:
            connection.execute(
                update.values(used_us=sa.bindparam("at")), [{"of": key, "at": at} for key, at in uses.items()]
            )


class KeyRing:
    """The keys in force, as a running backend knows them: those of its settings and those of the database."""

    def __init__(self, configured: Sequence[Key], store: KeyStore, clock: Callable[[], float] = time.time) -> None:
        """clock: Unix seconds."""
        self._configured = tuple(configured)
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._stored: tuple[Key, ...] = ()
        self._read_at = float("-inf")
        self._uses: dict[str, int] = {}
        self._noted_at = time.monotonic()

    def refresh(self) -> None:
        """Read the database where that was not done within FRESH_S. Raises SQLAlchemyError, and keeps what it knew."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at < FRESH_S:
                return
            self._stored = tuple(self._store.all())
            self._read_at = now
            if self._uses and now - self._noted_at >= NOTED_EVERY_S:
                uses, self._uses, self._noted_at = self._uses, {}, now
                try:
                    self._store.note_uses(uses)
                except SQLAlchemyError:
                    self._uses = uses | self._uses  # only a hint for people; another time

    @property
    def stale(self) -> bool:
        """Whether `refresh` would ask the database."""
        return time.monotonic() - self._read_at >= FRESH_S

    def present(self) -> list[Key]:
        """The keys in force."""
        now_us = int(self._clock() * 1e6)
        return [key for key in (*self._configured, *self._stored) if key.holds(now_us)]

    def find(self, secret: bytes) -> Key | None:
        """The key in force that `secret` is. Compares with every one in constant time."""
        found = self.by_hash(hash_key(secret))
        if found is not None:
            self._uses[found.hash] = int(self._clock() * 1e6)
        return found

    def by_hash(self, given: str) -> Key | None:
        """The key in force with that hash; of several the first."""
        matching = [key for key in self.present() if hmac.compare_digest(key.hash, given)]
        return matching[0] if matching else None


def configured_key(name: str, secret: str) -> Key:
    """The one key that stands in the settings; it may do everything, as it always could."""
    return Key(name=name, hash=hash_key(secret.encode()), rights=frozenset(RIGHTS))


def _read(connection: sa.Connection) -> list[Key]:
    query = sa.select(access_keys).order_by(access_keys.c.name, access_keys.c.created_us, access_keys.c.id)
    return [
        Key(
            name=row.name,
            hash=row.hash,
            rights=frozenset(right for right in RIGHTS if right in row.rights.split(",")),
            created_us=row.created_us,
            expires_us=row.expires_us,
            used_us=row.used_us,
        )
        for row in connection.execute(query)
    ]


def _insert(connection: sa.Connection, name: str, rights: frozenset[Right], now_us: int, expires_us: int | None) -> str:
    secret = make_secret()
    row = {
        "name": name,
        "hash": hash_key(secret.encode()),
        "rights": ",".join(right for right in RIGHTS if right in rights),
    }
    connection.execute(sa.insert(access_keys).values(**row, created_us=now_us, expires_us=expires_us))
    return secret


def _end(connection: sa.Connection, name: str, at_us: int) -> int:
    """Let the keys of `name` end at `at_us` that would not have ended by then; how many they are."""
    later = sa.or_(access_keys.c.expires_us.is_(None), access_keys.c.expires_us > at_us)
    end = sa.update(access_keys).where(access_keys.c.name == name, later).values(expires_us=at_us)
    return connection.execute(end).rowcount
