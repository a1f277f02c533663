"""The authority and what it signs, judged by the TLS library that will meet them."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from forwarder.cli.authority import LEAF_DAYS, Pair, expires, issue, make_ca
from forwarder.errors import ConfigError


@pytest.fixture(scope="module")
def ca() -> Pair:
    return make_ca("an authority")


def handshake(tmp_path, server: Pair, client: Pair | None, trusted: Pair, name: str) -> None:
    """TLS in memory, strict and with the name verified; raises ssl.SSLError where one side refuses."""
    files = {}
    for label, pair in (("server", server), ("client", client), ("ca", trusted)):
        if pair is not None:
            files[label] = (tmp_path / f"{label}.crt", tmp_path / f"{label}.key")
            files[label][0].write_bytes(pair.certificate)
            files[label][1].write_bytes(pair.key)
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(*files["server"])
    inside.load_verify_locations(files["ca"][0])
    inside.verify_mode = ssl.CERT_REQUIRED
    outside = ssl.create_default_context(cafile=str(files["ca"][0]))
    for context in (inside, outside):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if client is not None:
        outside.load_cert_chain(*files["client"])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        outside.wrap_bio(to_client, to_server, server_hostname=name),
        inside.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass


def test_both_sides_accept_each_other(tmp_path, ca: Pair) -> None:
    """By a DNS name and by an IP address, under strict verification."""
    server = issue(ca, "receiver", ["receiver", "receiver.ns.svc", "127.0.0.1"], server=True)
    client = issue(ca, "agent", ["agent"], server=False)
    for name in ("receiver.ns.svc", "127.0.0.1"):
        handshake(tmp_path, server, client, ca, name)


@pytest.mark.parametrize(
    "case", ["other name", "no client certificate", "server as client", "client as server", "other authority"]
)
def test_what_must_not_pass(tmp_path, ca: Pair, case: str) -> None:
    """A wrong name, a missing or misused certificate, another authority."""
    other = make_ca("an authority")
    server = issue(
        other if case == "other authority" else ca, "receiver", ["receiver"], server=case != "client as server"
    )
    client = (
        None if case == "no client certificate" else issue(ca, "agent", ["agent"], server=case == "server as client")
    )
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path, server, client, ca, "elsewhere" if case == "other name" else "receiver")


def test_validity(ca: Pair) -> None:
    """From an hour ago, for clocks that are behind, until so many days from now."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    pair = issue(make_ca("a", now=now), "b", ["b"], server=True, now=now)
    loaded = x509.load_pem_x509_certificate(pair.certificate)
    assert loaded.not_valid_before_utc == now - timedelta(hours=1)
    assert expires(pair.certificate) == now + timedelta(days=LEAF_DAYS)


def test_nothing_outlives_its_authority() -> None:
    """Such a certificate would fail on the day its authority ends, with a later date written on it."""
    with pytest.raises(ConfigError, match="the authority ends on"):
        issue(make_ca("a", days=30), "b", ["b"], server=True, days=31)


def test_keys_do_not_come_out_by_printing(ca: Pair) -> None:
    """A traceback shows reprs."""
    assert "PRIVATE" not in repr(ca)


@pytest.mark.parametrize(
    ("name", "names", "words"),
    [
        ("", ["a"], "1 to 64"),
        ("x" * 65, ["a"], "1 to 64"),
        ("a\nb", ["a"], "printable"),
        ("a", ["häuschen"], "neither a host name nor an IP address"),
    ],
)
def test_names_are_checked(ca: Pair, name: str, names: list[str], words: str) -> None:
    """With words that name the culprit."""
    with pytest.raises(ConfigError, match=words):
        issue(ca, name, names, server=True)


def test_an_authority_must_be_one(ca: Pair) -> None:
    """Garbage, and a key of another one."""
    with pytest.raises(ConfigError, match="not PEM"):
        issue(Pair(b"x", b"y"), "a", ["a"], server=True)
    with pytest.raises(ConfigError, match="do not belong together"):
        issue(Pair(ca.certificate, make_ca("other").key), "a", ["a"], server=True)
    with pytest.raises(ConfigError, match="not a PEM certificate"):
        expires(b"x")
