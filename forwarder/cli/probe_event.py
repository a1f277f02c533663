"""One audit event, marked as a test, on its way through every hop: Forward, detection, outbox, backend, and back."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from forwarder.cli.hops import CONNECT_DEADLINE_S, START_IT, Hop, connect
from forwarder.errors import ConfigError, ForwardProtocolError
from forwarder.settings import Address, parse_address

if TYPE_CHECKING:
    import socket

    from forwarder.registry import Loaded

API_VERSION = "forwarder.test/v1"
RULE = "forwarder-doctor"
TAG = b"forwarder.doctor"
ACK_DEADLINE_S = 10.0  # an acknowledgement under load takes a second; beyond it the receiver is in trouble
ARRIVE_DEADLINE_S = 15.0  # outbox to backend; a sink that waits out a failure tries again within half a minute
POLL_S = 0.2
STORED_DEADLINE_S = 5.0  # a group commit takes milliseconds
READ_BACK_EVENTS = 500  # the newest so many are searched
FORBIDDEN = 403


class TestEvent(msgspec.Struct, frozen=True):
    """line: what is sent. audit_id: by which it is found again; its id depends on the cluster that the door gives it.
    timestamp: when it was made.
    """

    line: bytes
    audit_id: str
    timestamp: str


def make_test_event() -> TestEvent:
    """A new test event; no client of an apiserver can set a top-level field, so none can pass as one."""
    audit_id = str(uuid.uuid4())
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    event = {
        "kind": "Event",
        "apiVersion": API_VERSION,
        "level": "Metadata",
        "auditID": audit_id,
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/forwarder-test/pods",
        "verb": "create",
        "user": {"username": "forwarder-doctor"},
        "objectRef": {"resource": "pods", "namespace": "forwarder-test", "name": "doctor", "apiVersion": "v1"},
        "responseStatus": {"code": 201},
        "requestReceivedTimestamp": now,
        "stageTimestamp": now,
    }
    return TestEvent(msgspec.json.encode(event), audit_id, now)


class ClientCertificate(msgspec.Struct, frozen=True):
    """PEM files with which a door that asks for client certificates lets one in."""

    cert_file: str
    key_file: str


def follow_test_event(loaded: "Loaded", certificate: ClientCertificate | None = None) -> Iterator[Hop]:
    """Send one and look for it at each hop; ends at the first hop that does not pass it on."""
    doors = [one[1] for one in loaded.sources.values() if one[0].component == "ForwardSource"]
    backends = [one[1] for one in loaded.sinks.values() if one[0].component == "BackendSink"]
    webhooks = [one[1] for one in loaded.sources.values() if one[0].component == "WebhookSource"]
    if not doors and not webhooks:
        text = "no forward or webhook source to send to; files and topics are only ever read from"
        yield Hop("send", good=None, text=text)
        return
    event = make_test_event()
    before = _new_events(loaded)
    began = time.monotonic()
    if doors:
        sent = send(doors[0], event.line, certificate)
    else:
        from forwarder.cli.probe_webhook import post

        sent = post(webhooks[0], event.line, certificate)
    yield sent
    if not sent.good:
        return
    if before is not None:
        in_outbox = _stored(loaded, before)
        advice = "" if in_outbox else "does the running receiver use this outbox and this cluster name?"
        text = "the event is in it, on disk" if in_outbox else "the event is not in it, though it was sent"
        yield Hop("stored", good=in_outbox, text=text, advice=advice)
    for settings in backends:
        yield _arrived(settings, event, began)


def send(door: Any, line: bytes, certificate: ClientCertificate | None = None) -> Hop:
    """Through the Forward door. An independent client where the door asks for no key; it knows no acknowledgements,
    so what became of the event is seen at the next hop. Ours where there is a key or TLS; good once acknowledged.
    """
    title = "send"
    address = parse_address(door.listen)
    if not door.shared_key and not getattr(door, "tls", None):
        return _send_plainly(address, line)
    try:
        connection = connect(address)
    except OSError as error:
        advice = START_IT
        return Hop(title, good=False, text=f"{address}: {error.strerror or 'no answer'}", advice=advice)
    with connection:
        connection.settimeout(ACK_DEADLINE_S)
        began = time.monotonic()
        try:
            if getattr(door, "tls", None):
                connection = with_tls(connection, door.tls, certificate)
            if door.shared_key or getattr(door, "users", None):
                _handshake(connection, door)
            chunk = uuid.uuid4().hex.encode()
            _send_and_wait(connection, line, chunk)
        except ForwardProtocolError as error:
            advice = "is FORWARD_SHARED_KEY here the one that the receiver was started with?"
            return Hop(title, good=False, text=f"{address}: {error}", advice=advice)
        except OSError as error:
            advice = "see the receiver's log: it says why it closed the connection or does not acknowledge"
            return Hop(title, good=False, text=f"{address}: {error.strerror or 'closed, or no answer'}", advice=advice)
    took_ms = (time.monotonic() - began) * 1000
    how = " and ".join(
        [*(["the shared key"] if door.shared_key else []), *(["TLS"] if getattr(door, "tls", None) else [])]
    )
    return Hop(title, good=True, text=f"accepted and acknowledged by {address} in {took_ms:.0f} ms, with {how}")


def _send_plainly(address: Address, line: bytes) -> Hop:
    from fluent.sender import FluentSender

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - where to connect
    where = f"unix://{address.path}" if address.path else host
    client = FluentSender(TAG.decode(), host=where, port=address.port, timeout=CONNECT_DEADLINE_S)
    sent = client.emit_with_time(None, int(time.time()), {"log": line.decode()})
    error = client.last_error
    client.close()
    if not sent:
        advice = START_IT
        text = getattr(error, "strerror", None) or "no answer"
        return Hop("send", good=False, text=f"{address}: {text}", advice=advice)
    return Hop("send", good=True, text=f"sent to {address} by fluent-logger, no key asked for")


def _send_and_wait(connection: "socket.socket", line: bytes, chunk: bytes) -> None:
    from forwarder.wire.forward_client import AckReader, entries, packed_forward

    connection.sendall(packed_forward(TAG, entries([line], time.time()), chunk=chunk))
    reader = AckReader()
    while (acknowledged := reader.next_ack()) is None:
        data = connection.recv(4096)
        if not data:
            raise ConnectionResetError(None, "the receiver closed the connection without acknowledging")
        reader.receive_data(data)
    if acknowledged != chunk:
        raise ForwardProtocolError("another chunk was acknowledged than was sent")


def _handshake(connection: "socket.socket", door: Any) -> None:
    from forwarder.wire.forward_client import AckReader
    from forwarder.wire.forward_handshake import ClientHandshake

    users = dict(getattr(door, "users", None) or {})
    user, password = next(iter(users.items()), ("", ""))
    handshake = ClientHandshake(door.shared_key or "", user=user, password=password, host="forwarder-doctor")
    reader = AckReader()
    connection.sendall(handshake.answer(_message(connection, reader)))
    handshake.check(_message(connection, reader))


def _message(connection: "socket.socket", reader: Any) -> bytes:
    while (found := reader.next_message()) is None:
        data = connection.recv(4096)
        if not data:
            raise ForwardProtocolError("the receiver closed the connection during the handshake")
        reader.receive_data(data)
    return bytes(found)


def with_tls(connection: "socket.socket", tls: Any, certificate: ClientCertificate | None) -> "socket.socket":
    """Trusts exactly the certificate that the settings name: this asks our own listener on our own machine."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is reached by an address that its certificate need not carry
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(tls.cert_file)
    if getattr(tls, "client_ca_file", "") and certificate is None:
        raise ForwardProtocolError("it wants client certificates: name one with --client-cert and --client-key")
    if certificate is not None:
        try:
            context.load_cert_chain(certificate.cert_file, certificate.key_file)
        except OSError as error:
            reason = error.strerror or "certificate and key do not belong together, or are no PEM files"
            raise ConfigError(
                f"cannot be used as a client's certificate: {reason}", where=certificate.cert_file
            ) from None
    return context.wrap_socket(connection)


def _stored(loaded: "Loaded", before: int) -> bool:
    """Whether the outbox has more events than before, or gets them soon."""
    deadline = time.monotonic() + STORED_DEADLINE_S
    while (_new_events(loaded) or 0) <= before:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _new_events(loaded: "Loaded") -> int | None:
    from forwarder.outbox import read_ledger

    try:
        return read_ledger(loaded.outbox_path).new
    except ConfigError:
        return None


def _arrived(settings: Any, event: TestEvent, began: float) -> Hop:
    """Ask the backend until it has the event, or the deadline is over."""
    from forwarder.wire.http_client import HttpClient, Reply

    title = "read back"
    url = settings.url.rstrip("/")
    client = HttpClient(token=settings.api_key or "", ca_file=settings.ca_file)
    try:
        while True:
            reply = client.call(
                "GET", f"{url}/api/v1/events?limit={READ_BACK_EVENTS}&include_tests=true", deadline_s=ACK_DEADLINE_S
            )
            found = isinstance(reply, Reply) and reply.status == 200 and _holds(reply.body, event)
            took_s = time.monotonic() - began
            if found:
                text = f"{url} has it, {took_s:.1f} s after it was sent; it is marked as a test and not scored"
                return Hop(title, good=True, text=text)
            if isinstance(reply, Reply) and reply.status == FORBIDDEN:
                advice = "make one that may: `forwarder keys create NAME --may write --may read`"
                return Hop(title, good=False, text=f"the key for {url} may write, but not read it back", advice=advice)
            if took_s > ARRIVE_DEADLINE_S:
                break
            time.sleep(POLL_S)
    finally:
        client.close()
    advice = "a plain Healert backend is not sent test events; else see `forwarder status` for what waits and why"
    return Hop(title, good=False, text=f"{url} does not have it after {ARRIVE_DEADLINE_S:.0f} s", advice=advice)


def _holds(body: bytes, event: TestEvent) -> bool:
    try:
        rows = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return False
    return isinstance(rows, list) and any(
        isinstance(row, dict) and row.get("audit_id") == event.audit_id for row in rows
    )
