"""What `forwarder doctor` sees of Kafka and Event Hubs: whether the brokers let us in, and whether the topics are there."""

import logging
from typing import TYPE_CHECKING, Any

from forwarder.cli.hops import Hop
from forwarder.errors import ConfigError
from forwarder.wire.kafka import client_config, error_words, event_hub, library, make_client

if TYPE_CHECKING:
    from forwarder.registry import Loaded

TOKEN_S = 2.0
DEADLINE_S = 8.0  # TLS and SASL with a cloud take a second or two
EVENT_HUBS = (
    "is the string right, does its rule have Listen (Send for a sink), and is the namespace of the Standard tier or above? "
    "Basic has no Kafka endpoint"
)
KAFKA = (
    "are `brokers`, `tls` and `sasl` what the brokers want, and do they advertise addresses that this machine reaches?"
)


def check_kafka(loaded: "Loaded") -> list[Hop]:
    """One hop for each Kafka source and sink; none where there are none."""
    hops = []
    for section, parts in (("sources", loaded.sources), ("sinks", loaded.sinks)):
        for name, (entry, settings) in parts.items():
            if entry.component in ("KafkaSource", "KafkaSink"):
                hops.append(_reached(f"{section[:-1]} {name}", settings, f"{section}.{name}"))
    return hops


def _reached(title: str, settings: Any, where: str) -> Hop:
    heard: list[str] = []
    try:
        config = client_config(settings, where) | {"error_cb": lambda error: heard.append(error_words(error))}
        client = make_client("Producer", config, where, logging.getLogger(__name__))
        module = library(where)
    except ConfigError as error:
        return Hop(title, good=False, text=str(error), advice="correct it")
    if settings.sasl and settings.sasl.oauth:
        client.poll(TOKEN_S)  # the token is fetched by whoever polls
    try:
        topics = client.list_topics(timeout=DEADLINE_S).topics
    except module.KafkaException as error:
        client.poll(0)  # gives out what librdkafka has to say about the brokers
        advice = EVENT_HUBS if settings.connection_string else KAFKA
        return Hop(title, good=False, text=heard[0] if heard else error_words(error.args[0]), advice=advice)
    wanted = _wanted(settings, where)
    missing = [name for name in wanted if not name.startswith("^") and name not in topics]
    if missing:
        text = f"{config['bootstrap.servers']} has no topic {', '.join(missing)}, or does not show it to us"
        return Hop(title, good=False, text=text, advice="create it, or give us the right to see it")
    partitions = sum(len(topics[name].partitions) for name in wanted if name in topics)
    return Hop(
        title, good=True, text=f"{config['bootstrap.servers']} lets us in; {', '.join(wanted)}, {partitions} partitions"
    )


def _wanted(settings: Any, where: str) -> list[str]:
    named = list(getattr(settings, "topics", None) or filter(None, [getattr(settings, "topic", "")]))
    return named or [event_hub(settings.connection_string, where).entity_path]
