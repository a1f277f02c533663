"""The Forward sink without a network: one message a batch, and what each fault is called."""

import json
import socket
import ssl
from typing import Any

import msgpack
import msgspec
import pytest

from forwarder.contracts import Done, Later
from forwarder.errors import ConfigError, ForwardProtocolError
from forwarder.events import friction
from forwarder.events.audit import decode
from forwarder.events.outgoing import OutgoingEvent
from forwarder.sinks.forward import ForwardSink, ForwardSinkSettings
from forwarder.wire.deadline import Overdue


class Wire:
    """Stands in for the connection: what was sent, and what goes wrong."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, bytes | None]] = []
        self.error: Exception | None = None

    def send(self, frame: bytes, *, chunk: bytes | None, deadline_s: float) -> None:
        if self.error:
            raise self.error
        self.sent.append((msgpack.unpackb(frame, strict_map_key=False), chunk))

    def close(self) -> None:
        pass


def make(**settings: Any) -> tuple[ForwardSink, Wire]:
    one, wire = ForwardSink("collector", ForwardSinkSettings(**settings), chance=lambda: 1.0), Wire()
    one._sender = wire  # type: ignore[assignment]
    return one, wire


def unpacked(blob: bytes) -> list[tuple[float, Any]]:
    unpacker = msgpack.Unpacker()
    unpacker.feed(blob)
    return [(int.from_bytes(time[0].data[:4], "big"), record) for time, record in unpacker]


def audit(**fields: Any) -> OutgoingEvent:
    event = {"apiVersion": "audit.k8s.io/v1", "auditID": "a", "stage": "ResponseComplete", "verb": "create",
             "requestURI": "/x", "stageTimestamp": "2025-06-18T12:00:00.000000Z"} | fields  # fmt: skip
    line = json.dumps(event).encode()
    return OutgoingEvent(decode(line), line)


def test_a_batch_is_one_packed_message_with_a_chunk_of_its_own(event) -> None:
    """Each event with its own time, as one line under `log`."""
    one, wire = make(tag="kube.friction")
    assert one.deliver([event(1), event(2)]) == [Done(), Done()]
    ((tag, blob, options), chunk), *_ = wire.sent
    entries = unpacked(blob)
    assert (tag, options["size"], options["chunk"].encode()) == ("kube.friction", 2, chunk)
    assert [friction.decode(record["log"]) for _, record in entries] == [event(1), event(2)]
    assert entries[0][0] == 1_749_988_800
    one.deliver([event(3)])
    assert wire.sent[1][1] != chunk


def test_records_may_be_the_events_own_fields() -> None:
    """Where the server does not parse lines; secrets are hidden all the same."""
    one, wire = make(log_key="")
    one.deliver([audit(objectRef={"resource": "secrets"}, requestObject={"data": {"p": "UGxhbnRlZA=="}})])
    ((_, record),) = unpacked(wire.sent[0][0][1])
    assert record["auditID"] == "a"
    assert "UGxhbnRlZA" not in json.dumps(record)


def test_without_acks_no_chunk_is_sent(event) -> None:
    """The server then has nothing to answer."""
    one, wire = make(ack=False)
    one.deliver([event(1)])
    assert wire.sent[0][1] is None
    assert "chunk" not in wire.sent[0][0][2]


@pytest.mark.parametrize(
    ("error", "delay_s", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), 0.5, "Connection refused"),
        (Overdue("no answer within 10 s"), 0.5, "no acknowledgement within 10 s"),
        (TimeoutError(), 0.5, "no acknowledgement within 10 s"),
        (ForwardProtocolError("the server refused: the shared key is wrong"), 30.0, "the shared key is wrong"),
        (ForwardProtocolError("the server closed the connection"), 0.5, "the server closed the connection"),
        (ssl.SSLError(1, "x"), 0.5, "TLS failed"),
        (socket.gaierror(-2, "Name or service not known"), 0.5, "Name or service not known"),
    ],
)
def test_a_fault_is_named_and_the_batch_waits_whole(event, error, delay_s, words) -> None:
    """All of it comes again: nobody knows how much the server has."""
    one, wire = make()
    wire.error = error
    first, second = one.deliver([event(1), event(2)])
    assert first == second
    assert isinstance(first, Later)
    assert first.delay_s == delay_s
    assert words in first.reason


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"address": "a b:1"}, "is no address"),
        ({"tag": ""}, "`tag` must be"),
        ({"user": "u", "password": "p"}, "go with a `shared_key`"),
        ({"tls": {"ca_file": "/nowhere.pem"}}, "`tls`: the files cannot be used"),
    ],
)
def test_settings_that_cannot_work(settings, words) -> None:
    """By name; keys stand in no error and no repr."""

    with pytest.raises(ConfigError, match=words):
        ForwardSink("collector", msgspec.convert(settings, ForwardSinkSettings))
    assert "s3cret" not in repr(ForwardSinkSettings(shared_key="s3cret", password="s3cret"))
