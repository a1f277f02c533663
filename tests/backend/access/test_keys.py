"""Keys: what the database holds of them, several at once, rotation with grace, and what a running backend sees."""

import hmac
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from forwarder.backend.access import keys as module
from forwarder.backend.access.keys import RIGHTS, KeyRing, KeyStore, configured_key, hash_key
from forwarder.backend.database import Database
from forwarder.errors import ConfigError

NOW_US = 1_780_000_000_000_000
HOUR_US = 3_600_000_000


def ring(keys: KeyStore, now_us: int = NOW_US, configured: str = "") -> KeyRing:
    made = KeyRing([configured_key("X", configured)] if configured else [], keys, lambda: now_us / 1e6)
    made.refresh()
    return made


def names(keys: KeyStore, secret: str, now_us: int = NOW_US) -> str | None:
    found = ring(keys, now_us).find(secret.encode())
    return found.name if found else None


def test_only_a_hash_is_kept(keys: KeyStore, database: Database, tmp_path: Path) -> None:
    """Neither the key nor a part of it is in the database's files; what is kept is its SHA-256."""
    secret = keys.create("ci", ["write"], NOW_US)
    assert len(secret) >= 46
    assert keys.all()[0].hash == hash_key(secret.encode())
    database.close()
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret[3:20].encode() not in everything


def test_several_at_once(keys: KeyStore) -> None:
    """Each key is found under its own name with its own rights; another one is not."""
    first, second = keys.create("ci", ["write"], NOW_US), keys.create("jane", ["read", "change"], NOW_US)
    assert (names(keys, first), names(keys, second)) == ("ci", "jane")
    assert [sorted(key.rights) for key in keys.all()] == [["write"], ["change", "read"]]
    for wrong in ("", "ff_", first[:-1], first + "x", first.upper()):
        assert names(keys, wrong) is None


def test_rotation(keys: KeyStore) -> None:
    """The new key holds at once, the old one until its grace is over; rights stay, other keys too."""
    other = keys.create("other", RIGHTS, NOW_US)
    old = keys.create("ci", ["write"], NOW_US)
    new = keys.rotate("ci", NOW_US + 1, grace_s=3600)
    assert (names(keys, old, NOW_US + 2), names(keys, new, NOW_US + 2)) == ("ci", "ci")
    assert (names(keys, old, NOW_US + HOUR_US + 1), names(keys, new, NOW_US + HOUR_US + 1)) == (None, "ci")
    assert names(keys, other, NOW_US + HOUR_US + 1) == "other"
    assert {key.rights for key in keys.all() if key.name == "ci"} == {frozenset(["write"])}


def test_rotation_without_grace(keys: KeyStore) -> None:
    """A leaked key ends in the moment in which it is replaced."""
    old = keys.create("ci", ["write"], NOW_US)
    keys.rotate("ci", NOW_US + 1)
    assert names(keys, old, NOW_US + 1) is None


def test_grace_lengthens_nothing(keys: KeyStore) -> None:
    """A key that ends sooner anyway still does."""
    old = keys.create("ci", ["write"], NOW_US, expires_us=NOW_US + 10)
    new = keys.rotate("ci", NOW_US + 1, grace_s=3600)
    assert names(keys, old, NOW_US + 10) is None
    assert names(keys, new, NOW_US + 9) == "ci"
    assert names(keys, new, NOW_US + 10) is None


def test_revoked(keys: KeyStore) -> None:
    """All keys of a name end; the name may be given again, the key is not in force again."""
    old = keys.create("ci", ["write"], NOW_US)
    keys.rotate("ci", NOW_US, grace_s=60)
    assert keys.revoke("ci", NOW_US + 1) == 2
    assert keys.revoke("ci", NOW_US + 2) == 0
    keys.create("ci", ["write"], NOW_US + 3)
    assert names(keys, old, NOW_US + 4) is None


def test_expiry(keys: KeyStore) -> None:
    """A key with an end holds up to it and not in it."""
    secret = keys.create("guest", ["read"], NOW_US, expires_us=NOW_US + 5)
    assert names(keys, secret, NOW_US + 4) == "guest"
    assert names(keys, secret, NOW_US + 5) is None


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 65, "-x", "a\nb", "<b>"])
def test_no_name(keys: KeyStore, name: str) -> None:
    """A name has to be one that can stand in a log line and in a list."""
    with pytest.raises(ConfigError, match="is no name for a key"):
        keys.create(name, RIGHTS, NOW_US)


def test_taken_and_unknown_names(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in force is not given twice, one that is not cannot be rotated, and there is an end to keys."""
    keys.create("ci", RIGHTS, NOW_US)
    with pytest.raises(ConfigError, match="a key named ci is in force; rotate it"):
        keys.create("ci", RIGHTS, NOW_US)
    with pytest.raises(ConfigError, match="no key named cd is in force"):
        keys.rotate("cd", NOW_US)
    monkeypatch.setattr(module, "MAX_KEYS", 1)
    with pytest.raises(ConfigError, match="1 keys are in force"):
        keys.create("cd", RIGHTS, NOW_US)


def test_running_backend_sees_changes(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key made or revoked by another process counts after FRESH_S, without a restart."""
    running = ring(keys)
    secret = KeyStore(keys._database).create("ci", ["write"], NOW_US)
    assert not running.stale
    assert running.find(secret.encode()) is None
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    assert running.stale
    running.refresh()
    assert running.find(secret.encode()) is not None
    keys.revoke("ci", NOW_US)
    running.refresh()
    assert running.find(secret.encode()) is None


def test_a_database_that_fails_keeps_what_is_known(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is raised, not taken for `no keys at all`, which would open the door."""
    secret = keys.create("ci", ["write"], NOW_US)
    running = ring(keys)
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    monkeypatch.setattr(keys, "all", _fail)
    with pytest.raises(OperationalError):
        running.refresh()
    assert running.find(secret.encode()) is not None


def _fail(*_: object) -> None:
    raise OperationalError("", {}, Exception())


def test_last_use(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses are written down together, and kept for the next time when that fails."""
    secret = keys.create("ci", ["write"], NOW_US)
    running = ring(keys)
    running.find(secret.encode())
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    monkeypatch.setattr(module, "NOTED_EVERY_S", 0.0)
    with monkeypatch.context() as failing:
        failing.setattr(keys, "note_uses", _fail)
        running.refresh()
    assert keys.all()[0].used_us is None
    running.refresh()
    assert keys.all()[0].used_us == NOW_US


def test_configured_key(keys: KeyStore) -> None:
    """The key of the settings may do everything and stands beside those of the database."""
    found = ring(keys, configured="k\u00e9y").find("k\u00e9y".encode())
    assert found is not None
    assert found.rights == frozenset(RIGHTS)


def test_compared_in_constant_time(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key in force is compared, by compare_digest, whichever matches first."""
    first, _ = keys.create("a", RIGHTS, NOW_US), keys.create("b", RIGHTS, NOW_US)
    seen: list[str] = []
    compare: Callable[[str, str], bool] = hmac.compare_digest

    def counted(one: str, other: str) -> bool:
        seen.append(one)
        return compare(one, other)

    running = ring(keys)
    monkeypatch.setattr(module.hmac, "compare_digest", counted)
    assert running.find(first.encode()) is not None
    assert len(seen) == 2
