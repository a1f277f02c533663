"""The Forward source: settings that go together, batches as the pipeline wants them, the ledger's first column."""

import asyncio
import hashlib
import logging

import msgpack
import pytest

from forwarder.contracts import DeadLetter, Line
from forwarder.errors import ConfigError, ForwardProtocolError, ShuttingDown
from forwarder.settings import convert, parse_document
from forwarder.sources import forward
from forwarder.sources.forward import ForwardSettings, ForwardSource
from forwarder.telemetry import Telemetry
from forwarder.wire.fluent_forward import NEED_DATA, Entries, ForwardReceiver, Unreadable, ack
from forwarder.wire.forward_client import entries, entry, packed_forward
from forwarder.wire.forward_connection import ForwardConnection
from forwarder.wire.listen import TlsSettings

TLS = TlsSettings(cert_file="/c", key_file="/k")
MUTUAL_TLS = TlsSettings(cert_file="/c", key_file="/k", client_ca_file="/ca")


def _screen(buffer, start, end):
    return b"secret" in bytes(buffer[start:end])


def _source(screen=_screen, cluster="prod", **settings):
    telemetry = Telemetry()
    source = ForwardSource("forward", ForwardSettings(**settings), screen, telemetry, cluster)
    source.telemetry = telemetry
    return source


# --- settings ------------------------------------------------------------------------------------------------------------


def test_the_documented_settings_are_read():
    """As they stand in the module's example."""
    text = """
listen: 0.0.0.0:24224
shared_key: key
users: {node: pass}
tls: {cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt}
"""
    settings = convert(parse_document(text, "f.yaml"), ForwardSettings)
    assert settings.tls.client_ca_file == "ca.crt"
    _source(**{name: getattr(settings, name) for name in settings.__struct_fields__})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"listen": "0.0.0.0:24224"}, "allow_anonymous: true"),
        ({"listen": ":24224", "tls": TLS}, "allow_anonymous: true"),
        ({"shared_key": ""}, "sources.forward.shared_key: it is empty"),
        ({"users": {"a": "b"}}, "sources.forward.users: users need a `shared_key`"),
        ({"users": {"a": ""}, "shared_key": "k"}, "password is empty"),
        ({"cluster_from_certificate": True}, "needs `tls.client_ca_file`"),
        ({"cluster_from_certificate": True, "tls": TLS}, "needs `tls.client_ca_file`"),
        ({"listen": "nonsense:port"}, "sources.forward.listen"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused_before_anything_opens(settings, words):
    """With the setting's name, and what to do."""
    with pytest.raises(ConfigError, match=words):
        _source(**settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"shared_key": "k"}, {"tls": MUTUAL_TLS}, {"allow_anonymous": True}],
    ids=["loopback", "key", "mutual TLS", "anonymous"],
)
def test_ways_to_open_a_door(settings):
    """To the network only with one of the three."""
    _source(listen="127.0.0.1:0" if not settings else "0.0.0.0:0", **settings)


@pytest.mark.parametrize(
    "text", ["idle_timeout_s: 30", "ack_timeout_s: 0", "max_connections: 0", "log_key: ''", "lisen: x"]
)
def test_values_that_cannot_work_are_refused(text):
    """Below 30 s idle connections would be closed in the client's face; the others make no sense."""
    with pytest.raises(ConfigError):
        convert(parse_document(text, "f.yaml"), ForwardSettings)


async def test_a_source_that_does_not_run_takes_nothing():
    """There is no pipeline behind it."""
    with pytest.raises(ShuttingDown):
        await _source().submit(None)


# --- batches -------------------------------------------------------------------------------------------------------------


def _gathered(data, source=None, certificate=None):
    source = source or _source()
    gatherer = source.gatherer("10.0.0.7:5000", certificate)
    receiver = ForwardReceiver()
    receiver.receive_data(data)
    while (event := receiver.next_event()) is not NEED_DATA:
        if isinstance(event, Entries):
            gatherer.add(event)
        if isinstance(event, Unreadable):
            gatherer.add_unreadable(event)
    return gatherer


def test_candidates_are_copied_and_all_lines_are_counted():
    """What the screen rules out is never copied, but the ledger knows it."""
    data = packed_forward(b"t", entries([b"plain", b"secret 1", b"plain", b"secret 2"], 7.5))
    batch = _gathered(data).batch()
    assert batch.received == 4
    assert [(line.data, line.time_s) for line in batch.lines] == [(b"secret 1", 7.5), (b"secret 2", 7.5)]
    assert [data[data.index(b"\x92\x92") :][line.offset] for line in batch.lines] == [
        0x92,
        0x92,
    ]  # where an entry begins
    assert (batch.origin, batch.cluster, batch.rejected) == ("forward 10.0.0.7:5000", "prod", [])


def test_a_batch_is_taken_once():
    """What comes after it is the next one's."""
    gatherer = _gathered(packed_forward(b"t", entries([b"secret"], 1.0)))
    assert gatherer.held_bytes > len(b"secret")
    assert len(gatherer.batch().lines) == 1
    assert (gatherer.held_bytes, gatherer.batch().received) == (0, 0)


def test_lines_from_parsed_maps_and_other_keys_pass_the_same_screen():
    """The time is the entry's."""
    records = [
        {"verb": "get", "user": "secret"},
        {"verb": "get"},
        {"node": "n", "log": "secret"},
        {"node": "n", "log": "x"},
    ]
    batch = _gathered(packed_forward(b"t", [entry(record, 5.0) for record in records])).batch()
    assert batch.received == 4
    assert batch.lines == [
        Line(data=b'{"verb":"get","user":"secret"}', time_s=5.0, offset=0),
        Line(data=b"secret", time_s=5.0, offset=batch.lines[1].offset),
    ]


def test_line_ends_are_cut_and_empty_lines_are_no_events():
    """Docker keeps the newline; Fluent Bit sends empty lines as empty records."""
    data = packed_forward(b"t", entries([b"secret\r\n", b"", b"  ", b"\n"], 1.0))
    batch = _gathered(data, _source(screen=lambda *_: True)).batch()
    assert ([line.data for line in batch.lines], batch.received, batch.rejected) == ([b"secret"], 4, [])


def test_bad_records_become_dead_letters_without_their_payload():
    """Reason, size, digest, place, and the names of the keys; nothing of the values."""
    bad = entry({"password": "hunter2", "foo": "bar"}, 1.0)
    broken = b"\xc1 hunter2"
    blob = entries([b"x"], 1.0)[0] + bad + broken
    batch = _gathered(msgpack.packb(["t", blob])).batch()
    first = len(blob) - len(bad) - len(broken)
    assert batch.received == 3
    assert batch.rejected == [
        DeadLetter(
            reason="no_line",
            source="forward 10.0.0.7:5000",
            size_bytes=len(bad),
            sha256=hashlib.sha256(bad).hexdigest(),
            offset=first,
            head="password, foo",
        ),
        DeadLetter(
            reason="unreadable_rest",
            source="forward 10.0.0.7:5000",
            size_bytes=len(broken),
            sha256=hashlib.sha256(broken).hexdigest(),
            offset=first + len(bad),
        ),
    ]


def test_the_payload_of_a_dead_letter_is_kept_where_the_operator_wants_it():
    """And counts as held memory."""
    bad = entry({"foo": "bar"}, 1.0)
    without = _gathered(packed_forward(b"t", [bad])).held_bytes
    assert without == forward.REJECTED_BYTES
    gatherer = _gathered(packed_forward(b"t", [bad]), _source(keep_raw_dead_letters=True))
    assert gatherer.held_bytes == without + len(bad)
    assert gatherer.batch().rejected[0].payload == bad


@pytest.mark.parametrize(
    ("limit", "value", "record"),
    [
        ("MAX_HELD_BYTES", 1000, {"log": "secret" + "x" * 500}),
        ("MAX_HELD_LINES", 2, {"log": "secret"}),
        ("MAX_HELD_REJECTED", 2, {"foo": "bar"}),
    ],
)
def test_each_cap_says_that_a_batch_must_be_taken(limit, value, record, monkeypatch):
    """Bytes, lines, dead letters."""
    monkeypatch.setattr(forward, limit, value)
    assert not _gathered(packed_forward(b"t", [entry(record, 1.0)])).full
    assert _gathered(packed_forward(b"t", [entry(record, 1.0)] * 2)).full


def test_the_cluster_may_come_from_the_certificate():
    """Its common name, which the CA has confirmed; without one nobody can say whose events these are."""
    source = _source(tls=MUTUAL_TLS, cluster_from_certificate=True)
    certificate = {"subject": ((("commonName", "prod-eu-1"),),)}
    assert _gathered(b"", source, certificate).batch().cluster == "prod-eu-1"
    with pytest.raises(ForwardProtocolError, match="common name"):
        source.gatherer("10.0.0.7:5000", {"subject": ()})
    assert _gathered(b"", _source(tls=MUTUAL_TLS), certificate).batch().cluster == "prod"


# --- connections ---------------------------------------------------------------------------------------------------------


class Transport(asyncio.Transport):
    def __init__(self, port):
        super().__init__({"peername": ("10.0.0.7", port)})
        self.writes, self.closing = [], False

    def write(self, data):
        self.writes.append(bytes(data))

    def get_write_buffer_size(self):
        return 0

    def close(self):
        self.closing = True

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


def _connect(source, port=5000):
    connection, transport = ForwardConnection(source), Transport(port)
    connection.connection_made(transport)
    return connection, transport


async def test_connections_and_bytes_are_counted_by_cause():
    """What the metrics table promises."""
    source = _source()
    connection, _ = _connect(source)
    assert source.telemetry.value("forwarder_connections", source="forward") == 1
    connection.get_buffer(-1)[:1] = b"\xc0"
    connection.buffer_updated(1)
    connection.connection_lost(None)
    assert source.telemetry.value("forwarder_connections", source="forward") == 0
    assert source.telemetry.value("forwarder_connections_closed", source="forward", cause="peer") == 1
    assert source.telemetry.value("forwarder_source_bytes", source="forward") == 1


async def test_connections_have_a_cap():
    """The next one is closed as it comes."""
    source = _source(max_connections=2)
    transports = [_connect(source, port)[1] for port in (1, 2, 3)]
    assert [transport.closing for transport in transports] == [False, False, True]


async def test_a_batch_reaches_submit_and_then_the_acknowledgement_leaves():
    """The source between the wire and the pipeline."""
    source, batches = _source(), []

    async def submit(batch):
        batches.append(batch)

    source._submit = submit
    connection, transport = _connect(source)
    data = packed_forward(b"t", entries([b"secret", b"plain"], 1.0), chunk=b"c")
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))
    assert transport.writes == []
    for _ in range(10):
        await asyncio.sleep(0)
    assert [(batch.received, [line.data for line in batch.lines]) for batch in batches] == [(2, [b"secret"])]
    assert transport.writes == [ack(b"c")]


def test_a_complaint_names_the_peer_without_its_port(caplog):
    """Each attempt comes from another port; together they are one matter. No payload, no secrets."""
    source = _source(shared_key="hunter2")
    source._complaints = forward.Complaints(logging.getLogger("test"), lambda: 0.0)
    for port in (1, 2, 3):
        source.complain(f"10.0.0.7:{port}", "auth", "the shared key is wrong")
    source.complain("unix", "auth", "the shared key is wrong")
    assert [record.getMessage() for record in caplog.records] == [
        "forward: 10.0.0.7: the shared key is wrong",
        "forward: unix: the shared key is wrong",
    ]
