"""The Kafka sink against a real broker: what it says Done to is in the topic, also when the broker was away."""

import json
import time

import pytest

from forwarder.contracts import Done, Later, Refused
from forwarder.events.friction import FrictionEvent
from forwarder.sinks.kafka import KafkaSink, KafkaSinkSettings
from forwarder.telemetry import Telemetry

pytestmark = pytest.mark.e2e


def event(number, service="checkout", text="x"):
    return FrictionEvent(
        entity_ref=f"component:shop/{service}", type="kubectl-exec", severity="high", actor="alice", workflow="debug",
        description=text, timestamp="2026-03-02T10:00:00.000000Z", points=10, id=f"id-{number}", revision=1, audit_id=str(number),
        verb="get", resource="pods",
    )  # fmt: skip


def sink_to(broker, topic, **settings):
    return KafkaSink("kafka", KafkaSinkSettings(brokers=[broker.address], topic=topic, **settings), Telemetry())


def test_events_of_one_service_stay_in_order_in_one_partition(shared_broker, topic):
    """Over several partitions, every event once."""
    shared_broker.topic(topic, partitions=4)
    sink = sink_to(shared_broker, topic)
    events = [event(number, f"service-{number % 7}") for number in range(700)]
    for at in range(0, 700, 100):
        assert sink.deliver(events[at : at + 100]) == [Done()] * 100
    sink.close()
    found = shared_broker.consume(topic, 700)
    assert len(found) == 700
    by_key = {}
    for message in found:
        by_key.setdefault(message.key(), []).append((message.partition(), int(json.loads(message.value())["audit_id"])))
    for places in by_key.values():
        assert len({partition for partition, _ in places}) == 1
        assert [number for _, number in places] == sorted(number for _, number in places)


def test_a_broker_that_is_away_puts_events_off_and_gets_them_once(own_broker, topic):
    """Within the time of one delivery, and without a trace of the try that failed."""
    own_broker.topic(topic)
    sink = sink_to(own_broker, topic, timeout_s=2)
    assert sink.deliver([event(1)]) == [Done()]
    own_broker.kill()
    began = time.monotonic()
    outcomes = sink.deliver([event(2), event(3)])
    assert time.monotonic() - began < 5
    assert all(isinstance(outcome, Later) for outcome in outcomes)
    own_broker.start()
    end = time.monotonic() + 60
    while sink.deliver([event(2), event(3)]) != [Done(), Done()]:
        assert time.monotonic() < end
    sink.close()
    assert [json.loads(message.value())["id"] for message in own_broker.consume(topic, 3)] == ["id-1", "id-2", "id-3"]


def test_a_message_that_is_too_large_is_refused_alone(shared_broker, topic):
    """The broker's words; its neighbours are in."""
    shared_broker.topic(topic, **{"max.message.bytes": "2000"})
    sink = sink_to(shared_broker, topic, options={"compression.type": "none", "batch.num.messages": 1})
    outcomes = sink.deliver([event(1), event(2, text="y" * 5000), event(3)])
    assert [type(outcome) for outcome in outcomes] == [Done, Refused, Done]
    assert "MSG_SIZE_TOO_LARGE" in outcomes[1].reason


def test_a_topic_that_is_not_there_is_said(shared_broker, topic):
    """And waited for."""
    sink = sink_to(shared_broker, topic, timeout_s=2)
    (outcome,) = sink.deliver([event(1)])
    assert isinstance(outcome, Later)
    shared_broker.topic(topic)
    end = time.monotonic() + 30
    while sink.deliver([event(1)]) != [Done()]:
        assert time.monotonic() < end
    assert len(shared_broker.consume(topic, 1)) == 1
