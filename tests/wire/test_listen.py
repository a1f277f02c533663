"""Doors: none is open to strangers, and what is wrong with a certificate is said in words that help."""

import ssl
from asyncio import sslproto

import pytest
import trustme

from forwarder.errors import ConfigError
from forwarder.settings import parse_address
from forwarder.wire.listen import (
    TLS_BUFFER_BYTES,
    Identity,
    TlsSettings,
    allow_open_files,
    certificate_identity,
    explain_tls,
    refuse_strangers,
    server_context,
)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", ":1", "[::]:1", "10.0.0.5:1", "receiver.example:1"])
def test_a_door_to_the_network_needs_to_know_its_clients(listen):
    """Or the operator's word that it need not."""
    address = parse_address(listen)
    with pytest.raises(ConfigError, match="allow_anonymous: true"):
        refuse_strangers(address, False, False, "the Forward source")
    refuse_strangers(address, True, False, "the Forward source")
    refuse_strangers(address, False, True, "the Forward source")


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/run/x.sock"])
def test_a_door_on_this_machine_may_be_open(listen):
    """That is the default."""
    refuse_strangers(parse_address(listen), False, False, "the Forward source")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("one", "two"):
        certificate = authority.issue_cert(f"{name}.example", common_name=name)
        (folder / f"{name}.crt").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    (folder / "junk").write_text("not a certificate")
    (folder / "locked.key").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAc\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    return lambda name: str(folder / name)


def test_a_context_for_tls_and_for_mutual_tls(files):
    """Nothing below TLS 1.2; a client certificate is required only where a CA for it is given."""
    plain = server_context(TlsSettings(cert_file=files("one.crt"), key_file=files("one.key")))
    mutual = server_context(
        TlsSettings(cert_file=files("one.crt"), key_file=files("one.key"), client_ca_file=files("ca.pem"))
    )
    assert plain.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (plain.verify_mode, mutual.verify_mode) == (ssl.CERT_NONE, ssl.CERT_REQUIRED)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("missing", "one.key", None), "tls.cert_file: cannot read .*missing: No such file"),
        (("one.crt", "missing", None), "tls.key_file: cannot read"),
        (("one.crt", "one.key", "missing"), "tls.client_ca_file: cannot read"),
        (("one.crt", "two.key", None), "do not belong together"),
        (("junk", "one.key", None), "must be PEM"),
        (("one.crt", "junk", None), "must be PEM"),
        (("one.crt", "locked.key", None), "no passphrase"),
        (("one.crt", "one.key", "junk"), "tls.client_ca_file: no PEM certificate"),
    ],
    ids=["no certificate", "no key", "no CA", "mismatch", "bad certificate", "bad key", "encrypted key", "bad CA"],
)
def test_files_that_do_not_do_are_named(files, names, words):
    """And an encrypted key never asks for its passphrase on the terminal."""
    certificate, key, authority = names
    settings = TlsSettings(
        cert_file=files(certificate), key_file=files(key), client_ca_file=authority and files(authority)
    )
    with pytest.raises(ConfigError, match=words):
        server_context(settings)


def test_a_tls_connection_that_never_speaks_costs_little(files):
    """It is there before anybody knows who comes; asyncio's own buffers would be a gigabyte for 4096 of them."""
    server_context(TlsSettings(cert_file=files("one.crt"), key_file=files("one.key")))
    assert sslproto.SSLProtocol.max_size == TLS_BUFFER_BYTES < 100_000


def test_who_a_certificate_is_about():
    """In the form that Python's TLS gives it; nothing where there was none."""
    certificate = {
        "subject": ((("organizationName", "o"),), (("commonName", "prod-eu-1"),)),
        "subjectAltName": (("DNS", "a.example"), ("URI", "spiffe://b")),
    }
    assert certificate_identity(certificate) == Identity("prod-eu-1", ("a.example", "spiffe://b"))
    assert certificate_identity(None) == certificate_identity({}) == Identity("", ())


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("HTTP_REQUEST", "plain HTTP"),
        ("WRONG_VERSION_NUMBER", "not TLS"),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "showed no certificate"),
        ("CERTIFICATE_VERIFY_FAILED", "client_ca_file"),
        ("TLSV1_ALERT_UNKNOWN_CA", "does not trust our certificate"),
        ("SOME_NEW_ONE", "some new one"),
        (None, "no reason given"),
    ],
)
def test_a_failed_handshake_says_what_to_do(reason, words):
    """OpenSSL's own word is for those who know it."""
    error = ssl.SSLError("x")
    error.reason = reason
    assert words in explain_tls(error)


def test_a_client_that_only_went_away_is_not_worth_a_word():
    """Load balancers and heartbeats connect and leave."""
    assert explain_tls(ConnectionResetError()) == ""


def test_open_files_are_allowed_for_as_far_as_the_system_lets_us(monkeypatch):
    """The soft limit is raised to what is needed; where the hard one is lower, that many connections fit."""
    import forwarder.wire.listen as module  # noqa: PLC0415

    limits = [(1024, 4096)]
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(module.resource, "setrlimit", lambda _, new: limits.append(new))
    assert allow_open_files(512) == 512
    assert limits == [(1024, 4096)]
    assert allow_open_files(2000) == 2000
    assert limits[-1] == (2128, 4096)
    assert allow_open_files(10_000) == 4096 - module.OTHER_FILES
    assert limits[-1] == (4096, 4096)
