"""A small certificate authority: the CA, and certificates for servers and clients that it signs; no files, no sockets.

Keys are EC P-256: every TLS library takes them, and a handshake costs a tenth of RSA's. Certificates carry what strict
verifiers ask for (key usage, authority and subject key identifiers, names as subjectAltName). The package `cryptography`
is imported when something is made, so that no other command needs it.
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from forwarder.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, Name

CA_DAYS = 3650  # replacing the authority means touching every agent; its key stays where `forwarder certs` ran
LEAF_DAYS = (
    397  # what public authorities were held to for years: long enough to forget, short enough to be renewed once
)
BACKDATED = timedelta(hours=1)  # a node whose clock is behind must not refuse a certificate that was just made
MAX_COMMON_NAME = 64  # X.509's own bound (ub-common-name)


class Pair(msgspec.Struct, frozen=True):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:  # a key must not come out by way of a traceback
        return "Pair(…)"


def make_ca(name: str, *, now: datetime | None = None, days: int = CA_DAYS) -> Pair:
    """A self-signed authority that may sign certificates, and nothing else."""
    x509 = _cryptography()
    key = _new_key()
    subject = _name(name)
    builder = _builder(subject, subject, key.public_key(), now, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return _signed(builder, key, key)


def issue(
    ca: Pair, name: str, names: list[str], *, server: bool, now: datetime | None = None, days: int = LEAF_DAYS
) -> Pair:
    """A certificate for `name`, signed by `ca`: for a server that is reached as each of `names`, or for a client.

    Raises ConfigError when `ca` is no authority of this form, or `days` outlive it.
    """
    x509 = _cryptography()
    from cryptography.x509.oid import ExtendedKeyUsageOID

    authority, authority_key = _load(ca)
    key = _new_key()
    builder = _builder(_name(name), authority.subject, key.public_key(), now, days)
    if (now or datetime.now(UTC)) + timedelta(days=days) > authority.not_valid_after_utc:
        raise ConfigError(
            f"the authority ends on {authority.not_valid_after_utc:%Y-%m-%d}, before a certificate of {days} days would; "
            "ask for fewer days, or make a new authority"
        )
    usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
    )
    return _signed(builder, key, authority_key)


def expires(certificate: bytes) -> datetime:
    """When a PEM certificate ends. Raises ConfigError where it is none."""
    x509 = _cryptography()
    try:
        loaded: datetime = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    except ValueError:
        raise ConfigError("not a PEM certificate") from None
    return loaded


# --- private ---------------------------------------------------------------------------------------------------------


def _cryptography() -> Any:
    try:
        from cryptography import x509
    except ImportError:
        raise ConfigError("certificates need one more package: pip install 'friction-forwarder[certs]'") from None
    return x509


def _new_key() -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> "Name":
    x509 = _cryptography()
    if not 0 < len(text) <= MAX_COMMON_NAME or not text.isprintable():
        raise ConfigError(f"{text!r}: a certificate's name has 1 to {MAX_COMMON_NAME} printable characters")
    name: Name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])
    return name


def _general(text: str) -> Any:
    """`text` as a DNS name or an IP address."""
    x509 = _cryptography()
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError:
        raise ConfigError(f"{text!r} is neither a host name nor an IP address") from None


def _builder(subject: "Name", issuer: "Name", public_key: Any, now: datetime | None, days: int) -> Any:
    x509 = _cryptography()
    now = now or datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - BACKDATED).not_valid_after(now + timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)


def _key_usage(*, signs_certificates: bool) -> Any:
    return _cryptography().KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: Any, key: "EllipticCurvePrivateKey", signing_key: "EllipticCurvePrivateKey") -> Pair:
    from cryptography.hazmat.primitives import hashes, serialization

    certificate = builder.sign(signing_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(certificate.public_bytes(pem), private)


def _load(ca: Pair) -> "tuple[Certificate, EllipticCurvePrivateKey]":
    x509 = _cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        certificate: Certificate = x509.load_pem_x509_certificate(ca.certificate)
        key = serialization.load_pem_private_key(ca.key, password=None)
    except (ValueError, TypeError):
        raise ConfigError("the authority's certificate or key is not PEM, or the key has a passphrase") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise ConfigError("the authority's certificate and key do not belong together")
    return certificate, key
