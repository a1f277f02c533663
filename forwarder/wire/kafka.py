"""How to reach a Kafka cluster or Azure Event Hubs: settings, and librdkafka's configuration made of them.

    brokers: [kafka-1:9093, kafka-2:9093]
    tls: {ca_file: ca.crt}                        # {} trusts what this machine trusts
    sasl: {username: forwarder, password: …}      # or oauth: {token_endpoint: …, client_id: …, client_secret: …}

    connection_string: Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=…;SharedAccessKey=…   # Event Hubs

confluent-kafka is an extra: `pip install 'friction-forwarder[kafka]'`. It is imported when a client is made, by `library`.
"""

import importlib
import logging
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from forwarder.errors import ConfigError

EVENT_HUBS_PORT: Final = 9093  # of its Kafka endpoint, which the Standard tier and those above it have
EVENT_HUBS_USER: Final = "$ConnectionString"
_OURS: Final = frozenset(
    (
        "bootstrap.servers", "metadata.broker.list", "group.id", "enable.auto.commit", "enable.auto.offset.store",
        "security.protocol", "sasl.password", "sasl.oauthbearer.client.secret", "enable.idempotence", "acks",
    )
)  # fmt: skip
QUIET: Final = {
    "log_level": 2,  # librdkafka would log each try to connect, twenty a second; its error callback tells the same
    "reconnect.backoff.ms": 250,
}
_AFTER = re.compile(r" \(after [0-9]+ms in state [A-Z0-9_]+.*\)$")  # else every try would read as another trouble
_ENDPOINT = re.compile(r"sb://([A-Za-z0-9.-]+)/?")


class KafkaTls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ca_file: PEM file of the authority to trust; absent: those that this machine trusts.
    cert_file, key_file: PEM files of our certificate and key, where the brokers ask for one.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class KafkaOauth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tokens by the client credentials grant. token_endpoint: its URL. client_id, client_secret: ours. scope: if needed."""

    token_endpoint: str
    client_id: str
    client_secret: str
    scope: str = ""


class KafkaSasl(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either username and password, with `mechanism` PLAIN or SCRAM, or oauth (OAUTHBEARER)."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str | None = None
    password: str | None = None
    oauth: KafkaOauth | None = None


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every Kafka client needs.

    brokers: HOST:PORT of some brokers. connection_string: of Azure Event Hubs, instead of brokers, tls and sasl.
    tls: ca_file, cert_file, key_file. sasl: mechanism, username and password, or oauth.
    options: further librdkafka properties, for what has no setting here.
    """

    brokers: list[str] = []
    connection_string: str | None = None
    tls: KafkaTls | None = None
    sasl: KafkaSasl | None = None
    options: dict[str, str | int | float | bool] = {}


class Connection(Protocol):
    """The settings that say how to connect, in whatever else they stand."""

    @property
    def brokers(self) -> list[str]: ...
    @property
    def connection_string(self) -> str | None: ...
    @property
    def tls(self) -> KafkaTls | None: ...
    @property
    def sasl(self) -> KafkaSasl | None: ...
    @property
    def options(self) -> dict[str, str | int | float | bool]: ...


class EventHub(msgspec.Struct, frozen=True):
    """What a connection string says. entity_path: the event hub that it is for, or ""."""

    broker: str
    entity_path: str


def event_hub(connection_string: str, where: str) -> EventHub:
    """Raises ConfigError, which never shows the string."""
    parts = dict(part.partition("=")[::2] for part in connection_string.strip().split(";") if part)
    match = _ENDPOINT.fullmatch(parts.get("Endpoint", ""))
    if not match or not parts.get("SharedAccessKeyName") or not parts.get("SharedAccessKey"):
        raise ConfigError(
            "no connection string of Event Hubs; it reads `Endpoint=sb://NAMESPACE.servicebus.windows.net/;"
            "SharedAccessKeyName=…;SharedAccessKey=…`",
            where=where,
        )
    return EventHub(f"{match.group(1)}:{EVENT_HUBS_PORT}", parts.get("EntityPath", ""))


def client_config(settings: Connection, where: str) -> dict[str, Any]:
    """librdkafka's properties for the connection. Raises ConfigError for settings that do not go together."""
    for name in settings.options:
        if name in _OURS:
            raise ConfigError(f"`{name}` is not to be set here", where=f"{where}.options")
    config: dict[str, Any] = QUIET | {"client.id": "friction-forwarder"} | settings.options
    if settings.connection_string:
        for name in ("brokers", "tls", "sasl"):
            if getattr(settings, name):
                raise ConfigError("`connection_string` says this already", where=f"{where}.{name}")
        hub = event_hub(settings.connection_string, f"{where}.connection_string")
        return config | {
            "bootstrap.servers": hub.broker,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": EVENT_HUBS_USER,
            "sasl.password": settings.connection_string.strip(),
            # Azure's balancer forgets connections that are silent for four minutes
            "socket.keepalive.enable": True,
            "metadata.max.age.ms": 180_000,
        }
    if not settings.brokers:
        raise ConfigError("it needs `brokers`, or the `connection_string` of Event Hubs", where=where)
    if any("," in broker or not broker.strip() for broker in settings.brokers):
        raise ConfigError("a list with one HOST:PORT in each item", where=f"{where}.brokers")
    protocol = ("SASL_" if settings.sasl else "") + ("SSL" if settings.tls is not None else "PLAINTEXT")
    config |= {"bootstrap.servers": ",".join(settings.brokers), "security.protocol": protocol}
    if settings.tls is not None:
        config |= _tls(settings.tls, f"{where}.tls")
    if settings.sasl:
        config |= _sasl(settings.sasl, f"{where}.sasl")
    return config


def library(where: str) -> Any:
    """The module `confluent_kafka`. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module("confluent_kafka")
    except ImportError:
        raise ConfigError("it needs confluent-kafka: pip install 'friction-forwarder[kafka]'", where=where) from None


def make_client(kind: str, config: Mapping[str, Any], where: str, logger: logging.Logger) -> Any:
    """A `Consumer` or `Producer`; nothing is sent yet. Raises ConfigError for properties that librdkafka does not take."""
    module = library(where)
    try:
        return getattr(module, kind)(dict(config), logger=logger)
    except (module.KafkaException, TypeError, ValueError) as error:
        raise ConfigError(f"librdkafka does not take these settings: {_words(error)}", where=where) from None


def _words(error: Exception) -> str:
    """librdkafka's own; they name properties and files, never a password."""
    first = error.args[0] if error.args else error
    text = first.str() if hasattr(first, "str") else str(first)
    return "".join(char if char.isprintable() else " " for char in text)[:300]


def error_words(error: Any) -> str:
    """A KafkaError as an operator may read it: `_TRANSPORT: 127.0.0.1:9092/1: Connection refused`."""
    text = "".join(char if char.isprintable() else " " for char in _AFTER.sub("", str(error.str())))[:300]
    return f"{error.name()}: {text}"


def _tls(tls: KafkaTls, where: str) -> dict[str, Any]:
    if bool(tls.cert_file) is not bool(tls.key_file):
        raise ConfigError("`cert_file` and `key_file` go together", where=where)
    names = {
        "ssl.ca.location": tls.ca_file,
        "ssl.certificate.location": tls.cert_file,
        "ssl.key.location": tls.key_file,
    }
    return {name: value for name, value in names.items() if value}


def _sasl(sasl: KafkaSasl, where: str) -> dict[str, Any]:
    if sasl.oauth:
        if sasl.username or sasl.password:
            raise ConfigError("either `oauth`, or `username` and `password`", where=where)
        oauth = sasl.oauth
        config = {
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": oauth.token_endpoint,
            "sasl.oauthbearer.client.id": oauth.client_id,
            "sasl.oauthbearer.client.secret": oauth.client_secret,
        }
        return config | ({"sasl.oauthbearer.scope": oauth.scope} if oauth.scope else {})
    if not sasl.username or not sasl.password:
        raise ConfigError("it needs `username` and `password`, or `oauth`", where=where)
    return {"sasl.mechanism": sasl.mechanism, "sasl.username": sasl.username, "sasl.password": sasl.password}
