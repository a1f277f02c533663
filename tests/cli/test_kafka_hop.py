"""What doctor says about brokers that answer, and about those that do not. A real one is in tests/e2e/kafka."""

import json
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from forwarder.cli import kafka_hop
from forwarder.cli.kafka_hop import check_kafka
from forwarder.registry import Loaded, load_config
from forwarder.settings import parse_document

HUB = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0;EntityPath=audit"


def loaded(**kafka: Any) -> Loaded:
    document = {"sources": {"kafka": kafka}, "sinks": {"backend": {}}}
    return load_config(parse_document(json.dumps(document), "f.yaml"), {})


class Client:
    """Knows a topic of three partitions, or raises."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def poll(self, timeout: float) -> int:
        return 0

    def list_topics(self, timeout: float) -> Any:
        if self.error:
            raise self.error
        return type("Metadata", (), {"topics": {"audit": type("Topic", (), {"partitions": {0: 1, 1: 1, 2: 1}})}})


@pytest.mark.parametrize(
    ("settings", "error", "good", "words"),
    [
        ({"brokers": ["b:1"], "topics": ["audit"]}, None, True, "b:1 lets us in; audit, 3 partitions"),
        ({"connection_string": HUB}, None, True, "shop.servicebus.windows.net:9093 lets us in; audit, 3 partitions"),
        ({"brokers": ["b:1"], "topics": ["other"]}, None, False, "no topic other"),
        ({"brokers": ["b:1"], "topics": ["audit"]}, KafkaException(KafkaError(KafkaError._TRANSPORT)), False, "`brokers`, `tls` and `sasl`"),
        ({"connection_string": HUB}, KafkaException(KafkaError(KafkaError._AUTHENTICATION)), False, "Standard tier"),
    ],
    ids=["reached", "event hubs", "no topic", "no answer", "basic tier"],
)  # fmt: skip
def test_what_is_seen(monkeypatch: pytest.MonkeyPatch, settings: Any, error: Any, good: bool, words: str) -> None:
    """With what to do, and without the key."""
    monkeypatch.setattr(kafka_hop, "make_client", lambda *_: Client(error))
    (hop,) = check_kafka(loaded(**settings))
    assert hop.good is good
    assert words in f"{hop.text} {hop.advice}"
    assert "c2VjcmV0" not in f"{hop.text} {hop.advice}"


def test_without_kafka_there_is_no_hop() -> None:
    """Nothing to say."""
    document = {"sources": {"forward": {}}, "sinks": {"backend": {}}}
    assert check_kafka(load_config(parse_document(json.dumps(document), "f.yaml"), {})) == []
