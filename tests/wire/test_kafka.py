"""Settings to librdkafka's properties: every way in, and no secret in an error."""

import logging

import pytest
from confluent_kafka import KafkaError

from forwarder.errors import ConfigError
from forwarder.settings import convert, parse_document
from forwarder.wire import kafka
from forwarder.wire.kafka import (
    EventHub,
    KafkaOauth,
    KafkaSasl,
    KafkaSettings,
    KafkaTls,
    client_config,
    error_words,
    event_hub,
    make_client,
)

HUB = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0PT0=;EntityPath=audit"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"brokers": ["a:1", "b:2"]}, {"bootstrap.servers": "a:1,b:2", "security.protocol": "PLAINTEXT"}),
        ({"brokers": ["a:1"], "tls": KafkaTls()}, {"security.protocol": "SSL"}),
        ({"brokers": ["a:1"], "tls": KafkaTls(ca_file="/ca", cert_file="/c", key_file="/k")}, {"ssl.ca.location": "/ca", "ssl.certificate.location": "/c", "ssl.key.location": "/k"}),
        ({"brokers": ["a:1"], "sasl": KafkaSasl(username="u", password="p")}, {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"}),
        ({"brokers": ["a:1"], "tls": KafkaTls(), "sasl": KafkaSasl(mechanism="SCRAM-SHA-512", username="u", password="p")}, {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}),
        ({"brokers": ["a:1"], "tls": KafkaTls(), "sasl": KafkaSasl(oauth=KafkaOauth(token_endpoint="https://t", client_id="i", client_secret="s", scope="x"))}, {"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.token.endpoint.url": "https://t", "sasl.oauthbearer.scope": "x"}),
        ({"connection_string": HUB}, {"bootstrap.servers": "shop.servicebus.windows.net:9093", "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "$ConnectionString", "sasl.password": HUB}),
        ({"brokers": ["a:1"], "options": {"fetch.wait.max.ms": 5}}, {"fetch.wait.max.ms": 5}),
    ],
    ids=["plain", "tls", "mutual tls", "sasl", "scram over tls", "oauth", "event hubs", "options"],
)  # fmt: skip
def test_every_way_to_connect(settings, expected):
    """And librdkafka takes each of them."""
    config = client_config(KafkaSettings(**settings), "sources.kafka")
    assert expected.items() <= config.items()
    if "ssl.ca.location" not in config:
        client = make_client("Producer", config | {"log_level": 0}, "x", logging.getLogger("test"))
        client.purge()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "it needs `brokers`"),
        ({"brokers": ["a:1,b:2"]}, "sources.kafka.brokers"),
        ({"brokers": [""]}, "sources.kafka.brokers"),
        ({"brokers": ["a:1"], "connection_string": HUB}, "says this already"),
        ({"connection_string": "Endpoint=sb://x/;SharedAccessKey=c2VjcmV0"}, "no connection string of Event Hubs"),
        ({"connection_string": "c2VjcmV0"}, "no connection string of Event Hubs"),
        ({"brokers": ["a:1"], "tls": KafkaTls(cert_file="/c")}, "go together"),
        ({"brokers": ["a:1"], "sasl": KafkaSasl()}, "it needs `username` and `password`"),
        ({"brokers": ["a:1"], "sasl": KafkaSasl(username="u", oauth=KafkaOauth(token_endpoint="t", client_id="i", client_secret="s"))}, "either `oauth`"),
        ({"brokers": ["a:1"], "options": {"enable.auto.commit": True}}, "`enable.auto.commit` is not to be set"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(settings, words):
    """Named; a connection string is never shown."""
    with pytest.raises(ConfigError) as caught:
        client_config(KafkaSettings(**settings), "sources.kafka")
    assert words in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


def test_the_same_trouble_reads_the_same():
    """However long the try took."""
    texts = {
        error_words(KafkaError(KafkaError._TRANSPORT, f"b:1: refused (after {ms}ms in state CONNECT)"))
        for ms in (0, 17)
    }
    assert texts == {"_TRANSPORT: b:1: refused"}


def test_a_connection_string():
    """The event hub may be in it."""
    assert event_hub(HUB, "x") == EventHub("shop.servicebus.windows.net:9093", "audit")
    assert event_hub(HUB.rpartition(";")[0] + ";", "x").entity_path == ""


def test_secrets_may_come_from_files(tmp_path):
    """As all text settings."""
    (tmp_path / "hub").write_text(HUB + "\n")
    settings = convert(parse_document(f"connection_string_file: {tmp_path}/hub", "f.yaml"), KafkaSettings)
    assert settings.connection_string == HUB


def test_an_unknown_property_is_refused_with_librdkafkas_words():
    """It knows its names best."""
    with pytest.raises(ConfigError) as caught:
        make_client(
            "Producer", {"bootstrap.servers": "a:1", "no.such.thing": 1}, "sinks.kafka", logging.getLogger("test")
        )
    assert "no.such.thing" in str(caught.value)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    """An extra."""
    monkeypatch.setattr(kafka.importlib, "import_module", lambda _: (_ for _ in ()).throw(ImportError()))
    with pytest.raises(ConfigError) as caught:
        kafka.library("sources.kafka")
    assert "friction-forwarder[kafka]" in str(caught.value)
