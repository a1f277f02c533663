"""Who asks: the key that a request shows, the session of its cookie, or nobody; and what that one may do.

Where no key is in force at all, a backend on loopback (or with `allow_anonymous`) lets everybody do everything: it is
somebody's own. As soon as there is one, writing and changing need a key. Reading needs one off loopback, unless
`anonymous_reads` says otherwise.
"""

import contextlib
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

import anyio.to_thread
import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.requests import Request

from forwarder.backend.access.keys import RIGHTS, Key, KeyRing, KeyStore, Right, configured_key, hash_key
from forwarder.backend.access.sessions import Sessions
from forwarder.backend.database import Database
from forwarder.backend.settings import BackendSettings
from forwarder.settings import parse_address

COOKIE = "friction_session"
SECURE_COOKIE = f"__Host-{COOKIE}"  # the prefix makes browsers insist on Secure, our host and no sub-domain
SETTINGS_KEY = "HEALERT_API_KEY"  # the name of the key that stands in the settings
HOUR_S = 3600.0


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """name: of the key; "" for somebody without one. bucket: what its requests are counted under.

    key_hash: of the key. expires_us: when its session ends, Unix microseconds; None for a key that was shown itself.
    """

    name: str = ""
    rights: frozenset[Right] = frozenset()
    by_cookie: bool = False
    bucket: str = ""
    key_hash: str = ""
    expires_us: int | None = None

    @property
    def anonymous(self) -> bool:
        """Whether no key was shown."""
        return not self.name


def visitor(request: Request) -> Visitor:
    """Who asks, as the gate has seen."""
    found = request.state.visitor
    assert isinstance(found, Visitor)
    return found


class Access:
    """What a running backend knows of keys and sessions."""

    def __init__(self, database: Database, settings: BackendSettings, clock: Callable[[], float] = time.time) -> None:
        """clock: Unix seconds. Opens nothing by itself."""
        configured = [configured_key(SETTINGS_KEY, settings.api_key)] if settings.api_key else []
        self.store = KeyStore(database)
        self.ring = KeyRing(configured, self.store, clock)
        self.sessions = Sessions(database)
        self._settings = settings
        self._clock = clock
        self.local = parse_address(settings.listen, where="backend.listen").local

    async def visitor(self, headers: Headers, address: str) -> Visitor | None:
        """Who asks; None for a key that is not in force. address: of the client. Raises SQLAlchemyError."""
        if self.ring.stale:
            await anyio.to_thread.run_sync(self.ring.refresh)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            # Header text is Latin-1 whatever it holds, so these are the very bytes sent.
            key = self.ring.find(given.strip().encode("latin-1"))
            return None if key is None else _by_key(key)
        cookie = session_cookie(headers)
        if cookie:
            session = await anyio.to_thread.run_sync(self.sessions.find, cookie, self._now_us())
            key = None if session is None else self.ring.by_hash(session.key_hash)
            if key is not None and session is not None:
                # Of its own, not of its key: a page that is open refreshes itself, and several people may share a key.
                bucket = f"session {hash_key(cookie.encode())}"
                return msgspec.structs.replace(
                    _by_key(key), by_cookie=True, bucket=bucket, expires_us=session.expires_us
                )
        return Visitor(rights=self._anonymous_rights(), bucket=f"address {address}")

    async def still(self, visitor: Visitor) -> bool:
        """Whether a visitor of a while ago would be let in now; while the database does not tell, as it was before."""
        if visitor.anonymous:
            return True
        if self.ring.stale:
            with contextlib.suppress(SQLAlchemyError):
                await anyio.to_thread.run_sync(self.ring.refresh)
        over = visitor.expires_us is not None and visitor.expires_us <= self._now_us()
        return not over and self.ring.by_hash(visitor.key_hash) is not None

    def sign_in(self, secret: str) -> str | None:
        """The cookie of a new session for the key `secret`; None when that is no key in force. For a worker thread."""
        self.ring.refresh()
        key = self.ring.find(secret.encode("utf-8", "surrogatepass"))
        return (
            None if key is None else self.sessions.open(key.hash, self._now_us(), self._settings.session_hours * HOUR_S)
        )

    @property
    def keys_in_force(self) -> bool:
        """Whether there is any key; as of the last refresh."""
        return bool(self.ring.present())

    def _anonymous_rights(self) -> frozenset[Right]:
        if not self.keys_in_force and (self.local or self._settings.allow_anonymous):
            return frozenset(RIGHTS)
        reads = self._settings.anonymous_reads
        return frozenset(["read"] if (self.local if reads is None else reads) else [])

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)


def session_cookie(headers: Headers) -> str:
    """The value of our cookie, "" without one."""
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    found = cookies.get(SECURE_COOKIE) or cookies.get(COOKIE)
    return found.value if found else ""


def _by_key(key: Key) -> Visitor:
    return Visitor(name=key.name, rights=key.rights, bucket=f"key {key.hash}", key_hash=key.hash)
