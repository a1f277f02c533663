"""The Kafka source without a broker: its settings, and batches of messages. What moves is in tests/e2e/kafka."""

import asyncio
import json

import pytest

from forwarder.errors import ConfigError
from forwarder.settings import convert, parse_document
from forwarder.sources.kafka import KafkaSource, KafkaSourceSettings
from forwarder.telemetry import Telemetry

HUB = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0;EntityPath=audit"
EVENT = {"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "verb": "get"}


class Message:
    """As much of confluent_kafka.Message as batches need."""

    def __init__(self, value, partition=0, offset=0):
        self._value, self._partition, self._offset = value, partition, offset

    def value(self):
        return self._value

    def topic(self):
        return "audit"

    def partition(self):
        return self._partition

    def offset(self):
        return self._offset


def source_with(**settings):
    telemetry = Telemetry()
    settings = {"brokers": ["127.0.0.1:1"], "topics": ["audit"]} | settings
    source = KafkaSource("kafka", KafkaSourceSettings(**settings), lambda *_: True, telemetry, "prod")
    source.telemetry = telemetry
    return source


def test_the_documented_settings_are_read():
    """As they stand in the module's example; Event Hubs need nothing but their string."""
    settings = convert(
        parse_document("{brokers: ['kafka-1:9092'], topics: [kube-audit]}", "f.yaml"), KafkaSourceSettings
    )
    assert source_with(brokers=settings.brokers).description == "audit of kafka-1:9092, group friction-forwarder"
    hub = source_with(brokers=[], topics=[], connection_string=HUB)
    assert hub.description == "audit of shop.servicebus.windows.net:9093, group friction-forwarder"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"topics": []}, "sources.kafka.topics: it needs at least one topic"),
        ({"topics": [""]}, "sources.kafka.topics"),
        ({"group": ""}, "sources.kafka.group"),
        ({"brokers": []}, "it needs `brokers`"),
        ({"options": {"group.id": "x"}}, "`group.id` is not to be set here"),
    ],
)
def test_settings_that_do_not_go_together(settings, words):
    """Named, before anything is connected."""
    with pytest.raises(ConfigError) as caught:
        source_with(**settings)
    assert words in str(caught.value)


def test_a_property_that_librdkafka_does_not_know_ends_the_start():
    """With its words."""
    with pytest.raises(ConfigError) as caught:
        asyncio.run(source_with(options={"no.such.thing": 1}).run(None, asyncio.Event(), lambda: None))
    assert "no.such.thing" in str(caught.value)


async def test_messages_become_batches_by_partition_and_cluster():
    """With the offset beside each line, and the envelope's cluster where it is wanted."""
    source = source_with(cluster_from_envelope=True)
    record = {
        "category": "kube-audit",
        "resourceId": "/X/MANAGEDCLUSTERS/AKS",
        "properties": {"log": json.dumps(EVENT)},
    }
    other = {"category": "guard", "properties": {"log": "klog"}}
    messages = [
        Message(json.dumps(EVENT).encode(), 0, 7),
        Message(json.dumps({"records": [record, other]}).encode(), 0, 8),
        Message(json.dumps({"@timestamp": 5.0, "log": json.dumps(EVENT)}).encode(), 1, 3),
    ]
    batches = await source._batches(messages)
    found = [(batch.origin, batch.cluster, [(line.offset, line.time_s) for line in batch.lines]) for batch in batches]
    assert found == [
        ("kafka audit/0", "prod", [(7, 0.0)]),
        ("kafka audit/0", "aks", [(8, 0.0)]),
        ("kafka audit/1", "prod", [(3, 5.0)]),
    ]
    assert source.telemetry.value("forwarder_records_skipped", source="kafka", reason="other_category") == 1
