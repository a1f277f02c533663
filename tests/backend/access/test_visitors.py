"""Sign-in by key: the session's end, the end of its key, and cookies that are none of ours."""

import pytest
from starlette.datastructures import Headers

from forwarder.backend.access import keys as keys_module
from forwarder.backend.access import sessions as sessions_module
from forwarder.backend.access.keys import KeyStore
from forwarder.backend.access.visitors import COOKIE, SECURE_COOKIE, Access, session_cookie
from forwarder.backend.database import Database
from forwarder.backend.settings import BackendSettings

NOW_S = 1_780_000_000.0
NOW_US = 1_780_000_000_000_000


class Clock:
    now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Access:
    monkeypatch.setattr(keys_module, "FRESH_S", 0.0)
    monkeypatch.setattr(sessions_module, "FRESH_S", 0.0)
    return Access(database, BackendSettings(listen="0.0.0.0:8000", api_key="k", session_hours=2), clock)


async def name(access: Access, cookie: str) -> str:
    visitor = await access.visitor(Headers({"cookie": f"{COOKIE}={cookie}"}), "192.0.2.1")
    assert visitor is not None
    assert visitor.by_cookie is bool(visitor.name)
    return visitor.name


async def test_session(access: Access, clock: Clock, keys: KeyStore) -> None:
    """A session has the rights of its key until it expires."""
    cookie = access.sign_in(keys.create("jane", ["read"], NOW_US))
    assert cookie
    assert await name(access, cookie) == "jane"
    clock.now_s += 2 * 3600
    assert await name(access, cookie) == ""


async def test_session_of_a_revoked_key(access: Access, keys: KeyStore) -> None:
    """Who loses the key loses the session."""
    cookie = access.sign_in(keys.create("jane", ["read"], NOW_US))
    assert cookie
    assert await name(access, cookie) == "jane"
    keys.revoke("jane", NOW_US)
    assert await name(access, cookie) == ""


async def test_session_of_a_replaced_setting(access: Access, database: Database, clock: Clock) -> None:
    """Another HEALERT_API_KEY ends the sessions of the former one; the same one keeps them over a restart."""
    cookie = access.sign_in("k")
    assert cookie
    same = Access(database, BackendSettings(api_key="k"), clock)
    other = Access(database, BackendSettings(api_key="l"), clock)
    assert (await name(same, cookie), await name(other, cookie)) == ("HEALERT_API_KEY", "")


def test_wrong_key(access: Access) -> None:
    """No session for what is no key."""
    assert access.sign_in("wrong") is None
    assert access.sign_in("\ud800") is None


@pytest.mark.parametrize("cookie", ["", "a=b", f"{COOKIE}", f"{COOKIE}=", ";;;", "=", f"x{COOKIE}=1", "\xff=\xfe"])
def test_no_cookie_of_ours(cookie: str) -> None:
    """Broken cookies are none."""
    assert session_cookie(Headers({"cookie": cookie})) == ""


def test_the_secure_cookie_wins() -> None:
    """One that a neighbour without TLS may have planted does not hide it."""
    assert session_cookie(Headers({"cookie": f"{COOKIE}=planted; {SECURE_COOKIE}=mine"})) == "mine"


async def test_still(access: Access, clock: Clock, keys: KeyStore) -> None:
    """Who was let in a while ago is looked at again: the session may be over, the key revoked."""
    secret = keys.create("jane", ["read"], NOW_US)
    cookie = access.sign_in(secret)
    by_cookie = await access.visitor(Headers({"cookie": f"{COOKIE}={cookie}"}), "192.0.2.1")
    by_key = await access.visitor(Headers({"authorization": f"Bearer {secret}"}), "192.0.2.1")
    assert by_cookie
    assert by_key
    assert by_cookie.bucket != by_key.bucket
    assert await access.still(by_cookie)
    clock.now_s += 2 * 3600
    assert not await access.still(by_cookie)
    assert await access.still(by_key)
    keys.revoke("jane", NOW_US)
    assert not await access.still(by_key)
