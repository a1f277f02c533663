"""The Forward door: Fluent Bit, Fluentd and the logging libraries that speak their protocol.

    sources:
      forward:
        listen: 0.0.0.0:24224               # or unix:/run/forwarder.sock
        shared_key: ${FORWARD_SHARED_KEY}   # or shared_key_file: /run/secrets/key
        users: {node: ${NODE_PASSWORD}}     # optional, on top of the key
        tls: {cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt}

Lines are screened where they were received; those that a rule may match are copied, and held until their message is
complete. A message is acknowledged when `submit` has returned for everything in it (wire/forward_connection.py).
"""

import asyncio
import hashlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from forwarder.contracts import Batch, DeadLetter, Line, Screen, Stopping, Submit, candidates
from forwarder.errors import ConfigError, ForwardProtocolError, MalformedEvent, ShuttingDown
from forwarder.events import redact
from forwarder.settings import Address, parse_address
from forwarder.tasks import cancel, spawn
from forwarder.telemetry import Telemetry
from forwarder.wire import forward_records, heartbeats, listen
from forwarder.wire.budget import ByteBudget
from forwarder.wire.complaints import Complaints
from forwarder.wire.fluent_forward import Entries, ForwardReceiver, Unreadable
from forwarder.wire.forward_connection import ForwardConnection
from forwarder.wire.forward_entries import Other
from forwarder.wire.forward_handshake import ServerHandshake
from forwarder.wire.listen import TlsSettings
from forwarder.wire.receive_buffer import BufferPool

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096  # two workers on each of 2000 nodes; an idle one holds about 5 KiB, with TLS 100 KiB
MAX_HELD_BYTES = 4 << 20  # of one message's candidates; a full Fluent Bit chunk has 2 MB of lines in all
MAX_HELD_LINES = 10_000  # the same for short lines, whose objects weigh more than their bytes
MAX_HELD_REJECTED = 1000  # a peer may send nothing but what becomes a dead letter
REJECTED_BYTES = 1000  # of a DeadLetter without its payload
LINE_OVERHEAD_BYTES = 120  # of a Line and its bytes object, beside the bytes
DRAIN_MARGIN_S = 2.0  # beyond ack_timeout_s, until connections that are still busy are cut at shutdown
ACCEPT_TURNS = 3  # of the event loop, until a connection that was accepted has come to us
SWEEP_INTERVAL_S = 1.0
HEAD_CHARACTERS = 300


class ForwardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one Forward door.

    listen: HOST:PORT, `:24224` for every interface, or unix:/path. Off this machine a shared key, a client CA or
    `allow_anonymous: true` is required. Default: this machine only, Fluent Bit's port.
    shared_key: what client and server prove to each other before data flows; without one there is no handshake, and a
    Fluent Bit that has one waits for it in silence.
    users: user name -> password, asked for on top of the shared key; empty: the key is enough.
    tls: certificate and key of this door; with client_ca_file, clients need a certificate too. Absent: no TLS.
    allow_anonymous: open the door to everybody who reaches it. Anyone can then invent events.
    cluster: name of the cluster whose events come in here; "": the global one.
    cluster_from_certificate: take it from the common name of the client's certificate instead (needs client_ca_file).
    log_key: the key under which a record carries the raw line; `log` is what Fluent Bit's tail input writes.
    max_connections: more are closed as they come. Fluent Bit opens one per worker, and more while it catches up.
    idle_timeout_s: a connection that is silent that long is closed, seconds; above 30, when clients close it themselves.
    ack_timeout_s: how long an acknowledgement may wait for the outbox before the connection is closed without it,
    seconds; below the client's net.io_timeout (5 in the shipped settings), so that we and not it decide.
    keep_raw_dead_letters: keep the bytes of records that gave no line, which may hold secrets.
    workers: processes that share the connections; one is enough for 400,000 lines a second. More than cores gain nothing.
    udp_heartbeat: answer Fluentd's `heartbeat_type udp` on the same port; its default and Fluent Bit need none.
    """

    listen: str = "127.0.0.1:24224"
    shared_key: str | None = None
    users: dict[str, str] = {}
    tls: TlsSettings | None = None
    allow_anonymous: bool = False
    cluster: str = ""
    cluster_from_certificate: bool = False
    log_key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = "log"
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = MAX_CONNECTIONS
    idle_timeout_s: Annotated[float, msgspec.Meta(gt=30, le=86_400)] = 120.0
    ack_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 3.0
    keep_raw_dead_letters: bool = False
    udp_heartbeat: bool = False
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class ForwardSource:
    """One Forward door. addresses: where it listens, once `started` was called."""

    def __init__(
        self,
        name: str,
        settings: ForwardSettings,
        screen: Screen,
        telemetry: Telemetry,
        cluster: str,
        *,
        budget: ByteBudget | None = None,
        max_connections: int = 0,
    ) -> None:
        """Raises ConfigError for settings that do not go together; opens nothing. max_connections: instead of the setting's."""
        self.name = name
        self.addresses: list[Address] = []
        self._settings = settings
        self._screen = screen
        self._cluster = cluster
        self._address = checked(name, settings)
        self._pool = BufferPool()
        self._connections: set[ForwardConnection] = set()
        self._all_closed: asyncio.Event | None = None
        self._max_connections = max_connections or settings.max_connections
        self._handing_over: set[asyncio.Task[Any]] = set()
        self._submit: Submit = _not_running
        self._open = telemetry["forwarder_connections"].labels(name)
        self._closed = telemetry["forwarder_connections_closed"]
        self._received = telemetry["forwarder_source_bytes"].labels(name)
        self._complaints: Complaints | None = None
        # What wire.forward_connection.Door names:
        self.budget = budget or ByteBudget()
        self.tls: ssl.SSLContext | None = None
        self.ack_timeout_s = settings.ack_timeout_s
        self.idle_timeout_s = settings.idle_timeout_s

    async def run(self, submit: Submit, stopping: Stopping, started: Callable[[], None]) -> None:
        """Until `stopping` is set and what was received is acknowledged. Raises ConfigError when it cannot open."""
        loop = asyncio.get_running_loop()
        where = f"sources.{self.name}"
        self._prepare(submit)
        sockets = listen.bind(self._address, f"{where}.listen")
        self.addresses = [listen.bound_address(opened) for opened in sockets]
        servers: list[asyncio.Server] = []
        answering: list[asyncio.DatagramTransport] = []
        sweeper = spawn(self._sweep(loop), name=f"{self.name} sweeper")
        try:
            servers += [
                await loop.create_server(lambda: ForwardConnection(self), sock=opened, backlog=listen.BACKLOG)
                for opened in sockets
            ]
            if self._settings.udp_heartbeat:
                answering += await heartbeats.answer(self.addresses, where)
            log.info("%s: listening on %s", self.name, ", ".join(map(str, self.addresses)))
            started()
            await stopping.wait()
        finally:
            # A server that closes drops a connection that it has accepted and not yet handed over, without a word.
            for opened in sockets:
                loop.remove_reader(opened)
            for _ in range(ACCEPT_TURNS):
                await asyncio.sleep(0)
            for server in servers:
                server.close()
            for transport in answering:
                transport.close()
            for opened in sockets:
                opened.close()
            for address in self.addresses:
                listen.remove(address)
            await self._drain()
            await cancel(sweeper)

    async def serve(self, submit: Submit, stopping: Stopping, started: Callable[[], None]) -> None:
        """As `run`, for connections that another process accepts and that `take` is given."""
        self._prepare(submit)
        sweeper = spawn(self._sweep(asyncio.get_running_loop()), name=f"{self.name} sweeper")
        try:
            started()
            await stopping.wait()
            if self._handing_over:
                await asyncio.wait(self._handing_over)
        finally:
            await self._drain()
            await cancel(sweeper)

    def take(self, accepted: socket.socket) -> None:
        """Serve a connection that is open already."""
        accepted.setblocking(False)
        loop = asyncio.get_running_loop()
        task = spawn(
            loop.connect_accepted_socket(lambda: ForwardConnection(self), accepted), name=f"{self.name} accepted"
        )
        self._handing_over.add(task)
        task.add_done_callback(self._handing_over.discard)

    def _prepare(self, submit: Submit) -> None:
        where = f"sources.{self.name}"
        self._submit = submit
        self._complaints = Complaints(log, asyncio.get_running_loop().time)
        if self._settings.tls:
            self.tls = listen.server_context(self._settings.tls, f"{where}.tls")
        wanted = self._max_connections
        self._max_connections = listen.allow_open_files(wanted)
        if self._max_connections < wanted:
            log.warning(
                "%s: only %d connections at once, the limit of open files (ulimit -n) allows no more",
                where,
                self._max_connections,
            )

    async def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            for connection in tuple(self._connections):
                connection.sweep(loop.time())

    async def _drain(self) -> None:
        """Acknowledge what has come completely, close everything; what takes too long is cut."""
        self._all_closed = asyncio.Event()
        for connection in tuple(self._connections):
            connection.stop()
        if not self._connections:
            return
        try:
            async with asyncio.timeout(self.ack_timeout_s + DRAIN_MARGIN_S):
                await self._all_closed.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.abort()
            async with asyncio.timeout(DRAIN_MARGIN_S):
                await self._all_closed.wait()

    # --- what the connections need (wire.forward_connection.Door) ---

    def admit(self, connection: ForwardConnection) -> str:
        self._connections.add(connection)
        self._open.set(len(self._connections))
        if len(self._connections) > self._max_connections:
            return f"closed, {self._max_connections} connections are open; raise max_connections or add receivers"
        return ""

    def receiver(self) -> tuple[ForwardReceiver, ServerHandshake | None]:
        settings = self._settings
        handshake = ServerHandshake(settings.shared_key, settings.users) if settings.shared_key else None
        return ForwardReceiver(log_key=settings.log_key, handshake=handshake, pool=self._pool), handshake

    def gatherer(self, peer: str, certificate: Any) -> "Gatherer":
        cluster = self._cluster
        if self._settings.cluster_from_certificate:
            cluster = listen.certificate_identity(certificate).common_name
            if not cluster:
                raise ForwardProtocolError("its certificate has no common name to take the cluster from")
        return Gatherer(
            self._screen,
            log_key=self._settings.log_key,
            origin=f"{self.name} {peer}",
            cluster=cluster,
            keep_raw=self._settings.keep_raw_dead_letters,
        )

    async def submit(self, batch: Batch) -> None:
        await self._submit(batch)

    def received(self, size_bytes: int) -> None:
        self._received.inc(size_bytes)

    def complain(self, peer: str, kind: str, text: str, *, level: int = logging.WARNING) -> None:
        if self._complaints is not None:
            host = peer.rpartition(":")[0] or peer  # each try comes from another port
            self._complaints.say(f"{self.name}: {host}", kind, text, level=level)

    def closed(self, connection: ForwardConnection, cause: str) -> None:
        self._connections.discard(connection)
        self._open.set(len(self._connections))
        self._closed.labels(self.name, cause).inc()
        if self._all_closed is not None and not self._connections:
            self._all_closed.set()


class Gatherer:
    """Makes batches of the entries of one connection: screens in place, copies candidates, keeps bad records."""

    def __init__(self, screen: Screen, *, log_key: str, origin: str, cluster: str, keep_raw: bool) -> None:
        self._screen = screen
        self._ask: Callable[..., bool] | None = getattr(screen, "request", None)  # not every screen can say it
        self._log_key = log_key
        self._decode = forward_records.decoder(log_key)
        self._origin = origin
        self._cluster = cluster
        self._keep_raw = keep_raw
        self._lines: list[Line] = []
        self._rejected: list[DeadLetter] = []
        self._received = 0
        self.held_bytes = 0

    @property
    def full(self) -> bool:
        """Whether a batch should be taken before the message is complete."""
        return (
            self.held_bytes >= MAX_HELD_BYTES
            or len(self._lines) >= MAX_HELD_LINES
            or len(self._rejected) >= MAX_HELD_REJECTED
        )

    def batch(self) -> Batch:
        """All that was gathered since the last call."""
        batch = Batch(
            origin=self._origin,
            received=self._received,
            lines=self._lines,
            rejected=self._rejected,
            cluster=self._cluster,
        )
        self._lines, self._rejected, self._received, self.held_bytes = [], [], 0, 0
        return batch

    def add(self, entries: Entries) -> None:
        """Screen some entries, in place."""
        screen, buffer = self._screen, entries.buffer
        self._received += len(entries.spans) + len(entries.others)
        for position in candidates(screen, buffer, entries.spans):
            start, end = entries.spans[position]
            self._keep(bytes(buffer[start:end]), entries, entries.starts[position])
        if entries.others:
            with memoryview(buffer) as view:
                for other in entries.others:
                    if self._may_match(view, other):
                        self._add_other(entries, other)

    def _may_match(self, view: memoryview, other: Other) -> bool:
        """Whether a record has to become a line: it is no parsed event, or one that a rule may match."""
        if self._ask is None or self._decode is None:
            return True
        asked = forward_records.asked(view, other, self._decode)
        return asked is None or self._ask(*asked)

    def _add_other(self, entries: Entries, other: Other) -> None:
        try:
            line = forward_records.to_line(entries.buffer, other, self._log_key)
        except MalformedEvent as malformed:
            self._reject(malformed.reason, entries, other)
        else:
            if self._screen(line, 0, len(line)):
                self._keep(line, entries, other.start)

    def add_unreadable(self, rest: Unreadable) -> None:
        """The rest of a blob, as one record that could not be read."""
        self._received += 1
        letter = DeadLetter(
            reason="unreadable_rest",
            source=self._origin,
            size_bytes=rest.size_bytes,
            sha256=rest.sha256,
            offset=rest.offset,
        )
        self._rejected.append(letter)
        self.held_bytes += REJECTED_BYTES

    def _keep(self, line: bytes, entries: Entries, at: int) -> None:
        line = line.rstrip(b"\r\n")
        if not line or line.isspace():
            return  # Fluent Bit sends empty lines of a file as empty records: no event, and nothing wrong
        self._lines.append(Line(data=line, time_s=entries.time_s(at), offset=at + entries.offset))
        self.held_bytes += len(line) + LINE_OVERHEAD_BYTES

    def _reject(self, reason: str, entries: Entries, entry: Other) -> None:
        data = bytes(entries.buffer[entry.start : entry.stop])
        letter = DeadLetter(
            reason=reason,
            source=self._origin,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            offset=entry.start + entries.offset,
            # Names only: redaction knows secrets by the JSON around them, which msgpack does not have.
            head=redact.text(", ".join(forward_records.keys(entries.buffer, entry)), HEAD_CHARACTERS),
            payload=data if self._keep_raw else None,
        )
        self._rejected.append(letter)
        self.held_bytes += REJECTED_BYTES + (len(data) if self._keep_raw else 0)


def checked(name: str, settings: ForwardSettings) -> Address:
    """The address to listen on. Raises ConfigError for settings that do not go together."""
    where = f"sources.{name}"
    if settings.shared_key == "":
        raise ConfigError("it is empty; give it a value, or remove it to do without", where=f"{where}.shared_key")
    if settings.users and not settings.shared_key:
        raise ConfigError(
            "users need a `shared_key` beside them, the protocol has no other way", where=f"{where}.users"
        )
    if "" in settings.users or "" in settings.users.values():
        raise ConfigError("a user name or password is empty", where=f"{where}.users")
    has_client_ca = settings.tls is not None and settings.tls.client_ca_file is not None
    if settings.cluster_from_certificate and not has_client_ca:
        raise ConfigError("it needs `tls.client_ca_file`", where=f"{where}.cluster_from_certificate")
    address = parse_address(settings.listen, where=f"{where}.listen", default_port=24224)
    known = bool(settings.shared_key) or has_client_ca
    listen.refuse_strangers(address, known, settings.allow_anonymous, f"the Forward source `{name}`")
    return address


async def _not_running(_: Batch) -> None:
    raise ShuttingDown("this source does not run")
