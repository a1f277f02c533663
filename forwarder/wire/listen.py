"""Opening doors: listening sockets, TLS for servers, and the rule that no door is open to strangers.

Everything that can go wrong here is a person's to mend, so all of it is a ConfigError that says what to do.
"""

import asyncio.sslproto
import contextlib
import errno
import os
import resource
import socket
import ssl
import stat
from typing import Any

import msgspec

from forwarder.errors import ConfigError
from forwarder.settings import Address

BACKLOG = 1024  # connections that wait for us to accept them: all agents of a large cluster coming back at once
SOCKET_MODE = 0o660  # a Unix socket is for its owner and group; everybody else has no business there
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# What asyncio allocates for every TLS connection before it knows who comes. Its own 256 KiB would be 1 GiB for 4096
# strangers; this costs a seventh more CPU per event over TLS.
TLS_BUFFER_BYTES = 64 << 10
OTHER_FILES = 128  # open files that are not connections: outbox, logs, sinks


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS of a listener; all three are PEM files.

    cert_file: our certificate and its chain. key_file: its private key, without a passphrase.
    client_ca_file: if given, clients must show a certificate that this CA has signed (mutual TLS).
    """

    cert_file: str
    key_file: str
    client_ca_file: str | None = None


SHARED_KEY = "`shared_key`, or FORWARD_SHARED_KEY where no settings file is"


def refuse_strangers(
    address: Address, authenticated: bool, allow_anonymous: bool, what: str, *, ways: str = SHARED_KEY
) -> None:
    """Raises ConfigError where `what` would listen beyond this machine without knowing who comes; `ways` to know them."""
    if not (address.local or authenticated or allow_anonymous):
        raise ConfigError(
            f"{what} would take data from anyone who reaches {address}. Give it a way to know its clients ({ways}), "
            "listen on 127.0.0.1, or write `allow_anonymous: true`"
        )


def bind(address: Address, where: str = "listen") -> list[socket.socket]:
    """Listening sockets for `address`, one for each of its IP addresses. Raises ConfigError."""
    if address.path:
        return [_bind_unix(address, where)]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigError(f"{address}: no such host; write an IP address of this machine", where=where) from None
    targets = list(dict.fromkeys((family, target) for family, _, _, _, target in found))
    sockets: list[socket.socket] = []
    for family, target in targets:
        # Port 0 is chosen once, for all addresses of the host.
        port = address.port or (sockets[0].getsockname()[1] if sockets else 0)
        try:
            sockets.append(_listening(family, (target[0], port, *target[2:]), both=address.host == "::"))
        except OSError as error:
            if error.errno in _NOT_HERE and len(targets) > 1:
                continue  # `localhost` is also ::1, which a container without IPv6 does not have
            for other in sockets:
                other.close()
            raise ConfigError(_why(error, address), where=where) from None
    if not sockets:
        raise ConfigError(_why(OSError(errno.EADDRNOTAVAIL, ""), address), where=where)
    return sockets


def _listening(family: int, target: tuple[Any, ...], *, both: bool) -> socket.socket:
    """both: an IPv6 socket takes IPv4 too; meant for `[::]`, every interface."""
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        opened.bind(target)
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def bound_address(opened: socket.socket) -> Address:
    """Where a socket listens, with the port that the system chose."""
    name = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return Address(path=str(name))
    return Address(host=str(name[0]), port=int(name[1]))


def remove(address: Address) -> None:
    """Remove the file of a Unix socket that is closed; nothing to do for other addresses."""
    if address.path:
        with contextlib.suppress(OSError):
            os.unlink(address.path)


def _bind_unix(address: Address, where: str) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(address.path, where)
        opened.bind(address.path)
        os.chmod(address.path, SOCKET_MODE)  # before `listen`, so nobody gets in earlier
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise ConfigError(_why(error, address), where=where) from None
    except ConfigError:
        opened.close()
        raise
    return opened


def _remove_stale(path: str, where: str) -> None:
    """Remove the socket file of a process that is gone. Anything else at that path is left alone."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigError(f"{path} exists and is no socket; remove it or choose another path", where=where)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise ConfigError(f"another process listens on {path}; stop it or choose another path", where=where)


def _why(error: OSError, address: Address) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use by another process; stop that one or choose another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "the folder must be writable for this user" if address.path else "choose a port above 1023"
        return f"not allowed to listen on {address}; {hint}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {address.host}; write one that it has, or 0.0.0.0 for all"
    if error.errno == errno.ENOENT:
        return f"the folder of {address.path} does not exist; create it"
    return f"cannot listen on {address}: {error.strerror or error}"


def allow_open_files(connections: int) -> int:
    """Raise this process' limit of open files for that many connections, as far as allowed; how many fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - OTHER_FILES))


# --- TLS -------------------------------------------------------------------------------------------------------------


def server_context(settings: TlsSettings, where: str = "tls") -> ssl.SSLContext:
    """TLS 1.2 or newer, as `settings` say. Raises ConfigError for files that are missing, unreadable or do not fit."""
    asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name in ("cert_file", "key_file", "client_ca_file"):
        _readable(getattr(settings, name), f"{where}.{name}")
    try:
        # The password is asked for only if the key is encrypted; without it OpenSSL would ask on the terminal.
        context.load_cert_chain(settings.cert_file, settings.key_file, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ConfigError("`cert_file` and `key_file` do not belong together", where=where) from None
        raise ConfigError(
            "cannot use `cert_file` and `key_file`: both must be PEM, and the key must have no passphrase", where=where
        ) from None
    if settings.client_ca_file:
        try:
            context.load_verify_locations(settings.client_ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigError("no PEM certificate in it", where=f"{where}.client_ca_file") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _readable(path: str | None, where: str) -> None:
    if path is None:
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", where=where) from None


class Identity(msgspec.Struct, frozen=True):
    """Who a verified certificate is about. common_name: "" where it has none. names: its DNS names, URIs and addresses."""

    common_name: str = ""
    names: tuple[str, ...] = ()


def certificate_identity(certificate: Any) -> Identity:
    """The identity in what `SSLSocket.getpeercert()` gave: a dict, empty or None where the peer showed no certificate."""
    certificate = certificate or {}
    subject = {key: value for part in certificate.get("subject", ()) for key, value in part}
    return Identity(
        common_name=str(subject.get("commonName", "")),
        names=tuple(str(value) for _, value in certificate.get("subjectAltName", ())),
    )


_TLS_FAULTS = {
    "HTTP_REQUEST": "plain HTTP came to a TLS door",
    "WRONG_VERSION_NUMBER": "what came is not TLS; turn `tls` on at the client",
    "UNSUPPORTED_PROTOCOL": "the client speaks only TLS versions below 1.2",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate; give it one that `client_ca_file` has signed",
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not one that `client_ca_file` has signed, or has expired",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust our certificate; give it the CA that has signed it",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept our certificate; check the host name that it expects",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept our certificate; check the host name that it expects",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired for the client; renew it or check the clocks",
    "NO_SHARED_CIPHER": "client and server have no cipher in common",
}


def explain_tls(error: Exception) -> str:
    """What a failed TLS handshake says about the client, and what to do; "" where it only went away."""
    reason = str(getattr(error, "reason", "") or "")
    if not isinstance(error, ssl.SSLError):
        return "" if isinstance(error, OSError) else "the TLS handshake failed"
    return _TLS_FAULTS.get(
        reason, f"the TLS handshake failed ({reason.replace('_', ' ').lower() or 'no reason given'})"
    )
