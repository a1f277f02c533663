"""Friction events, or the audit stream, as messages of a Kafka topic (Azure Event Hubs too).

    sinks:
      kafka:
        brokers: [kafka-1:9092]                # with `tls` and `sasl` where the brokers want them
        topic: friction-events

One event, one message of JSON. Friction events are keyed by their entity, so that all about one service stays in order in
one partition; audit events by the cluster and the object's namespace. The producer is idempotent and waits for all replicas,
so librdkafka's own retries make no doubles; after a crash the events under way come again, so at-least-once: the `id` of a
friction event, or `auditID` and `stage`, tell a repeat.
"""

import logging
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from forwarder.contracts import Done, Later, Outcome, Refused, StreamSettings
from forwarder.errors import ConfigError
from forwarder.events import friction
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.telemetry import Telemetry
from forwarder.wire.kafka import KafkaSasl, KafkaTls, client_config, error_words, event_hub, library, make_client

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 10.0
RETRY_S: Final = 5.0  # after what passes by itself: brokers that are away, a leader that moves
DENIED_S: Final = 60.0  # after what a person has to mend: no such topic, no right to write
CLOSE_S: Final = 1.0
_NEVER: Final = ("MSG_SIZE_TOO_LARGE", "INVALID_MSG_SIZE", "INVALID_MSG", "INVALID_RECORD", "POLICY_VIOLATION")
_A_PERSON: Final = (
    "TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC",
    "_AUTHENTICATION", "TOPIC_EXCEPTION",
)  # fmt: skip


class KafkaSinkSettings(StreamSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Beside what every sink of a stream has, and how to reach the brokers:

    brokers: HOST:PORT of some brokers. connection_string: of Azure Event Hubs, instead of brokers, tls and sasl.
    tls, sasl: as the brokers want them. options: further librdkafka properties, for what has no setting here.
    topic: where messages go; of Event Hubs: the event hub, by default the string's EntityPath.
    timeout_s: for one batch to be in all replicas, seconds; then its rest is put off.
    batch_events: sent at once.
    updates: whether the end of a session is a second message with the same id (friction events only).
    required: whether acks wait when too many friction events wait for this sink; else the oldest become dead letters.
    """

    brokers: list[str] = msgspec.field(default_factory=list)
    connection_string: str | None = None
    tls: KafkaTls | None = None
    sasl: KafkaSasl | None = None
    options: dict[str, str | int | float | bool] = msgspec.field(default_factory=dict)
    topic: str = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = TIMEOUT_S
    batch_events: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    updates: bool = True
    required: bool = False


class KafkaSink:
    """A `contracts.Sink` and `contracts.AuditSink`: one event, one message."""

    def __init__(self, name: str, settings: KafkaSinkSettings, telemetry: Telemetry) -> None:
        """Raises ConfigError for settings that do not go together; connects to nothing."""
        self.name = name
        self.takes_updates = settings.updates
        self.required = settings.required
        self.batch_events = settings.batch_events
        self._where = f"sinks.{name}"
        self._settings = settings
        self._topic = _topic(settings, self._where)
        self._config = _producer_config(settings, self._where)
        self._producer: Any = None
        self._heard = ""  # what librdkafka said last about a broker
        library(self._where)

    def deliver(self, events: Sequence[FrictionEvent] | Sequence[OutgoingEvent]) -> Sequence[Outcome]:
        """One outcome per event; when it returns no message of theirs is left anywhere here."""
        outcomes: list[Outcome | None] = [None] * len(events)
        try:
            if self._producer is None:
                self._producer = make_client("Producer", self._config | {"error_cb": self._on_error}, self._where, log)
        except ConfigError as error:
            return [Later(DENIED_S, str(error))] * len(events)
        self._heard = ""
        until = time.monotonic() + self._settings.timeout_s
        given: Sequence[FrictionEvent | OutgoingEvent] = events
        for position, event in enumerate(given):
            outcomes[position] = self._produce(event, position, outcomes)
        self._producer.flush(max(0.0, until - time.monotonic()) + CLOSE_S)
        if None in outcomes:  # librdkafka gives each message up in time; this is for the day on which it does not
            self._forget()
        return [outcome or Later(RETRY_S, "not acknowledged in time") for outcome in outcomes]

    def close(self) -> None:
        """Nothing is under way after `deliver`."""
        self._producer = None

    def _produce(
        self, event: FrictionEvent | OutgoingEvent, position: int, outcomes: list[Outcome | None]
    ) -> Outcome | None:
        """Hand one message to librdkafka; what became of it is written into `outcomes` later."""

        def delivered(error: Any, _: Any) -> None:
            outcomes[position] = Done() if error is None else self._outcome(error)

        key, value = _message(event)
        try:
            self._producer.produce(self._topic, value, key, on_delivery=delivered)
        except BufferError:
            return Later(RETRY_S, "the producer's queue is full")
        except library(self._where).KafkaException as error:
            return self._outcome(error.args[0])
        return outcomes[position]

    def _on_error(self, error: Any) -> None:
        if error.name() != "_ALL_BROKERS_DOWN":
            self._heard = error_words(error)

    def _outcome(self, error: Any) -> Outcome:
        if error.name() == "_MSG_TIMED_OUT" and self._heard:
            return Later(RETRY_S, self._heard)  # why it timed out
        if error.fatal():  # an idempotent producer that lost count cannot go on; a new one can
            self._forget()
            return Later(RETRY_S, error_words(error))
        if error.name() in _NEVER:
            return Refused(error_words(error))
        return Later(DENIED_S if error.name() in _A_PERSON else RETRY_S, error_words(error))

    def _forget(self) -> None:
        """Drop the producer with whatever is in it: it is offered again."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()


def _message(event: FrictionEvent | OutgoingEvent) -> tuple[bytes, bytes]:
    """Key and value."""
    if isinstance(event, OutgoingEvent):
        reference = event.original.object_ref
        return f"{event.cluster}/{reference.namespace if reference else ''}".encode("utf-8", "replace"), event.json
    return event.entity_ref.encode("utf-8", "replace"), friction.encode(event)


def _topic(settings: KafkaSinkSettings, where: str) -> str:
    if settings.topic:
        return settings.topic
    if settings.connection_string:
        path = event_hub(settings.connection_string, f"{where}.connection_string").entity_path
        if path:
            return path
    raise ConfigError("it needs a topic, or a `connection_string` with an EntityPath", where=f"{where}.topic")


def _producer_config(settings: KafkaSinkSettings, where: str) -> dict[str, Any]:
    defaults = {"linger.ms": 5, "compression.type": "none" if settings.connection_string else "zstd"}
    return (
        defaults
        | client_config(settings, where)
        | {
            "enable.idempotence": True,
            "acks": "all",
            "delivery.timeout.ms": int(settings.timeout_s * 1000),
        }
    )
