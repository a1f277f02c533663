"""The decoder: what real agents send, every mode and shape by hand, damage, bombs, and the traps that others fell into."""

import gzip
import hashlib
import json
import struct
import sys
import tracemalloc

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.errors import ForwardProtocolError
from forwarder.wire import forward_entries, forward_inflate
from forwarder.wire.fluent_forward import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_OPTION_BYTES,
    MAX_TAG_BYTES,
    NEED_DATA,
    Entries,
    ForwardReceiver,
    Heartbeat,
    MessageEnd,
    MessageStart,
    Unreadable,
)
from forwarder.wire.forward_client import entry, event_time, packed_forward
from forwarder.wire.forward_entries import MAX_ENTRIES_PER_SCAN, MAX_ENTRY_BYTES
from forwarder.wire.forward_handshake import ClientHandshake, ServerHandshake, Verdict

NONCE = bytes(range(16))  # of tests/golden/capture.py
NOT_UTF8 = b"not json \xff\xfe\x00 at all"
TIME = 1_700_000_000.5
CAPTURES = (
    "forward",
    "forward-no-ack",
    "forward-no-metadata",
    "forward-integer-time",
    "forward-two-keys",
    "upstream",
    "gzip",
    "parsed",
)


def _lines(events):
    return [event[2] for event in events if isinstance(event, tuple) and event[1] == "line"]


def _times(events):
    return [event[3] for event in events if isinstance(event, tuple)]


def _bad(events):
    return [event[2] for event in events if isinstance(event, tuple) and event[1] == "bad"]


def _pack(*elements):
    return msgpack.packb(list(elements), use_bin_type=True)


def _run(data, step=sys.maxsize):
    receiver = ForwardReceiver()
    for at in range(0, len(data), min(step, len(data) or 1)):
        receiver.receive_data(data[at : at + step])
        while receiver.next_event() is not NEED_DATA:
            pass


# --- what a real Fluent Bit sends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CAPTURES)
def test_every_capture_of_fluent_bit_gives_its_three_lines(name, golden, decode):
    """Whatever the options, the three lines of the file come out, the one that is not UTF-8 byte for byte."""
    events = decode(golden(name))
    lines = _lines(events)
    assert [json.loads(line).get("auditID") for line in lines[:2]] == ["7e0cbccf-8f4a-4d2c-9a7e-1a2b3c4d5e6f", "b"]
    assert lines[2] == NOT_UTF8
    assert events[0] == MessageStart(b"audit")
    assert events[-1].entries == 3
    assert all(time > 1_785_542_400 for time in _times(events))


@pytest.mark.parametrize("name", sorted(set(CAPTURES) - {"forward-no-ack"}))
def test_a_chunk_id_comes_out_as_it_was_sent(name, golden, decode):
    """24 characters of base64, and the number of records beside it."""
    end = decode(golden(name))[-1]
    assert len(end.chunk) == 24
    assert end.size == 3


def test_without_ack_fluent_bit_sends_no_options_at_all(golden, decode):
    """A message may be an array of two."""
    assert decode(golden("forward-no-ack"))[-1] == MessageEnd(None, None, 3)


def test_message_mode_of_fluent_bit(golden, decode):
    """A tag that is looked up in the record makes it send one message per record, with options but no size."""
    start, (_, _, line, _), end = decode(golden("message"))
    assert start == MessageStart(b"n1")
    assert json.loads(line)["user"]["username"] == "jane"
    assert (len(end.chunk), end.size, end.entries) == (24, None, 1)


def test_a_parsed_map_becomes_the_same_line_again(golden, decode):
    """Key order, numbers, escapes and non-ASCII text survive Fluent Bit's parser and our way back."""
    raw, parsed = _lines(decode(golden("forward"))), _lines(decode(golden("parsed")))
    assert parsed[0] == raw[0]
    assert json.loads(parsed[1])["user"] == json.loads(raw[1])["user"]


@pytest.mark.parametrize("name", ["handshake", "handshake-user"])
def test_the_handshake_of_fluent_bit_is_accepted(name, golden, decode):
    """Its salt is 16 bytes that are no UTF-8; the digests agree with ours."""
    users = {"node": "node-password"} if "user" in name else {}

    def make():
        return ForwardReceiver(handshake=ServerHandshake("golden-key", users, nonce=NONCE, auth=NONCE))

    verdict, start, *_ = decode(golden(name), make=make)
    assert isinstance(verdict, Verdict)
    assert verdict.ok
    assert verdict.user == ("node" if users else "")
    assert start == MessageStart(b"audit")


# --- every shape that the protocol allows --------------------------------------------------------------------------------

RECORD = {"log": "x" * 40}
FIX_TIME = b"\xd7\x00" + struct.pack(">II", 1_700_000_000, 500_000_000)
EXT_TIME = b"\xc7\x08\x00" + struct.pack(">II", 1_700_000_000, 500_000_000)
PACKED_RECORD = msgpack.packb(RECORD)
ENTRIES = {
    "plain, fixext time": b"\x92" + FIX_TIME + PACKED_RECORD,
    "plain, ext8 time": b"\x92" + EXT_TIME + PACKED_RECORD,
    "metadata": b"\x92\x92" + FIX_TIME + b"\x80" + PACKED_RECORD,
    "metadata with values": b"\x92\x92" + FIX_TIME + msgpack.packb({"a": {"b": [1]}}) + PACKED_RECORD,
    "wide headers": b"\xdd\0\0\0\2\xdd\0\0\0\2"
    + FIX_TIME
    + b"\xdf\0\0\0\0\xdf\0\0\0\1\xa3log\xdb\0\0\0\x28"
    + b"x" * 40,
    "16 bit headers": b"\xdc\0\2\xdc\0\2" + FIX_TIME + b"\xde\0\0\xde\0\1\xd9\3log\xda\0\x28" + b"x" * 40,
    "bin line": b"\x92" + FIX_TIME + b"\x81\xc4\3log\xc4\x28" + b"x" * 40,
    "bin16 line": b"\x92" + FIX_TIME + b"\x81\xa3log\xc5\0\x28" + b"x" * 40,
    "bin32 line": b"\x92" + FIX_TIME + b"\x81\xa3log\xc6\0\0\0\x28" + b"x" * 40,
    "more keys behind": b"\x92" + FIX_TIME + msgpack.packb({**RECORD, "node": "n", "n": [1, {"a": 2}]}),
    "more keys before": b"\x92" + FIX_TIME + msgpack.packb({"node": "n", "n": [1, {"a": 2}], **RECORD}),
}


def _modes(packed):
    yield b"\x92\xa1t\x91" + packed
    yield b"\x93\xa1t\xdc\0\1" + packed + msgpack.packb({"chunk": "c"})
    yield b"\x93\xa1t\xdd\0\0\0\1" + packed + b"\xc0"
    yield _pack("t", packed)
    yield _pack("t", packed, {"chunk": "c"})
    yield b"\xdd\0\0\0\3\xd9\1t\xdb" + struct.pack(">I", len(packed)) + packed + msgpack.packb({"chunk": "c"})
    yield _pack("t", gzip.compress(packed), {"chunk": "c", "compressed": "gzip"})
    yield _pack("t", zstandard.compress(packed), {"chunk": "c", "compressed": "zstd"})


@pytest.mark.parametrize("shape", ENTRIES)
def test_an_entry_of_any_shape_in_any_mode_gives_its_line_and_time(shape, decode):
    """Both entry forms, both EventTime forms, headers of every width; Forward, packed, gzip and zstd."""
    for data in _modes(ENTRIES[shape]):
        start, (_, kind, line, time), end = decode(data)
        assert (start, kind, line, time) == (MessageStart(b"t"), "line", b"x" * 40, TIME)
        assert end.entries == 1


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (0, 0.0),
        (100, 100.0),
        (200, 200.0),
        (60_000, 60_000.0),
        (1_700_000_000, 1.7e9),
        (2**33, 2.0**33),
        (-5, 0.0),
        (1.5, 0.0),
        (None, 0.0),
        ("now", 0.0),
        (msgpack.ExtType(7, b"12345678"), 0.0),
    ],
    ids=str,
)
def test_a_time_is_integer_or_event_time_and_anything_else_is_unknown(time, expected, decode):
    """An odd time costs the time, never the line."""
    for data in _modes(msgpack.packb([time, RECORD])):
        assert (_lines(decode(data)), _times(decode(data))) == ([b"x" * 40], [expected])


@pytest.mark.parametrize("options", [(), ({},), ({"chunk": "c"},), (None,)], ids=["none", "empty", "chunk", "nil"])
def test_message_mode_has_three_or_four_elements(options, decode):
    """fluent-logger sends three, the Go and node clients four; the type of the second says which mode it is."""
    start, (_, _, line, time), end = decode(_pack("t", 7, RECORD, *options))
    assert (start, line, time) == (MessageStart(b"t"), b"x" * 40, 7.0)
    assert end == MessageEnd(b"c" if options == ({"chunk": "c"},) else None, None, 1)


def test_metadata_of_message_mode_stands_in_the_options(decode):
    """Fluent Bit puts it there; it is nothing to us."""
    options = {"metadata": {"a": 1}, "chunk": "c", "fluent_signal": 0}
    assert _lines(decode(_pack("t", event_time(TIME), RECORD, options))) == [b"x" * 40]


def test_messages_follow_each_other_in_one_read(decode):
    """Logging libraries concatenate; nil between them is a heartbeat."""
    one, two = _pack("a", 1, {"log": "1"}), _pack("b", 2, {"log": "2"})
    events = decode(one + b"\xc0" + two)
    assert [event for event in events if not isinstance(event, tuple)] == [
        MessageStart(b"a"),
        MessageEnd(None, None, 1),
        Heartbeat(),
        MessageStart(b"b"),
        MessageEnd(None, None, 1),
    ]


@pytest.mark.parametrize(
    "empty", [[], b"", gzip.compress(b""), zstandard.compress(b"")], ids=["list", "bin", "gzip", "zstd"]
)
def test_a_message_without_entries_is_acknowledged_too(empty, decode):
    """Nothing is also a complete message."""
    assert decode(_pack("t", empty, {"chunk": "c"})) == [MessageStart(b"t"), MessageEnd(b"c", None, 0)]


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"log": "anything"}, b"anything"),
        ({"message": '{"kind":"Event"}'}, b'{"kind":"Event"}'),
        ({"a": 1, "message": ' {"kind":"Event"}'}, b' {"kind":"Event"}'),
        ({"message": "hello", "kind": "Event"}, b'{"message":"hello","kind":"Event"}'),
        ({"log": {"kind": "Event", "verb": "get"}, "node": "n"}, b'{"kind":"Event","verb":"get"}'),
        ({"kind": "EventList", "items": [{"verb": "get"}]}, b'{"kind":"EventList","items":[{"verb":"get"}]}'),
        ({"verb": "get", "n": {1: None, "f": 1.5}}, b'{"verb":"get","n":{"1":null,"f":1.5}}'),
    ],
    ids=["log", "message", "message behind", "message is no line", "map under log", "list", "map"],
)
def test_where_a_line_may_stand_in_a_record(record, line, decode):
    """Under the log key; under `message` if it looks like JSON; or the record is the event."""
    assert _lines(decode(_pack("t", [[1, record]]))) == [line]


def test_the_log_key_is_a_setting(decode):
    """With another key its lines are found in place; `log` is still looked at."""
    data = _pack("t", [[1, {"line": "a"}], [1, {"log": '{"b":1}'}], [1, {"log": "c"}]])
    events = decode(data, log_key="line")
    assert (_lines(events), _bad(events)) == ([b"a", b'{"b":1}'], ["no_line"])


def test_an_audit_line_of_eight_mebibytes_passes():
    """Larger than any receive buffer; memory afterwards is given back."""
    line = b"{" + b"x" * (8 << 20)
    receiver, found = ForwardReceiver(), []
    data = packed_forward(b"t", [entry({"log": line.decode()}, 1.0)], chunk=b"c")
    for at in range(0, len(data), 100_000):
        receiver.receive_data(data[at : at + 100_000])
        while (event := receiver.next_event()) is not NEED_DATA:
            if isinstance(event, Entries):
                found += [bytes(event.buffer[start:end]) for start, end in event.spans]
    assert found == [line]
    assert receiver.held_bytes < 100_000


def test_entries_leave_before_their_message_is_complete():
    """No message is held whole: 20 MB pass through less than one."""
    packed = entry({"log": "x" * 2800}, 1.0) * 7000
    for compress in (False, True):
        blob = gzip.compress(packed, 1) if compress else packed
        receiver, held, seen = ForwardReceiver(), 0, 0
        data = _pack("t", blob)
        for at in range(0, len(data), 65536):
            receiver.receive_data(data[at : at + 65536])
            while (event := receiver.next_event()) is not NEED_DATA:
                if isinstance(event, Entries):
                    seen += len(event.spans)
                    held = max(held, receiver.held_bytes)
        assert seen == 7000
        assert held < 1 << 20


# --- bad records: counted, kept, never fatal ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([1, "text"], "not_a_record"),
        ([1, None], "not_a_record"),
        ([1, {}], "no_line"),
        ([1, {"foo": "bar"}], "no_line"),
        ([1, {"log": 5}], "no_line"),
        ([1, {"kind": msgpack.ExtType(5, b"x")}], "unreadable_record"),
        ([1], "not_an_entry"),
        ([1, {"log": "x"}, 3], "not_an_entry"),
    ],
    ids=str,
)
def test_a_bad_record_is_told_and_its_neighbours_come_through(bad, reason, decode):
    """The message stays readable, so it goes on and can be acknowledged."""
    good = [1, {"log": "good"}]
    blob = b"".join(map(msgpack.packb, (good, bad, good)))
    for data in (_pack("t", [good, bad, good], {"chunk": "c"}), _pack("t", blob, {"chunk": "c"})):
        events = decode(data)
        assert (_lines(events), _bad(events)) == ([b"good", b"good"], [reason])
        assert events[-1] == MessageEnd(b"c", None, 3)


def test_a_depth_bomb_is_one_bad_record(decode):
    """Deeper than any decoder goes: the tokenizer gives up, the counter does not."""
    bomb = b"\x92\x01" + b"\x91" * 100_000 + b"\xc0"
    good = msgpack.packb([1, {"log": "good"}])
    for data in _modes(good + bomb + good):
        if data[3] == 0x91 or data[3] in (0xDC, 0xDD):
            continue  # these say that one entry follows
        receiver, lines, bad = ForwardReceiver(), [], []
        receiver.receive_data(data)
        while (event := receiver.next_event()) is not NEED_DATA:
            if isinstance(event, Entries):
                lines += [bytes(event.buffer[start:end]) for start, end in event.spans]
                bad += event.others
        assert lines == [b"good", b"good"]
        assert [other.stop - other.start for other in bad] == [len(bomb)]


def test_a_deep_body_does_not_hide_its_event(decode):
    """Whoever nests an object 5000 deep in a request is still seen making it."""
    deep = b"\x91" * 5000 + b"\xc0"
    record = b"\x83\xa4verb\xa3get\xadrequestObject" + deep + b"\xa5stage\xa5Panic"
    events = decode(b"\x92\xa1t\x91\x92\x01" + record)
    assert _lines(events) == [b'{"verb":"get","requestObject":"skipped-too-deep-object","stage":"Panic"}']


@pytest.mark.parametrize("broken", [b"\xc1", b"\x92\x01\xc1", b"\x00", b"\x81\xa3log\xa1x", b"text"], ids=repr)
def test_what_follows_a_place_where_no_entry_can_begin_is_one_record(broken, decode):
    """The blob's length says where the message goes on: the rest is measured, hashed and told, and the message ends well."""
    good = msgpack.packb([1, {"log": "good"}])
    rest = broken + good * 3
    for blob in (good + rest, gzip.compress(good + rest), zstandard.compress(good + rest)):
        events = decode(_pack("t", blob, {"chunk": "c"}))
        assert _lines(events) == [b"good"]
        assert events[-2:] == [
            Unreadable(len(rest), hashlib.sha256(rest).hexdigest(), len(good)),
            MessageEnd(b"c", None, 2),
        ]


# --- damage: an error, never an ack ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 5, 20])
@pytest.mark.parametrize("how", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_a_whole_blob_that_ends_inside_an_entry_is_an_error(how, cut):
    """Taking its last entry for one that is still to come would acknowledge what never arrived."""
    packed = entry({"log": "x" * 100}, 1.0) * 2
    data = _pack("t", how(packed[:-cut]), {"chunk": "c"})
    with pytest.raises(ForwardProtocolError, match="ends in the middle"):
        _run(data)
    with pytest.raises(ForwardProtocolError, match="ends in the middle"):
        _run(data, 1)


@pytest.mark.parametrize("how", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_compressed_stream_that_is_cut_is_an_error(how):
    """Even where the entries that came out of it are whole."""
    whole = how(entry({"log": "x" * 100}, 1.0))
    for cut in range(1, len(whole) - 4):
        with pytest.raises(ForwardProtocolError):
            _run(_pack("t", whole[:-cut], {"chunk": "c"}))


def test_several_gzip_members_are_one_blob(decode):
    """Fluentd compresses per append; decompressors that stop after the first member lose the rest silently."""
    members = b"".join(gzip.compress(entry({"log": f"line {n}"}, 1.0)) for n in range(50)) + gzip.compress(b"")
    frames = b"".join(zstandard.compress(entry({"log": f"line {n}"}, 1.0)) for n in range(50))
    expected = [f"line {n}".encode() for n in range(50)]
    assert _lines(decode(_pack("t", members))) == expected
    assert _lines(decode(_pack("t", frames))) == expected


def test_an_entry_may_span_gzip_members(decode):
    """Members are cut where the sender's buffer was, not where entries end."""
    packed = entry({"log": "x" * 100}, 1.0) * 3
    members = b"".join(gzip.compress(packed[at : at + 70]) for at in range(0, len(packed), 70))
    assert _lines(decode(_pack("t", members))) == [b"x" * 100] * 3


@pytest.mark.parametrize(
    "data",
    [
        b"\x91\xa1t",
        b"\x95\xa1t\x90\x80\x80\x80",
        b"\x93\xa1t",
        _pack("t", {}),
        _pack("t", None),
        _pack("t", 1.5, {}),
        _pack("t", True, {}),
        _pack(5, []),
        _pack(None, []),
        _pack("t", [], {}, {}),
        _pack("t", 1),
        _pack("t", [], "options"),
        _pack("t", [], {"chunk": 5}),
        _pack("t", [], {"chunk": "x" * (MAX_CHUNK_BYTES + 1)}),
        _pack("t", [], {"x": "x" * MAX_OPTION_BYTES}),
        _pack("t" * (MAX_TAG_BYTES + 1), []),
        b"\x92\xa1t\x91\x92\x01\xc1",
        b"\x92\xa1t\xc6" + struct.pack(">I", MAX_MESSAGE_BYTES + 1),
        b"\x92\xa1t\x91\x92\x01\x81\xa3log\xdb" + struct.pack(">I", MAX_ENTRY_BYTES + 1),
        _pack("t", []) + b"\x01",
        _pack("t", []) + b"\xc1",
        b"\x93\xa1t\x90\x82" + b"\x91" * 5000 + b"\xc0\xc0\xc0\xc0",
    ],
    ids=lambda data: data[:12].hex(),
)
def test_what_is_no_forward_message_is_an_error_and_stays_one(data):
    """After the first error nothing else ever comes from that connection."""
    receiver = ForwardReceiver()
    receiver.receive_data(data + b"\xc0" * 20)
    seen = []
    with pytest.raises(ForwardProtocolError):
        seen.extend(iter(receiver.next_event, NEED_DATA))
    assert not any(isinstance(event, MessageEnd) and event.chunk for event in seen)
    with pytest.raises(ForwardProtocolError):
        receiver.next_event()


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "looks like TLS"),
        (b"GET / HTTP/1.1\r\n", "looks like HTTP"),
        (b"POST /audit HTTP/1.1\r\n", "looks like HTTP"),
        (b'{"kind":"Event"}', "looks like JSON"),
        (b'["tag", 1]', "looks like JSON"),
        (b"\x00", "0x00"),
        (b"hello", "0x68"),
    ],
    ids=["tls", "get", "post", "json", "json list", "nul", "text"],
)
def test_the_first_byte_says_who_came_to_the_wrong_door(data, advice):
    """A TLS hello decodes as msgpack integers; without this look it would be a puzzle in the log."""
    for handshake in (None, ServerHandshake("key", {})):
        receiver = ForwardReceiver(handshake=handshake)
        receiver.receive_data(data)
        with pytest.raises(ForwardProtocolError, match=advice):
            receiver.next_event()


def test_nothing_is_accepted_before_the_handshake():
    """Fluent Bit sends data right after a refusal if the connection stays open."""
    message = _pack("t", [[1, {"log": "x"}]], {"chunk": "c"})
    receiver = ForwardReceiver(handshake=ServerHandshake("key", {}))
    receiver.receive_data(message)
    with pytest.raises(ForwardProtocolError, match="shared_key"):
        receiver.next_event()

    server = ServerHandshake("key", {})
    receiver = ForwardReceiver(handshake=server)
    receiver.receive_data(ClientHandshake("wrong").answer(server.hello()) + message)
    verdict = receiver.next_event()
    assert not verdict.ok
    with pytest.raises(ForwardProtocolError, match="the shared key is wrong"):
        receiver.next_event()


def test_a_handshake_message_has_a_limit():
    """Nobody is authenticated yet."""
    receiver = ForwardReceiver(handshake=ServerHandshake("key", {}))
    receiver.receive_data(b"\x96\xa4PING\xdb\x7f\xff\xff\xff")
    with pytest.raises(ForwardProtocolError, match="a handshake message larger"):
        receiver.next_event()


# --- bombs ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_decompression_bomb_ends_at_the_limit_with_little_memory(how, monkeypatch):
    """Inflated bytes are counted per message; what is held at once is one piece."""
    monkeypatch.setattr(forward_inflate, "MAX_INFLATED_BYTES", 40 << 20)
    data = _pack("t", how(entry({"log": "x" * 4000}, 1.0) * 11_000), {"chunk": "c"})
    receiver, held = ForwardReceiver(), []
    receiver.receive_data(data)
    with pytest.raises(ForwardProtocolError, match="inflates to more than 40 MiB"):
        held.extend(receiver.held_bytes for _ in iter(receiver.next_event, NEED_DATA))
    assert len(held) > 4
    assert max(held) < 12 << 20


@pytest.mark.parametrize(
    "entries",
    [msgpack.packb([1, {"log": ""}]) * 50_000, [[1, {"log": ""}]] * 50_000, [[1, {}]] * 50_000, [None] * 50_000],
    ids=["packed", "lines", "maps", "nils"],
)
def test_one_event_holds_a_bounded_number_of_entries(entries):
    """Half a million tiny entries in one read leave in many events."""
    receiver = ForwardReceiver()
    receiver.receive_data(_pack("t", entries))
    sizes = []
    while (event := receiver.next_event()) is not NEED_DATA:
        if isinstance(event, Entries):
            sizes.append(len(event.spans) + len(event.others))
    assert sum(sizes) == 50_000
    assert max(sizes) <= MAX_ENTRIES_PER_SCAN


def test_a_window_that_the_sender_has_chosen_is_counted():
    """Eight megabytes for a few bytes that never end: each of thousands of connections may ask for them."""
    frame = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=23))
    compressor = frame.compressobj()  # does not say its size
    blob = compressor.compress(bytes(20 << 20)) + compressor.flush()
    receiver = ForwardReceiver()
    receiver.receive_data(_pack("t", blob, {"chunk": "c"})[: len(blob) // 2])
    while receiver.next_event() is not NEED_DATA:
        pass
    assert receiver.held_bytes > 8 << 20
    receiver.receive_data(_pack("t", blob, {"chunk": "c"})[len(blob) // 2 :])
    while receiver.next_event() is not NEED_DATA:
        pass
    assert receiver.held_bytes < 1 << 20


@pytest.mark.parametrize(
    "header",
    [
        b"\x92\xa1t\xdd\xff\xff\xff\xff",
        b"\x92\xa1t\x91\x92\x01\xdf\xff\xff\xff\xff",
        b"\x93\xa1t\x90\xdf\xff\xff\xff\xff",
    ],
    ids=["entries", "map", "options"],
)
def test_a_declared_size_allocates_nothing(header):
    """Four billion announced elements cost what was sent."""
    tracemalloc.start()
    _run(header + b"\x92\x01\x80" * 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_peer_that_sends_byte_by_byte_costs_a_step_a_byte(monkeypatch):
    """The walk into a cut entry goes on where it stopped, so 30 kB byte by byte are 30,000 small steps, not 450 million."""
    walked = 0
    plain_walk = forward_entries.walk

    def counting(buffer, start, end, objects):
        nonlocal walked
        walked += max(0, end - start)
        return plain_walk(buffer, start, end, objects)

    monkeypatch.setattr(forward_entries, "walk", counting)
    record = {"verb": "get", **{f"key{n}": [n, "v"] for n in range(2000)}}
    data = _pack("t", [[1, record]])
    _run(data, 1)
    assert walked < 4 * len(data)


# --- anything at all ----------------------------------------------------------------------------------------------------------


@st.composite
def damaged(draw, captures):
    """A capture, cut, overwritten, lengthened."""
    data = bytearray(draw(st.sampled_from(captures)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(["byte", "cut", "insert", "header"]))
        if what == "byte":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 60))]
        elif what == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=20))
        else:
            data[at : at + 1] = draw(
                st.sampled_from([b"\xc1", b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\x91", b"\xff", b"\x92"])
            )
    return bytes(data)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_gives_only_forward_protocol_errors_and_bounded_memory(data, golden):
    """Whatever comes, however it is cut: events, a wait for more, or the one error."""
    captures = [golden(name) for name in (*CAPTURES, "message")]
    captures.append(_pack("t", zstandard.compress(entry({"log": "x" * 50}, 1.0) * 5), {"chunk": "c"}))
    wire, step = data.draw(damaged(captures)), data.draw(st.sampled_from([1, 7, 100, 10_000]))
    receiver = ForwardReceiver()
    try:
        for at in range(0, len(wire), step):
            receiver.receive_data(wire[at : at + step])
            while (event := receiver.next_event()) is not NEED_DATA:
                if isinstance(event, Entries):
                    for start, end in event.spans:
                        assert 0 <= start <= end <= len(event.buffer)
                    for at_ in [*event.starts, *(other.start for other in event.others)]:
                        assert event.time_s(at_) >= 0
            assert receiver.held_bytes < 2 << 20
    except ForwardProtocolError:
        pass


@settings(max_examples=200, deadline=None)
@given(wire=st.binary(max_size=300), handshake=st.booleans())
def test_random_bytes_give_only_forward_protocol_errors(wire, handshake):
    """Also behind the first bytes of a message, so that they get past the door."""
    for start in (b"", b"\x93\xa1t\x91", b"\x93\xa1t\xc4\x40", b"\x93\xa1t\x90", b"\x94\xa1t\x01", b"\x96\xa4PING"):
        receiver = ForwardReceiver(handshake=ServerHandshake("key", {}) if handshake else None)
        receiver.receive_data(start + wire)
        try:
            while receiver.next_event() is not NEED_DATA:
                pass
        except ForwardProtocolError:
            pass
