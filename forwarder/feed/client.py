"""The feed's client: follows several feeds at once, comes back when one breaks off, and tells what was missed meanwhile.

    await follow(Target(address), ["alerts"], tell, stopping)      until `stopping` is set, or the feed will never be ours

`tell` gets everything in order: Seen (a message of a stream), Connected, Lost, Missed and GaveUp. A feed keeps nothing
for who is away, so what happened between Lost and Connected is in the outbox's sinks, not here. Any server of KubeArmor's
protocol will do: ours, KubeArmor, its relay.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
import grpc.aio
import msgspec

from forwarder.errors import ConfigError
from forwarder.feed import mapping, schema
from forwarder.feed.audience import Stream
from forwarder.settings import Address
from forwarder.tasks import cancel, spawn

FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 30.0  # a feed that is back is seen within half a minute, and a dead one costs nothing
STEADY_S: Final = 10.0  # a connection that held so long was a good one: the next retry is the first again
CONNECT_S: Final = 10.0

STREAMS: Final[dict[Stream, tuple[str, Any]]] = {
    "alerts": ("WatchAlerts", schema.Alert),
    "logs": ("WatchLogs", schema.Log),
    "messages": ("WatchMessages", schema.Message),
}

# Answers that the next attempt would get too: somebody has to change something.
_FINAL: Final = {
    grpc.StatusCode.UNAUTHENTICATED: "it does not take our token; give it with --token-file or FEED_TOKEN",
    grpc.StatusCode.PERMISSION_DENIED: "it does not let us in",
    grpc.StatusCode.UNIMPLEMENTED: "what listens there is no feed",
}
_BROKEN_WORDS: Final = "Socket closed"
_BROKEN: Final = "the connection broke off"  # while we watched; before that these words mean something else, below
# gRPC's words -> ours; the first that is found
_CAUSES: Final = (
    ("Connection refused", "nothing listens there"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not one that our authority has signed for that name; see --tls-ca",
    ),
    ("Hostname Verification", "its certificate is for another name; see --tls-name"),
    ("WRONG_VERSION_NUMBER", "it speaks no TLS; leave the --tls options out"),
    ("Ssl handshake failed", "the TLS handshake failed; it may want a certificate of ours (--tls-cert, --tls-key)"),
    ("Name or service not known", "there is no host of that name"),
    ("DNS resolution failed", "there is no host of that name"),
    (_BROKEN_WORDS, "it closed the connection; it may speak TLS only (--tls, --tls-ca)"),
    ("Endpoint closing", "it is shutting down"),
    ("No route to host", "there is no way to that host"),
    ("Deadline Exceeded", "it does not answer"),
)
MAX_WORDS_CHARS: Final = 200  # of gRPC's own, where we have none


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files. ca_file: "" for the authorities that gRPC brings. name: what the certificate must be for, where it is
    not the target's host.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    name: str = ""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One feed, and how to get in. token: as the server's setting."""

    address: Address
    tls: Tls | None = None
    token: str = ""

    def __str__(self) -> str:
        return str(self.address)


class Seen(msgspec.Struct, frozen=True):
    """One message. message: a schema.Alert, Log or Message."""

    target: str
    stream: Stream
    message: Any

    @property
    def dropped(self) -> int:
        """How many events the feed says it left out in this place; 0 for an event."""
        if self.stream == "messages" or self.message.Type != mapping.DROPPED_TYPE:
            return 0
        count = self.message.EventData.get(mapping.DROPPED, "")
        return int(count) if count.isdecimal() else 0


class Connected(msgspec.Struct, frozen=True):
    """We watch from here on."""

    target: str


class Missed(msgspec.Struct, frozen=True):
    """We watch again; what happened for so many seconds before was not seen."""

    target: str
    seconds: float


class Lost(msgspec.Struct, frozen=True):
    """The connection broke off, or there was none yet; it is tried again."""

    target: str
    reason: str


class GaveUp(msgspec.Struct, frozen=True):
    """The feed is not tried any more."""

    target: str
    reason: str


News = Seen | Connected | Missed | Lost | GaveUp
Tell = Callable[[News], None]


class _FinalError(Exception):
    """An answer that trying again does not change; the text says which."""


async def follow(target: Target, streams: Sequence[Stream], tell: Tell, stopping: asyncio.Event) -> None:
    """Tell everything until `stopping` is set or it gave up. Raises ConfigError for unreadable certificates, and what
    `tell` raises.
    """
    connection = _Connection(target, streams, tell, stopping)
    told, tries = "", 0
    while not stopping.is_set():
        began_s = time.monotonic()
        try:
            reason, watched = await connection.watch()
        except _FinalError as error:
            tell(GaveUp(str(target), str(error)))
            return
        if stopping.is_set():
            return
        if watched or reason != told:  # a feed that stays away is told once
            tell(Lost(str(target), reason))
            told = reason
        tries = 0 if time.monotonic() - began_s >= STEADY_S else tries + 1
        await _pause(_delay_s(tries), stopping)


class _Connection:
    """Connects to one feed, again and again; knows since when it sees nothing."""

    def __init__(self, target: Target, streams: Sequence[Stream], tell: Tell, stopping: asyncio.Event) -> None:
        self._target = target
        self._streams = streams
        self._tell = tell
        self._stopping = stopping
        self._credentials = _credentials(target.tls) if target.tls else None
        self._metadata = (("authorization", f"Bearer {target.token}"),) if target.token else ()
        self._blind_since_s: float | None = None

    async def watch(self) -> tuple[str, bool]:
        """Until it breaks off or we stop: why it ended, and whether it had begun. Raises _FinalError."""
        async with _channel(self._target, self._credentials) as channel:
            try:
                await _say_hello(channel, self._metadata)
            except grpc.aio.AioRpcError as error:
                return _words(error), False
            self._begin()
            try:
                return await self._read_all(channel), True
            finally:
                self._blind_since_s = time.monotonic()

    def _begin(self) -> None:
        name = str(self._target)
        self._tell(Connected(name))
        if self._blind_since_s is not None:
            self._tell(Missed(name, time.monotonic() - self._blind_since_s))

    async def _read_all(self, channel: Any) -> str:
        """Read the streams side by side until the first of them ends; why it did."""
        reading = [
            spawn(self._read(channel, stream), name=f"{stream} of {self._target}", failed=_raised_by_result)
            for stream in self._streams
        ]
        asked = spawn(self._stopping.wait(), name="asked to stop")
        try:
            done, _ = await asyncio.wait({*reading, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(asked, *reading)
        for task in done - {asked}:
            try:
                task.result()
            except grpc.aio.AioRpcError as error:
                return _BROKEN if _BROKEN_WORDS in str(error.details()) else _words(error)
        return "it ended the stream"

    async def _read(self, channel: Any, stream: Stream) -> None:
        method, kind = STREAMS[stream]
        call = channel.unary_stream(
            f"/{schema.SERVICE}/{method}",
            request_serializer=schema.Request.SerializeToString,
            response_deserializer=kind.FromString,
        )
        async for message in call(schema.Request(Filter="all"), metadata=self._metadata):
            self._tell(Seen(str(self._target), stream, message))


async def _say_hello(channel: Any, metadata: Any) -> None:
    """KubeArmor's own check that it is there and speaks the protocol."""
    nonce = random.randrange(1, 1 << 31)  # noqa: S311 - says only that somebody listens
    call = channel.unary_unary(
        f"/{schema.SERVICE}/HealthCheck",
        request_serializer=schema.Nonce.SerializeToString,
        response_deserializer=schema.Reply.FromString,
    )
    reply = await call(schema.Nonce(nonce=nonce), timeout=CONNECT_S, metadata=metadata)
    if reply.Retval != nonce:
        raise _FinalError("what listens there is no feed: it does not say our number back")


def _channel(target: Target, credentials: Any) -> Any:
    options: list[tuple[str, Any]] = [
        ("grpc.use_local_subchannel_pool", 1),  # each attempt connects anew: how long to wait is decided here
        ("grpc.keepalive_time_ms", 20_000),  # a server whose machine vanished is noticed
        ("grpc.keepalive_timeout_ms", 5_000),
    ]
    if target.address.local:
        options.append(("grpc.enable_http_proxy", 0))  # no proxy knows what our loopback is
    if target.tls is None:
        return grpc.aio.insecure_channel(str(target.address), options)
    if target.tls.name:
        options.append(("grpc.ssl_target_name_override", target.tls.name))
    return grpc.aio.secure_channel(str(target.address), credentials, options)


def _credentials(tls: Tls) -> Any:
    def read(path: str) -> bytes | None:
        if not path:
            return None
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise ConfigError(f"cannot read it: {error.strerror}", where=path) from None

    return grpc.ssl_channel_credentials(read(tls.ca_file), read(tls.key_file), read(tls.cert_file))


def _words(error: grpc.aio.AioRpcError) -> str:
    """Why, for a person. Raises _FinalError where trying again is of no use."""
    if error.code() in _FINAL:
        raise _FinalError(_FINAL[error.code()]) from None
    details = str(error.details() or "")
    for theirs, ours in _CAUSES:
        if theirs in details:
            return ours
    return f"{error.code().name.lower().replace('_', ' ')}: {details[:MAX_WORDS_CHARS]}"


def _delay_s(tries: int) -> float:
    """Twice as long each time, and never all clients of a feed at once."""
    most = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(max(tries - 1, 0), 10))
    return most * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, keeps no secret


async def _pause(delay_s: float, stopping: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), delay_s)
    except TimeoutError:
        pass


def _raised_by_result(_: BaseException) -> None:
    """`_read_all` raises it."""
