"""`forwarder receive` over a real broker, fed by a producer and by Fluent Bit's out_kafka, through kills: every event once."""

import json
import time

import pytest

from tests.e2e.kafka.broker import Broker
from tests.e2e.product.conftest import Product, Program, expected_rows, wait_until

pytestmark = pytest.mark.e2e


def configure(product: Product, broker: Broker, topic: str, **settings) -> None:
    product.configure(
        sources={
            "kafka": {
                "brokers": [broker.address],
                "topics": [topic],
                "options": {"session.timeout.ms": 6000},
                **settings,
            }
        }
    )


def settled_exactly(product: Product, sample) -> None:
    expected = expected_rows(sample)
    product.settled(len(expected))
    assert sorted(product.stored()) == expected
    assert product.ledger().balanced() == []


def test_kill_9_of_the_receiver_and_of_the_broker(product, sample, own_broker, topic):
    """50,000 lines in four partitions; the backend holds exactly the expected rows."""
    own_broker.topic(topic, partitions=4)
    configure(product, own_broker, topic)
    product.start()
    lines = sample.lines(50_000)
    for step in range(10):
        own_broker.produce(topic, [next(lines) for _ in range(5000)])
        if step in (2, 5):
            product.receiver.kill()
            product.receiver.start()
        if step == 7:
            own_broker.kill()
            own_broker.start()
    product.wait_receiver()
    settled_exactly(product, sample)
    wait_until(lambda: own_broker.committed(topic, partitions=4) == 50_000, "all offsets committed")


def test_two_receivers_share_the_partitions(product, sample, shared_broker, topic, tmp_path):
    """One joins, one is killed: what it had not committed comes again to the other, and the backend counts it once."""
    shared_broker.topic(topic, partitions=4)
    configure(product, shared_broker, topic)
    product.start()
    settings = json.loads((product.folder / "forwarder.yaml").read_text())
    settings |= {"outbox": {"path": "outbox-2.db"}, "telemetry": {"listen": ""}}
    (product.folder / "second.yaml").write_text(json.dumps(settings))
    second = product.program("receive-2", "receive", "--config", "second.yaml")
    lines = sample.lines(20_000)
    try:
        for step in range(20):
            shared_broker.produce(topic, [next(lines) for _ in range(1000)])
            if step == 4:
                second.start()
                wait_until(lambda: "reads " + topic in second.output(), "the second receiver's share")
            if step == 12:
                second.kill()
            time.sleep(0.1)
        expected = expected_rows(sample)
        wait_until(lambda: sorted(product.stored()) == expected, "every event once")
    finally:
        if second.running:
            second.stop()
    if (product.folder / "outbox-2.db").exists():  # what the killed one had detected and not delivered is in its outbox
        second.start()
        time.sleep(2)
        second.stop()
    assert sorted(product.stored()) == expected


@pytest.mark.parametrize("form", ["raw", "parsed"])
def test_fluent_bits_kafka_output(product, sample, shared_broker, topic, form):
    """Lines under `log`, or events that its JSON parser took apart, each with its @timestamp."""
    shared_broker.topic(topic, partitions=2)
    configure(product, shared_broker, topic)
    product.start()
    tail = {
        "name": "tail",
        "tag": "audit",
        "path": str(product.audit_log),
        "read_from_head": True,
        "refresh_interval": 1,
    }
    config = {
        "service": {"flush": 0.2, "log_level": "warning"},
        "pipeline": {
            "inputs": [tail | ({"parser": "audit"} if form == "parsed" else {}) | {"buffer_chunk_size": "256k", "buffer_max_size": 9_000_000}],
            "outputs": [{"name": "kafka", "match": "*", "brokers": shared_broker.address, "topics": topic, "format": "json"}],
        },
    }  # fmt: skip
    if form == "parsed":
        config["parsers"] = [{"name": "audit", "format": "json", "time_key": "none"}]
    (product.folder / "agent.yaml").write_text(json.dumps(config))
    agent: Program = product.fluent_bit(product.folder / "agent.yaml")
    agent.start()
    product.append(list(sample.lines(3000)))
    settled_exactly(product, sample)


def test_aks_records_through_a_topic_named_by_the_environment(product, sample, shared_broker, topic):
    """Diagnostic records with both audit categories and others among them; the cluster's name is theirs."""
    shared_broker.topic(topic)
    configure(product, shared_broker, topic, cluster_from_envelope=True)
    product.start()
    rid = "/SUBSCRIPTIONS/S/RESOURCEGROUPS/G/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/SHOP-AKS"
    messages = []
    lines = list(sample.lines(2000))
    for at in range(0, len(lines), 50):
        records = [
            {
                "time": "2026-03-02T10:00:00Z",
                "category": category,
                "resourceId": rid,
                "properties": {"log": line.decode() + "\n"},
            }
            for line in lines[at : at + 50]
            for category in ("kube-audit", "kube-audit-admin")
        ]
        records.append({"category": "guard", "resourceId": rid, "properties": {"log": "I0302 klog\n"}})
        messages.append(json.dumps({"records": records}).encode())
    shared_broker.produce(topic, messages)
    settled_exactly(product, sample)
    assert 'forwarder_records_skipped_total{reason="other_category",source="kafka"} 40.0' in product.metrics()
    assert {event["cluster"] for event in product.get("/api/v1/events?limit=5")} == {"shop-aks"}


def test_friction_and_audit_events_go_to_topics(product, sample, shared_broker, topic):
    """`when_down: block`: what is acknowledged is in the topic, through a kill; the friction topic holds each event by its id."""
    audit, friction = shared_broker.topic(topic, partitions=3), shared_broker.topic(f"{topic}-friction", partitions=3)
    product.configure(
        sinks={
            "archive": {
                "type": "kafka",
                "stream": "audit",
                "when_down": "block",
                "brokers": [shared_broker.address],
                "topic": audit,
            },
            "events": {"type": "kafka", "brokers": [shared_broker.address], "topic": friction},
        }
    )
    product.receiver.start()
    product.wait_receiver()
    product.fluent_bit().start()
    lines = list(sample.lines(4000))
    product.append(lines[:2000])
    time.sleep(1)
    product.receiver.kill()
    product.append(lines[2000:])
    product.receiver.start()
    expected = expected_rows(sample)
    wait_until(
        lambda: (
            product.outbox.exists()
            and sum(sink.waiting for sink in product.ledger().sinks) == 0
            and product.ledger().new >= len(expected)
        ),
        "an empty outbox",
    )
    names = {(event["auditID"], event["stage"], event["requestReceivedTimestamp"]) for event in map(json.loads, lines)}

    def archived():
        events = [json.loads(message.value()) for message in shared_broker.consume(audit, len(names))]
        return {(event["auditID"], event["stage"], event["requestReceivedTimestamp"]) for event in events}

    wait_until(lambda: archived() == names, "every audit event in the topic")
    told = {}
    for message in shared_broker.consume(friction, len(expected)):
        event = json.loads(message.value())
        assert message.key().decode() == event["entity_ref"]
        told[event["id"]] = max(told.get(event["id"], 0), event["revision"])
    assert len(told) == len(expected)
    assert sorted(told.values()) == sorted(row[-1] for row in expected)
