"""The way to the receiver: directly, or by HTTP CONNECT through a proxy behind a Unix socket or behind mutual TLS.

`dial` opens one connection and gives its transport to the protocol that is to use it. What the proxy sends behind its
`200` belongs to the tunnel and reaches that protocol first. TLS to the receiver is none of our business here: it runs
inside, from Fluent Bit to the receiver.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

import msgspec

from forwarder.errors import ConfigError, ForwarderError

DIAL_TIMEOUT_S = 5.0  # for connect, TLS and CONNECT together; Fluent Bit gives a connection 5 s to answer
QUEUE_FULL_PAUSE_S = 0.02
MAX_HEAD_BYTES = 16 << 10  # of the proxy's answer: what h11 allows; konnectivity's is 40 bytes, squid's refusals 500

P = TypeVar("P", bound=asyncio.Protocol)


class TunnelError(ForwarderError):
    """The receiver cannot be reached on this way; the text says which hop said what. `cause` is a metric label."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Target(msgspec.Struct, frozen=True):
    """Where the receiver is, as seen from the end of the way."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Direct(msgspec.Struct, frozen=True):
    """The Service can be reached from here."""

    def __str__(self) -> str:
        return "directly"


class UnixProxy(msgspec.Struct, frozen=True):
    """HTTP CONNECT over a Unix socket, as konnectivity-server offers it to its apiserver."""

    path: str

    def __str__(self) -> str:
        return f"by HTTP CONNECT over {self.path}"


class TlsProxy(msgspec.Struct, frozen=True):
    """HTTP CONNECT over mutual TLS. The files are read at every dial, so that rotated ones need no notice."""

    host: str
    port: int
    ca_file: str
    crt_file: str
    key_file: str

    def __str__(self) -> str:
        return f"by HTTP CONNECT over TLS to {self.host}:{self.port}"

    def context(self) -> ssl.SSLContext:
        """Verifies the proxy by its name, and shows our certificate. Raises ConfigError."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"cannot use {self.ca_file}: {_reason(error)}", where="proxy-ca-file") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.crt_file, self.key_file, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            where = f"{self.crt_file} with {self.key_file}"
            raise ConfigError(f"cannot use {where}: {_reason(error)}", where="proxy-client-crt-file") from None
        return context


Way = Direct | UnixProxy | TlsProxy


async def dial(way: Way, target: Target, protocol: Callable[[], P], *, timeout_s: float = DIAL_TIMEOUT_S) -> P:
    """A connection to `target`, given to a new `protocol()`. Raises TunnelError; nothing is left open then."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            if isinstance(way, Direct):
                _, made = await loop.create_connection(protocol, target.host, target.port)
                return made
            return await _connect_through(way, target, protocol)
    except TimeoutError:
        raise TunnelError("timeout", f"{target} {way}: no answer within {timeout_s:g} s") from None
    except ConfigError as error:
        raise TunnelError("proxy_files", str(error)) from None
    except ssl.SSLError as error:
        raise TunnelError("proxy_tls", f"{target} {way}: {_reason(error)}") from None
    except OSError as error:
        raise TunnelError("connect", f"{target} {way}: {_reason(error)}") from None


async def _connect_through(way: UnixProxy | TlsProxy, target: Target, protocol: Callable[[], P]) -> P:
    loop = asyncio.get_running_loop()
    if isinstance(way, UnixProxy):
        connected = await _unix_socket(way.path)
        transport, asking = await loop.create_unix_connection(lambda: _Asking(target), sock=connected)
    else:
        transport, asking = await loop.create_connection(
            lambda: _Asking(target), way.host, way.port, ssl=way.context(), server_hostname=way.host
        )
    try:
        rest = await asking.answer
        if transport.is_closing():
            raise TunnelError("proxy_closed", "the proxy closed the connection right behind its answer")
        made = protocol()
        transport.set_protocol(made)
        made.connection_made(transport)
        if rest:
            made.data_received(rest)
        transport.resume_reading()
        if asking.ended:
            made.eof_received()
        return made
    except BaseException as error:
        transport.abort()
        if isinstance(error, TunnelError):
            raise TunnelError(error.cause, f"{target} {way}: {error}") from None
        raise


async def _unix_socket(path: str) -> socket.socket:
    """A connected one. Where the queue of the listener is full, connect fails at once and there is nothing to wait on, so it is
    tried again until `dial` runs out of time; asyncio would take such a socket for a connected one.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    try:
        while True:
            try:
                made.connect(path)
                return made
            except BlockingIOError:
                await asyncio.sleep(QUEUE_FULL_PAUSE_S)
    except BaseException:
        made.close()
        raise


class _Asking(asyncio.Protocol):
    """Says CONNECT and reads up to the end of the answer's head; `answer` is what came behind it."""

    def __init__(self, target: Target) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.ended = False
        self._target = target
        self._head = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(f"CONNECT {self._target} HTTP/1.1\r\nHost: {self._target}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if self.answer.done():
            return
        if end < 0:
            if len(self._head) > MAX_HEAD_BYTES:
                self._fail("proxy_answer", "what the proxy answers is no HTTP")
            return
        # Nothing more until the tunnel's own protocol is in place: it would come to this one.
        with contextlib.suppress(RuntimeError):
            self._transport.pause_reading()
        status = re.match(rb"HTTP/1\.[01] ([0-9]{3})(?: ([ -~]{0,80}))?", self._head)
        if status is None:
            self._fail("proxy_answer", "what the proxy answers is no HTTP")
        elif not 200 <= int(status.group(1)) < 300:
            words = (status.group(2) or b"").decode()
            self._fail(
                f"proxy_{status.group(1).decode()}", f"the proxy answers {int(status.group(1))} {words}".rstrip()
            )
        else:
            self.answer.set_result(bytes(self._head[end + 4 :]))

    def eof_received(self) -> bool:
        self.ended = True
        self._fail("proxy_closed", "the proxy closed the connection without an answer")
        return self._transport.can_write_eof()  # TLS has no half of a connection to keep open

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("proxy_closed", "the proxy closed the connection without an answer")

    def _fail(self, cause: str, message: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(TunnelError(cause, message))


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS failed").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
