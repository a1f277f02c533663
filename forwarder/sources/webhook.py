"""The webhook door: kube-apiserver's audit webhook, and whatever else posts audit events over HTTP.

    sources:
      webhook:
        listen: 0.0.0.0:9765
        token: ${WEBHOOK_TOKEN}                  # or users: {apiserver: …}, or tls.client_ca_file, or cluster_tokens
        tls: {cert_file: server.crt, key_file: server.key}

    curl -d @events.json -H "Authorization: Bearer $WEBHOOK_TOKEN" https://receiver:9765/audit

The answer is 200 when everything in the body is durable, and never a 4xx because of an event: kube-apiserver would send the
whole batch five times and then drop it. An event that cannot be read is a dead letter, the others count. While the outbox is
behind, the request waits; what waits too long gets a 503 with Retry-After, and is sent again. Bodies may be an EventList,
events alone, in an array or a line each, gzip, and the envelopes of the clouds (forwarder/envelopes).
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from forwarder.contracts import Batch, DeadLetter, Screen, Stopping, Submit
from forwarder.envelopes.batches import Gathering
from forwarder.envelopes.contents import Contents
from forwarder.envelopes.opening import open_message
from forwarder.errors import ConfigError, Overloaded, ShuttingDown
from forwarder.events import redact
from forwarder.settings import Address, parse_address, parse_bytes
from forwarder.telemetry import Telemetry
from forwarder.wire import listen
from forwarder.wire.budget import ByteBudget
from forwarder.wire.complaints import Complaints
from forwarder.wire.http_access import Access, Visitor
from forwarder.wire.http_body import Body
from forwarder.wire.http_server import Answer, Head, HttpConnection
from forwarder.wire.listen import TlsSettings

log = logging.getLogger(__name__)

PATHS: Final = ("/audit", "/k8s-audit", "/auditLogs")
MAX_BODY_BYTES: Final = (
    32 << 20
)  # kube-apiserver's batch of 400 events has 1 MB at level Metadata; its own bound is 10 MiB
MAX_CONNECTIONS: Final = 1024  # an apiserver opens one or two, and so does a log shipper
RETRY_INTERVAL_S: Final = 0.25  # an overloaded pipeline is asked again this often at least: answers wait for it
RETRY_AFTER_S: Final = 5.0  # asked of a client that was refused; kube-apiserver takes 10 s whatever is asked
OPEN_IN_THREAD_BYTES: Final = 256 << 10  # opening a larger body takes so long that others would wait for it
DRAIN_S: Final = 8.0  # below what the pipeline gives a source to stop
HEAD_BYTES: Final = 300


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one webhook door; sizes are bytes or text such as `32MiB`.

    listen: HOST:PORT, `:9765` for every interface, or unix:/path. Off this machine a way to know clients is required.
    paths: where events are taken; a query behind them is passed over.
    token: bearer token that clients send. Amazon Data Firehose sends it as its access key.
    users: user name -> password for HTTP basic.
    cluster_tokens: cluster name -> bearer token: who sends it is that cluster.
    tls: certificate and key of this door; with client_ca_file, clients need a certificate, and a token too where one is set.
    allow_anonymous: open the door to everybody who reaches it. Anyone can then invent events.
    cluster: name of the cluster whose events come in here; "": the global one.
    cluster_from_certificate: take it from the common name of the client's certificate instead (needs client_ca_file).
    cluster_from_envelope: take it from the envelope where AKS, EKS or GKE name it there.
    max_body_bytes: of one request, inflated; of a longer body the events up to there are used, the rest is a dead letter.
    max_connections: more are answered with 503.
    request_timeout_s: for a request to come completely, seconds; kube-apiserver gives up after 30 itself.
    ack_timeout_s: how long an answer may wait for the outbox, seconds; below the client's own limit.
    idle_timeout_s: a connection without a request is closed after so long, seconds; above the 90 of kube-apiserver.
    keep_raw_dead_letters: keep the bytes of records that gave no line, which may hold secrets.
    """

    listen: str = "127.0.0.1:9765"
    paths: list[str] = msgspec.field(default_factory=lambda: list(PATHS))
    token: str | None = None
    users: dict[str, str] = {}
    cluster_tokens: dict[str, str] = {}
    tls: TlsSettings | None = None
    allow_anonymous: bool = False
    cluster: str = ""
    cluster_from_certificate: bool = False
    cluster_from_envelope: bool = False
    max_body_bytes: int | str = MAX_BODY_BYTES
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = MAX_CONNECTIONS
    request_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0
    ack_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 20.0
    idle_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 120.0
    keep_raw_dead_letters: bool = False


class WebhookSource:
    """One webhook door. addresses: where it listens, once `started` was called."""

    def __init__(
        self,
        name: str,
        settings: WebhookSettings,
        screen: Screen,
        telemetry: Telemetry,
        cluster: str,
        *,
        budget: ByteBudget | None = None,
    ) -> None:
        """Raises ConfigError for settings that do not go together; opens nothing."""
        self.name = name
        self.addresses: list[Address] = []
        self._settings = settings
        self._screen = screen
        self._cluster = settings.cluster or cluster
        self._address = _checked(name, settings)
        self._access = Access(token=settings.token, users=settings.users, cluster_tokens=settings.cluster_tokens)
        self._paths = frozenset(settings.paths)
        self._connections: set[HttpConnection] = set()
        self._all_closed: asyncio.Event | None = None
        self._max_connections = settings.max_connections
        self._submit: Submit | None = None
        self._open = telemetry["forwarder_connections"].labels(name)
        self._closed = telemetry["forwarder_connections_closed"]
        self._received = telemetry["forwarder_source_bytes"].labels(name)
        self._answered = telemetry["forwarder_http_requests"]
        self._skipped = telemetry["forwarder_records_skipped"]
        self._complaints: Complaints | None = None
        # What wire.http_server.HttpDoor names:
        self.budget = budget or ByteBudget()
        self.tls: ssl.SSLContext | None = None
        self.max_body_bytes = parse_bytes(settings.max_body_bytes, where=f"sources.{name}.max_body_bytes")
        self.request_timeout_s = settings.request_timeout_s
        self.idle_timeout_s = settings.idle_timeout_s

    async def run(self, submit: Submit, stopping: Stopping, started: Callable[[], None]) -> None:
        """Until `stopping` is set and what came completely is answered. Raises ConfigError when it cannot open."""
        loop = asyncio.get_running_loop()
        where = f"sources.{self.name}"
        self._submit = submit
        self._complaints = Complaints(log, loop.time)
        if self._settings.tls:
            self.tls = listen.server_context(self._settings.tls, f"{where}.tls")
        elif self._access.required and not self._address.local:
            log.warning("%s: without `tls`, tokens and events cross the network for everybody to read", where)
        sockets = listen.bind(self._address, f"{where}.listen")
        self.addresses = [listen.bound_address(opened) for opened in sockets]
        self._max_connections = listen.allow_open_files(self._settings.max_connections)
        servers: list[asyncio.Server] = []
        try:
            servers = [
                await loop.create_server(lambda: HttpConnection(self), sock=opened, backlog=listen.BACKLOG)
                for opened in sockets
            ]
            log.info("%s: listening on %s", self.name, ", ".join(map(str, self.addresses)))
            started()
            await stopping.wait()
        finally:
            for server in servers:
                server.close()
            for opened in sockets:
                opened.close()
            for address in self.addresses:
                listen.remove(address)
            await self._drain()

    async def _drain(self) -> None:
        """Answer what has come completely, close everything; what takes too long is cut and comes again."""
        self._all_closed = asyncio.Event()
        for connection in tuple(self._connections):
            connection.stop()
        if not self._connections:
            return
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._all_closed.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.abort()

    # --- what the connections need (wire.http_server.HttpDoor) ---

    def admit(self, connection: HttpConnection) -> str:
        self._connections.add(connection)
        self._open.set(len(self._connections))
        if len(self._connections) > self._max_connections:
            return "too many connections\n"
        return ""

    def refuse(self, head: Head) -> Answer | None:
        """By path, method, credentials and encoding, before a byte of the body is read."""
        if head.path.rstrip("/") not in self._paths:
            places = ", ".join(sorted(self._paths))
            return Answer(status=404, body=f"audit events are taken at {places}\n".encode(), close=True)
        if head.method != "POST":
            return Answer(status=405, body=b"audit events are posted\n", headers={"Allow": "POST"}, close=True)
        if self._access.check(head.headers) is None:
            self.complain(head.peer, "auth", "refused: no token or password, or not the right one")
            challenge = {"WWW-Authenticate": self._access.challenge}
            return Answer(status=401, body=b"a token or password is needed\n", headers=challenge, close=True)
        if self._settings.cluster_from_certificate and not listen.certificate_identity(head.certificate).common_name:
            self.complain(head.peer, "auth", "refused: its certificate has no common name to take the cluster from")
            return Answer(status=403, body=b"the certificate has no common name\n", close=True)
        encoding = head.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "x-gzip", ""):
            return Answer(status=415, body=b"Content-Encoding must be gzip or identity\n", close=True)
        return None

    async def take(self, head: Head, body: Body) -> Answer:
        """See wire.http_server.HttpDoor."""
        visitor = self._access.check(head.headers) or Visitor()
        if len(body.data) > OPEN_IN_THREAD_BYTES:
            contents = await asyncio.to_thread(open_message, body.data, max_bytes=self.max_body_bytes)
        else:
            contents = open_message(body.data, max_bytes=self.max_body_bytes)
        batches = await self._batches(head, body, contents, self._cluster_of(head, visitor))
        received = sum(batch.received for batch in batches)
        try:
            async with asyncio.timeout(self._settings.ack_timeout_s):
                for batch in batches:
                    await self._until_taken(batch)
        except (Overloaded, TimeoutError):
            self.complain(
                head.peer,
                "overloaded",
                "not taken in time: the outbox, or a sink that blocks, is behind; it will send again",
            )
            return Answer(status=503, body=b"not durable now, send again\n", retry_after_s=RETRY_AFTER_S)
        except ShuttingDown:
            return Answer(status=503, body=b"shutting down, send again\n", retry_after_s=RETRY_AFTER_S, close=True)
        for reason, count in contents.skipped.items():
            self._skipped.labels(self.name, reason).inc(count)
        return self._done(head, body, received)

    async def _batches(self, head: Head, body: Body, contents: Contents, cluster: str) -> list[Batch]:
        settings = self._settings
        gathering = Gathering(
            self._screen,
            cluster=self._cluster,
            cluster_from_envelope=settings.cluster_from_envelope,
            keep_raw=settings.keep_raw_dead_letters,
        )
        origin = f"{self.name} {head.peer}"
        await gathering.add(contents, origin=origin, cluster=cluster)
        batches = list(gathering.batches())
        if body.fault:
            log.error(
                "%s: of a body %d bytes could not be used (%s); they are a dead letter",
                origin,
                body.rest_bytes,
                body.fault,
            )
            letter = DeadLetter(
                reason=body.fault,
                source=origin,
                size_bytes=body.rest_bytes,
                sha256=body.rest_sha256,
                offset=len(body.data),
                head=redact.head(body.data[:HEAD_BYTES]),
            )
            batches.append(
                Batch(origin=origin, cluster=cluster or self._cluster, received=1, lines=(), rejected=[letter])
            )
        return batches

    def _cluster_of(self, head: Head, visitor: Visitor) -> str:
        """As the authenticated identity says; "" where it says nothing."""
        if self._settings.cluster_from_certificate:
            return listen.certificate_identity(head.certificate).common_name
        return visitor.cluster

    async def _until_taken(self, batch: Batch) -> None:
        assert self._submit is not None
        while True:
            try:
                await self._submit(batch)
            except Overloaded as error:
                await asyncio.sleep(min(error.retry_after_s, RETRY_INTERVAL_S))
            else:
                return

    @staticmethod
    def _done(head: Head, body: Body, received: int) -> Answer:
        """Amazon Data Firehose wants its request's id back, everybody else a 200."""
        answer: dict[str, object] = {"received": received}
        if request_id := head.headers.get("x-amz-firehose-request-id"):
            answer = {"requestId": request_id, "timestamp": int(time.time() * 1000)}
        return Answer(status=200, body=msgspec.json.encode(answer), content_type="application/json")

    def received(self, size_bytes: int) -> None:
        self._received.inc(size_bytes)

    def answered(self, status: int) -> None:
        self._answered.labels(self.name, str(status)).inc()

    def complain(self, peer: str, kind: str, text: str, *, level: int = logging.WARNING) -> None:
        if self._complaints is not None:
            host = peer.rpartition(":")[0] or peer  # each try comes from another port
            self._complaints.say(f"{self.name}: {host}", kind, text, level=level)

    def closed(self, connection: HttpConnection, cause: str) -> None:
        self._connections.discard(connection)
        self._open.set(len(self._connections))
        self._closed.labels(self.name, cause).inc()
        if self._all_closed is not None and not self._connections:
            self._all_closed.set()


def _checked(name: str, settings: WebhookSettings) -> Address:
    """The address to listen on. Raises ConfigError for settings that do not go together."""
    where = f"sources.{name}"
    for setting, values in (("users", settings.users), ("cluster_tokens", settings.cluster_tokens)):
        if "" in values or "" in values.values():
            raise ConfigError("a name or a secret in it is empty", where=f"{where}.{setting}")
    if any(":" in user for user in settings.users):
        raise ConfigError("HTTP basic allows no `:` in a user's name", where=f"{where}.users")
    if settings.token == "":
        raise ConfigError("it is empty; give it a value, or remove it to do without", where=f"{where}.token")
    if not settings.paths or any(
        not path.startswith("/") or len(path) < 2 or path.endswith("/") for path in settings.paths
    ):
        raise ConfigError("each is a path such as /audit, without `/` at its end", where=f"{where}.paths")
    has_client_ca = settings.tls is not None and settings.tls.client_ca_file is not None
    if settings.cluster_from_certificate and not has_client_ca:
        raise ConfigError("it needs `tls.client_ca_file`", where=f"{where}.cluster_from_certificate")
    address = parse_address(settings.listen, where=f"{where}.listen", default_port=9765)
    known = bool(settings.token or settings.users or settings.cluster_tokens) or has_client_ca
    listen.refuse_strangers(
        address,
        known,
        settings.allow_anonymous,
        f"the webhook source `{name}`",
        ways="`token`, `users`, `cluster_tokens` or `tls.client_ca_file`",
    )
    return address
