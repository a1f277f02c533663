"""Which addresses may be bound without a key, and what a settings file may say."""

from typing import Any

import msgspec
import pytest

from forwarder.backend.settings import BackendSettings, listen_address, refuse_strangers
from forwarder.errors import ConfigError
from forwarder.settings import convert, parse_document


@pytest.mark.parametrize("listen", ["127.0.0.1:8000", "[::1]:8000", "localhost:0"])
def test_local(listen: str) -> None:
    """On this machine alone no key is needed."""
    assert str(listen_address(BackendSettings(listen=listen))) == listen


def check(keys: bool = False, **settings: Any) -> None:
    made = BackendSettings(**settings)
    refuse_strangers(made, listen_address(made), keys=keys)


@pytest.mark.parametrize("listen", ["0.0.0.0:8000", ":8000", "[::]:8000", "192.0.2.7:8000", "backend:8000"])
def test_strangers(listen: str) -> None:
    """Anywhere else the backend needs a key, or the operator's word that it does not."""
    with pytest.raises(ConfigError, match="no key protects it") as caught:
        check(listen=listen)
    assert "HEALERT_API_KEY" in str(caught.value)
    check(listen=listen, keys=True)
    check(listen=listen, allow_anonymous=True)
    check(listen="127.0.0.1:8000")


def test_trusted_proxies() -> None:
    """Addresses and networks; a name could be anybody's and is refused."""
    listen_address(BackendSettings(trusted_proxies=("10.0.0.7", "10.1.0.0/16", "fd00::/8")))
    with pytest.raises(ConfigError, match=r"'nginx' is no IP address.*"):
        listen_address(BackendSettings(trusted_proxies=("nginx",)))


@pytest.mark.parametrize("listen", ["8000", "unix:/run/backend.sock", "127.0.0.1:99999"])
def test_no_address(listen: str) -> None:
    """What is no TCP address is refused by the name of the setting."""
    with pytest.raises(ConfigError, match=r"backend\.listen"):
        listen_address(BackendSettings(listen=listen, api_key="k"))


def test_repr_keeps_secrets() -> None:
    """Settings that reach a log show neither the key nor the database's password."""
    text = repr(BackendSettings(api_key="hunter2", database="postgresql://me:hunter2@db/x"))
    assert "hunter2" not in text


def test_from_yaml() -> None:
    """Every setting can be written in the settings file."""
    document = parse_document(
        "{listen: 'localhost:1', database: x.db, api_key: 12, allow_anonymous: true, allowed_origins: ['http://a'],"
        " retention_days: 90, threshold: 20, half_life_days: 3.5, score_retention_days: 14}",
        "test.yaml",
    )
    settings = convert(document, BackendSettings)
    assert settings.allowed_origins == ("http://a",)
    assert settings.api_key == "12"
    assert msgspec.structs.astuple(settings.chosen) == (20, 3.5, 14, 90)


@pytest.mark.parametrize(
    "text", ["retention_days: 0", "half_life_days: 0", "threshold: 0", "score_retention_days: -1", "retention: 5"]
)
def test_refused(text: str) -> None:
    """Values that make no sense and unknown keys are errors with their line."""
    with pytest.raises(ConfigError, match=r"test\.yaml:1"):
        convert(parse_document(text, "test.yaml"), BackendSettings)
