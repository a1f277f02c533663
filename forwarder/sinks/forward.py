"""Sends events on to another Fluent Bit, Fluentd or receiver over the Fluent Forward protocol, with acknowledgements.

    sinks:
      collector:
        type: forward
        stream: audit
        address: collector.logging:24224
        tag: kube.audit
        shared_key: ${COLLECTOR_KEY}
        tls: {ca_file: /etc/forwarder/collector-ca.crt}

Each batch is one PackedForward message with a chunk id, and counts as delivered when the server has acknowledged it.
At-least-once: an acknowledgement that got lost makes the batch go again; a friction event has its `id`, an audit event
its auditID and stage. Without `ack` it counts when it is written to the socket, which may lose what was under way.
"""

import base64
import random
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from forwarder.contracts import Done, Later, Outcome, StreamSettings
from forwarder.errors import ConfigError, ForwardProtocolError
from forwarder.events import friction
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.settings import parse_address
from forwarder.telemetry import Telemetry
from forwarder.wire.deadline import Overdue
from forwarder.wire.forward_client import entry, packed_forward
from forwarder.wire.forward_sender import ForwardSender
from forwarder.wire.pacing import Backoff

BACKOFF_BASE_S, BACKOFF_CAP_S = 0.5, 30.0
OPERATOR_DELAY_S = 30.0  # a key or a certificate does not mend itself
CHUNK_BYTES = 16


class ForwardTls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ca_file: PEM file of the authority to trust instead of the system's. server_name: whose certificate is expected, where
    it is not the address's host. cert_file, key_file: PEM files, where the server asks for a certificate.
    """

    ca_file: str = ""
    server_name: str = ""
    cert_file: str = ""
    key_file: str = ""


class ForwardSinkSettings(StreamSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Beside what every sink of a stream has:

    address: HOST:PORT or unix:/path of the server. tag: of all events. log_key: the key under which the event stands as one
    line of JSON, as a tail without a parser sends it; empty sends the event's own fields as the record.
    tls: settings of TLS; `{}` is TLS with the system's authorities. shared_key: what both sides prove to each other.
    user, password: where the server asks for them. compress: gzip, or nothing. ack: whether to wait for acknowledgements.
    batch_events: in one message. timeout_s: for one message and its acknowledgement in all.
    updates: whether the end of a session is sent with the same id again (friction events only).
    required: whether acks wait when too many friction events wait for this sink; else the oldest become dead letters.
    """

    address: str = "127.0.0.1:24224"
    tag: str = "friction"
    log_key: str = "log"
    tls: ForwardTls | None = None
    shared_key: str | None = None
    user: str = ""
    password: str | None = None
    compress: Literal["", "gzip"] = ""
    ack: bool = True
    batch_events: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=300)] = 10.0
    updates: bool = True
    required: bool = False

    def __repr__(self) -> str:  # keys must not come out by way of a traceback or a debugger's log
        return f"ForwardSinkSettings(address={self.address!r})"


class ForwardSink:
    """A `contracts.Sink` and `contracts.AuditSink`."""

    def __init__(
        self,
        name: str,
        settings: ForwardSinkSettings,
        telemetry: Telemetry | None = None,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Raises ConfigError."""
        where = f"sinks.{name}"
        self.name = name
        self.takes_updates = settings.updates
        self.required = settings.required
        self.batch_events = settings.batch_events
        self._settings = settings
        if not settings.tag or not settings.tag.isprintable():
            raise ConfigError("`tag` must be a word that the server's configuration matches", where=where)
        if (settings.user or settings.password) and not settings.shared_key:
            raise ConfigError(
                "`user` and `password` go with a `shared_key`: the protocol asks for it first", where=where
            )
        self._sender = ForwardSender(
            parse_address(settings.address, where=f"{where}.address", default_port=24224),
            shared_key=settings.shared_key or "",
            user=settings.user,
            password=settings.password or "",
            tls=_context(settings.tls, where) if settings.tls is not None else None,
            server_name=settings.tls.server_name if settings.tls is not None else "",
        )
        self._backoff = Backoff(base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S, chance=chance)

    def deliver(self, events: Sequence[FrictionEvent] | Sequence[OutgoingEvent]) -> Sequence[Outcome]:
        """The same outcome for all: they are one message."""
        chunk = base64.b64encode(secrets.token_bytes(CHUNK_BYTES)) if self._settings.ack else None
        entries = [entry(_record(event, self._settings.log_key), _time_s(event)) for event in events]
        frame = packed_forward(self._settings.tag.encode(), entries, chunk=chunk, compress=self._settings.compress)
        try:
            self._sender.send(frame, chunk=chunk, deadline_s=self._settings.timeout_s)
        except (OSError, ForwardProtocolError, Overdue) as error:
            return [self._later(error)] * len(events)
        self._backoff.reset()
        return [Done()] * len(events)

    def probe(self, deadline_s: float) -> str:
        """Why the server does not let us in; empty when it does. Sends no event."""
        try:
            self._sender.probe(deadline_s)
        except (OSError, ForwardProtocolError, Overdue) as error:
            return self._later(error).reason
        return ""

    def close(self) -> None:
        self._sender.close()

    def _later(self, error: Exception) -> Later:
        delay_s = self._backoff.next_s()
        if isinstance(error, ssl.SSLCertVerificationError):
            delay_s, words = OPERATOR_DELAY_S, f"its certificate is not trusted ({error.verify_message})"
        elif isinstance(error, ssl.SSLError):
            words = f"TLS failed ({getattr(error, 'reason', None) or 'connection closed'})"
        elif isinstance(error, ForwardProtocolError):
            words = str(error)
            if "refused" in words or "shared key" in words:
                delay_s = OPERATOR_DELAY_S
        elif isinstance(error, TimeoutError | Overdue):
            words = f"no acknowledgement within {self._settings.timeout_s:g} s"
        else:
            words = getattr(error, "strerror", None) or type(error).__name__
        return Later(delay_s, f"{self._settings.address}: {words}")


def _record(event: FrictionEvent | OutgoingEvent, log_key: str) -> dict[str, Any]:
    line = event.json if isinstance(event, OutgoingEvent) else friction.encode(event)
    if log_key:
        return {log_key: line.decode("utf-8", "surrogateescape")}
    fields: dict[str, Any] = msgspec.json.decode(line)
    return fields


def _time_s(event: FrictionEvent | OutgoingEvent) -> float:
    """The event's own time, Unix seconds; now where it has none that the protocol can carry."""
    if isinstance(event, OutgoingEvent):
        stamp = event.original.stage_timestamp or event.original.request_received_timestamp
    else:
        stamp = event.timestamp
    try:
        seconds = datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError, OSError):
        return time.time()
    return seconds if 0 <= seconds < 1 << 32 else time.time()


def _context(settings: ForwardTls, where: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert_file or settings.key_file:
            context.load_cert_chain(settings.cert_file, settings.key_file or None)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
        raise ConfigError(f"`tls`: the files cannot be used ({reason})", where=where) from None
    return context
