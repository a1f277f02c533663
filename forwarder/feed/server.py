"""The feed's server: KubeArmor's `feeder.LogService`, with gRPC's own health and reflection services beside it.

    feed = Feed(settings, telemetry, cluster="prod-eu-1")
    address = feed.start(changed)                   changed(): whether it wants audit events is another matter now
    feed.friction(events);  feed.audit(events)      from the receiver; queues and returns
    feed.stop()

It runs in a thread and an event loop of its own, so that encoding and slow clients cost the receiver nothing but its
share of the interpreter. Filters are KubeArmor's: `all` and `policy` for alerts, `all` and `system` for logs, anything for
messages; any other word ends the stream at once with OK, as KubeArmor does.
"""

import asyncio
import contextlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from forwarder import __version__
from forwarder.errors import ConfigError
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.feed import mapping, schema
from forwarder.feed.audience import Audience, Dropped, Item, Stream, Watcher
from forwarder.feed.notices import Notices
from forwarder.feed.repeats import Repeats
from forwarder.feed.settings import FeedSettings, check
from forwarder.settings import Address
from forwarder.telemetry import Telemetry
from forwarder.wire.listen import bind

log = logging.getLogger(__name__)

MAX_STREAMS = 64  # open at once; each may hold a queue. KubeArmor sets no limit, its relay is a handful
MAX_REQUEST_BYTES = 64 << 10  # requests are a word and a number
DRAIN_S = 2.0  # for what still waits for clients when we stop; then their streams end
START_S = 10.0  # for gRPC to open a port: it does so at once or not at all
ALERT_FILTERS = frozenset({"all", "policy"})
LOG_FILTERS = frozenset({"all", "system"})

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # two processes on one port would each see half of the clients
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_concurrent_streams", 2 * MAX_STREAMS),  # of one connection: who is refused has to be told, not to wait
    # a client whose machine vanished is noticed within half a minute; KubeArmor asks every second
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # clients made for KubeArmor may ask as often as it does, too
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
)


class Feed:
    """A Tap with a door: `start` and `stop` once each."""

    def __init__(self, settings: FeedSettings, telemetry: Telemetry, *, cluster: str = "") -> None:
        """Opens nothing. Raises ConfigError. cluster: of what names none."""
        check(settings)
        if settings.address.path:
            raise ConfigError(f"{settings.listen} is a Unix socket; the feed needs HOST:PORT", where="feed.listen")
        self._settings = settings
        self._cluster = cluster
        self._alerts = Audience("alerts", max_events=settings.queue_events, telemetry=telemetry)
        self._logs = Audience("logs", max_events=settings.queue_events, telemetry=telemetry)
        self._messages = Audience("messages", max_events=settings.queue_events, telemetry=telemetry)
        self._sent = {name: telemetry["forwarder_feed_sent"].labels(name) for name in ("alerts", "logs", "messages")}
        self._notices = Notices(self._notify)
        self._repeats = Repeats()
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = asyncio.Event()
        self._wakes: set[Callable[[], None]] = set()  # of the open streams; the feed's thread only
        self._since_s = time.time()
        self._changed: Callable[[], None] = lambda: None

    def start(self, changed: Callable[[], None]) -> Address:
        """Open the door; the address with the real port. Raises ConfigError where it cannot be opened.

        changed: called from the feed's thread when `wants_audit` may have changed.
        """
        self._changed = changed
        address = self._settings.address
        for probe in bind(address, "feed.listen"):  # gRPC would only say that it failed
            probe.close()
        self._thread.start()
        port = self._started.result(START_S)
        self._notices.attach()
        return Address(host=address.host, port=port)

    def stop(self) -> None:
        """End all streams, once what waits for them is sent or DRAIN_S have passed. May be called without `start`."""
        self._notices.detach()
        if self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(DRAIN_S * 2)

    # --- the tap -----------------------------------------------------------------------------------------------------

    @property
    def wants_audit(self) -> bool:
        """Whether anybody watches audit events."""
        return bool(self._logs)

    def friction(self, events: Sequence[FrictionEvent]) -> None:
        """Show friction events to those who watch them; what is repeated because a batch was sent again only once."""
        if self._alerts and (fresh := self._repeats.without(events)):
            self._alerts.offer([Item(partial(_alert, event)) for event in fresh])

    def audit(self, events: Sequence[OutgoingEvent]) -> None:
        """Show audit events to those who watch them. They are kept as they are until the first client reads them."""
        if events and self._logs:
            self._logs.offer([Item(partial(_log, event), event.size_bytes) for event in events])

    def _notify(self, level: str, text: str, time_s: float) -> None:
        if self._messages:
            self._messages.offer([Item(partial(_message, level, text, self._cluster, time_s))])

    # --- the server, in its thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # whoever waits for the start must hear of it
            if not self._started.done():
                self._started.set_exception(error)
            else:
                log.exception("the feed ended")

    async def _serve(self) -> None:
        server = grpc.aio.server(options=_OPTIONS)
        health_servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        server.add_generic_rpc_handlers((self._handlers(),))
        _reflect(server)
        port = self._open(server)
        await server.start()
        for name in ("", schema.SERVICE):
            await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._loop = asyncio.get_running_loop()
        self._started.set_result(port)
        await self._closing.wait()
        await health_servicer.enter_graceful_shutdown()
        for wake in self._wakes:
            wake()
        await server.stop(DRAIN_S)

    def _open(self, server: Any) -> int:
        address, tls = str(self._settings.address), self._settings.tls
        try:
            if tls is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, _credentials(tls.cert_file, tls.key_file, tls.client_ca_file)))
        except RuntimeError:
            raise ConfigError(f"cannot listen on {address}; choose another address", where="feed.listen") from None

    def _handlers(self) -> Any:
        def stream(watch: Callable[[Any, Any], Any]) -> Any:
            return grpc.unary_stream_rpc_method_handler(watch, request_deserializer=schema.Request.FromString)

        return grpc.method_handlers_generic_handler(
            schema.SERVICE,
            {
                "HealthCheck": grpc.unary_unary_rpc_method_handler(
                    self._health_check,
                    request_deserializer=schema.Nonce.FromString,
                    response_serializer=schema.Reply.SerializeToString,
                ),
                "WatchMessages": stream(self._watch_messages),
                "WatchAlerts": stream(self._watch_alerts),
                "WatchLogs": stream(self._watch_logs),
            },
        )

    async def _health_check(self, request: Any, context: Any) -> Any:
        """Say the number back: `karmor` goes no further without it."""
        await self._authorize(context)
        return schema.Reply(Retval=request.nonce)

    async def _watch_alerts(self, request: Any, context: Any) -> None:
        await self._authorize(context)
        if request.Filter in ALERT_FILTERS:
            await self._watch(self._alerts, context)

    async def _watch_logs(self, request: Any, context: Any) -> None:
        await self._authorize(context)
        if request.Filter in LOG_FILTERS:
            await self._watch(self._logs, context)

    async def _watch_messages(self, _request: Any, context: Any) -> None:
        await self._authorize(context)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._since_s))
        hello = f"friction-forwarder {__version__} is up since {since} UTC"
        await self._watch(self._messages, context, mapping.message("INFO", hello, self._cluster, time.time()))

    async def _authorize(self, context: Any) -> None:
        if not self._settings.token:
            return
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        wanted = f"Bearer {self._settings.token}"
        if not hmac.compare_digest(str(given).encode("utf-8", "replace"), wanted.encode()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "send the feed's token as `authorization: Bearer …`")

    async def _watch(self, audience: Audience, context: Any, first: bytes = b"") -> None:
        """Send one client one stream, until it goes away or we stop. An empty queue when we stop ends it with OK."""
        if len(self._wakes) >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} streams are open; try again later")
        loop, something = asyncio.get_running_loop(), asyncio.Event()
        wake = something.set
        self._wakes.add(wake)

        def wake_from_anywhere() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(wake)

        watcher = audience.join(wake_from_anywhere)
        self._changed()
        log.info("%s watches %s", context.peer(), audience.stream)
        lost = 0
        try:
            # At once, so that a client knows that it watches from here on, not only when something happens.
            await context.send_initial_metadata(())
            if first:
                await context.write(first)
            while (taken := await self._next(watcher, something)) is not None:
                if isinstance(taken, Dropped):
                    if not lost:
                        log.warning("%s reads its %s too slowly and loses some", context.peer(), audience.stream)
                    lost += taken.count
                await self._send(context, audience.stream, taken)
        except grpc.aio.InternalError:
            pass  # how gRPC says that the client went away while something was written to it
        finally:
            audience.leave(watcher)
            self._changed()
            self._wakes.discard(wake)
            loss = f"; {lost} were lost to it" if lost else ""
            log.info("%s no longer watches %s%s", context.peer(), audience.stream, loss)

    async def _next(self, watcher: Watcher, something: asyncio.Event) -> Item | Dropped | None:
        """What is to be sent next; None when nothing waits and we stop."""
        while (taken := watcher.take()) is None and not self._closing.is_set():
            await something.wait()
            something.clear()
        return taken

    async def _send(self, context: Any, stream: Stream, taken: Item | Dropped) -> None:
        if isinstance(taken, Dropped):
            messages: Sequence[bytes] = (mapping.dropped(stream, taken.count, self._cluster),)
        else:
            messages = taken.messages()
        for message in messages:
            await context.write(message)
        self._sent[stream].inc(len(messages))


def _alert(event: FrictionEvent) -> Sequence[bytes]:
    return (mapping.alert(event),)


def _log(event: OutgoingEvent) -> Sequence[bytes]:
    # The few texts that are shown are redacted one by one, which costs a third of redacting the event with its bodies.
    # What an operator wants hidden besides is known only there.
    return (mapping.log(event.event if event.hides_more else event.original, event.cluster),)


def _message(level: str, text: str, cluster: str, time_s: float) -> Sequence[bytes]:
    return (mapping.message(level, text, cluster, time_s),)


def _reflect(server: Any) -> None:
    """Let grpcurl and its like ask what is here. The pool is ours, so what gRPC brings has to be put beside it."""
    for module in (health_pb2, reflection_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        with contextlib.suppress(TypeError):  # there already, from another feed of this process
            schema.POOL.Add(file)
    names = (schema.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=schema.POOL)


def _credentials(cert_file: str, key_file: str, client_ca_file: str | None) -> Any:
    with open(cert_file, "rb") as cert, open(key_file, "rb") as key:
        pair = (key.read(), cert.read())
    authority = None
    if client_ca_file:
        with open(client_ca_file, "rb") as file:
            authority = file.read()
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)
