"""Who may be served, and what is refused before anything is opened."""

from pathlib import Path

import pytest
import trustme

from forwarder.errors import ConfigError
from forwarder.feed.settings import FeedSettings, check
from forwarder.wire.listen import TlsSettings


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, str]:
    authority = trustme.CA()
    server = authority.issue_cert("feed.example")
    (tmp_path / "cert").write_bytes(server.cert_chain_pems[0].bytes())
    (tmp_path / "key").write_bytes(server.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    return {"cert_file": str(tmp_path / "cert"), "key_file": str(tmp_path / "key"), "ca": str(tmp_path / "ca")}


def test_it_listens_on_loopback_where_karmor_looks() -> None:
    """The default needs no authentication and has KubeArmor's port."""
    check(FeedSettings())
    assert str(FeedSettings().address) == "127.0.0.1:32767"
    assert FeedSettings(listen="[::1]").address.port == 32767


def test_off_loopback_it_must_be_known_who_comes(pem: dict[str, str]) -> None:
    """A client certificate, or a token over TLS, or the operator's own words; TLS alone hides, but knows nobody."""
    away = "0.0.0.0:32767"
    tls = TlsSettings(cert_file=pem["cert_file"], key_file=pem["key_file"])
    mutual = TlsSettings(cert_file=pem["cert_file"], key_file=pem["key_file"], client_ca_file=pem["ca"])
    for good in (
        FeedSettings(listen=away, tls=mutual),
        FeedSettings(listen=away, tls=tls, token="t"),
        FeedSettings(listen=away, tls=tls, allow_anonymous=True),
        FeedSettings(listen=away, allow_anonymous=True),
    ):
        check(good)
    for bad, words in (
        (FeedSettings(listen=away), "show every event to anyone"),
        (FeedSettings(listen=away, tls=tls), "show every event to anyone"),
        (FeedSettings(listen=away, token="t"), "readable for everybody"),
    ):
        with pytest.raises(ConfigError, match=words):
            check(bad)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param(FeedSettings(queue_events=0), "feed.queue_events", id="a queue for nothing"),
        pytest.param(FeedSettings(queue_events=10**9), "feed.queue_events", id="a queue for everything"),
        pytest.param(FeedSettings(listen="32767"), "feed.listen", id="a port alone"),
        pytest.param(
            FeedSettings(tls=TlsSettings(cert_file="/none", key_file="/none")), "feed.tls.cert_file", id="no such file"
        ),
    ],
)
def test_the_setting_at_fault_is_named(settings: FeedSettings, words: str) -> None:
    """Each refusal begins with the setting."""
    with pytest.raises(ConfigError, match=f"^{words}"):
        check(settings)
