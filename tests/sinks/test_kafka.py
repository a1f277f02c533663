"""The Kafka sink with a producer of our own: one outcome per event, whatever librdkafka reports. The real one is in tests/e2e/kafka."""

import json
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from forwarder.contracts import Done, Later, Refused
from forwarder.errors import ConfigError
from forwarder.events.audit import decode
from forwarder.events.outgoing import OutgoingEvent
from forwarder.sinks import kafka
from forwarder.sinks.kafka import DENIED_S, RETRY_S, KafkaSink, KafkaSinkSettings
from forwarder.telemetry import Telemetry

NO_REPORT = object()


class Producer:
    """Reports what `errors` says for each message, when it is flushed. A report of None is a success; NO_REPORT: none."""

    def __init__(self, errors: Any = ()) -> None:
        self.errors, self.messages, self.purged, self._reports = list(errors), [], False, []

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Any) -> None:
        error = self.errors.pop(0) if self.errors else None
        if isinstance(error, Exception):
            raise error
        self.messages.append((topic, key, value))
        if error is not NO_REPORT:
            self._reports.append((on_delivery, error))

    def flush(self, timeout: float) -> int:
        for report, error in self._reports:
            report(error, None)
        self._reports = []
        return 0

    def purge(self) -> None:
        self.purged = True


@pytest.fixture
def sink_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A sink, and the producer it makes."""

    def make(*errors: Any, **settings: Any) -> tuple[KafkaSink, Producer]:
        producer = Producer(errors)
        monkeypatch.setattr(kafka, "make_client", lambda *_: producer)
        settings = {"brokers": ["127.0.0.1:1"], "topic": "friction"} | settings
        return KafkaSink("kafka", KafkaSinkSettings(**settings), Telemetry()), producer

    return make


def test_a_friction_event_is_a_message_keyed_by_its_entity(sink_with: Any, event: Any) -> None:
    """So that all about one service stays in order."""
    sink, producer = sink_with()
    given = event(1)
    assert sink.deliver([given]) == [Done()]
    ((topic, key, value),) = producer.messages
    assert (topic, key, json.loads(value)["id"]) == ("friction", given.entity_ref.encode(), given.id)


def test_an_audit_event_is_a_message_without_its_secrets(sink_with: Any) -> None:
    """Keyed by cluster and namespace."""
    sink, producer = sink_with(stream="audit")
    line = b'{"kind":"Event","auditID":"1","verb":"get","userAgent":"curl password=hunter2","objectRef":{"resource":"pods","namespace":"shop"}}'
    assert sink.deliver([OutgoingEvent(decode(line), line, "prod")]) == [Done()]
    ((_, key, value),) = producer.messages
    assert key == b"prod/shop"
    assert b"hunter2" not in value


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (KafkaError(KafkaError._MSG_TIMED_OUT), Later(RETRY_S, "_MSG_TIMED_OUT: ")),
        (KafkaError(KafkaError.NOT_ENOUGH_REPLICAS), Later(RETRY_S, "NOT_ENOUGH_REPLICAS: ")),
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), Refused("MSG_SIZE_TOO_LARGE: ")),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), Later(DENIED_S, "TOPIC_AUTHORIZATION_FAILED: ")),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), Later(DENIED_S, "UNKNOWN_TOPIC_OR_PART: ")),
        (BufferError("queue full"), Later(RETRY_S, "the producer's queue is full")),
        (confluent_kafka.KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)), Refused("MSG_SIZE_TOO_LARGE: ")),
        (NO_REPORT, Later(RETRY_S, "not acknowledged in time")),
    ],
)
def test_what_a_message_met_is_its_events_outcome(sink_with: Any, event: Any, error: Any, outcome: Any) -> None:
    """And its neighbours' is their own."""
    sink, _ = sink_with(None, error, None)
    first, second, third = sink.deliver([event(1), event(2), event(3)])
    assert (first, third) == (Done(), Done())
    assert type(second) is type(outcome)
    assert second.reason.startswith(outcome.reason)
    assert getattr(second, "delay_s", 0) == getattr(outcome, "delay_s", 0)


def test_a_message_that_timed_out_says_why(sink_with: Any, event: Any) -> None:
    """What librdkafka heard of the brokers meanwhile."""
    sink, producer = sink_with(KafkaError(KafkaError._MSG_TIMED_OUT))
    flush = producer.flush

    def hear(timeout: float) -> int:
        sink._on_error(KafkaError(KafkaError._TRANSPORT, "b:1: Connection refused"))
        sink._on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
        return flush(timeout)

    producer.flush = hear
    assert sink.deliver([event(1)]) == [Later(RETRY_S, "_TRANSPORT: b:1: Connection refused")]


@pytest.mark.parametrize("error", [NO_REPORT, KafkaError(KafkaError._FATAL, fatal=True)], ids=["no report", "fatal"])
def test_a_producer_that_cannot_go_on_is_replaced(sink_with: Any, event: Any, error: Any) -> None:
    """With nothing left in the old one: the events are offered again."""
    sink, producer = sink_with(error)
    assert isinstance(sink.deliver([event(1)])[0], Later)
    assert producer.purged
    assert sink.deliver([event(1)]) == [Done()]


def test_bad_properties_are_said_at_the_first_delivery(event: Any) -> None:
    """The events wait; the words are librdkafka's."""
    settings = KafkaSinkSettings(brokers=["127.0.0.1:1"], topic="t", options={"no.such.thing": 1})
    (outcome,) = KafkaSink("kafka", settings, Telemetry()).deliver([event(1)])
    assert isinstance(outcome, Later)
    assert "no.such.thing" in outcome.reason


def test_settings_that_do_not_go_together() -> None:
    """A topic is needed, and Event Hubs' string may name it."""
    hub = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=b;EntityPath=out"
    assert KafkaSink("kafka", KafkaSinkSettings(connection_string=hub), Telemetry())._topic == "out"
    with pytest.raises(ConfigError) as caught:
        KafkaSink("kafka", KafkaSinkSettings(brokers=["a:1"]), Telemetry())
    assert "sinks.kafka.topic" in str(caught.value)
