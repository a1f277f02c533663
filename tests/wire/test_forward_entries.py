"""Entries in a buffer: the same found by the fast way, the tokenizer and the walk."""

import msgpack
import pytest

from forwarder.errors import ForwardProtocolError
from forwarder.wire import forward_entries
from forwarder.wire.forward_client import entry, event_time
from forwarder.wire.forward_entries import MAX_ENTRY_BYTES, EntryScanner, Other, time_s

RAW = entry({"log": "x" * 300}, 2.5)
TWO_KEYS = entry({"log": "y" * 300, "node": "n1"}, 2.5)
MAP = entry({"verb": "get", "user": {"groups": ["a", "b"]}}, 2.5)


def _scan_all(data, step, *, in_blob=True):
    """Spans and others of `data`, which arrives in pieces of `step` bytes."""
    scanner, spans, others = EntryScanner(b"log", in_blob=in_blob), [], []
    position = 0
    for end in [*range(step, len(data), step), len(data)]:
        while len(found := scanner.scan(data, position, end)):
            spans += found.spans
            others += found.others
            position = found.stop
    return spans, others, position


@pytest.mark.parametrize("step", [1, 7, 100, 301, 10_000])
def test_any_mix_of_shapes_is_found_however_it_arrives(step):
    """Lines in place, maps as a whole, and the end where the last one ends."""
    parts = [RAW, TWO_KEYS, RAW, RAW, MAP, MAP, RAW, TWO_KEYS]
    data = b"".join(parts)
    spans, others, position = _scan_all(data, step)
    assert position == len(data)
    assert sorted(data[start:end][:1] for start, end in spans) == [b"x"] * 4 + [b"y"] * 2
    assert all(end - start == 300 for start, end in spans)
    assert [data[other.start : other.stop] for other in others] == [MAP, MAP]


def test_the_fast_way_needs_no_tokenizer(monkeypatch):
    """What audit shippers send is found by one expression; a change of that shape must be seen here, not in production."""
    monkeypatch.setattr(forward_entries.msgpack, "Unpacker", None)
    data = RAW * 100
    found = EntryScanner(b"log", in_blob=True).scan(data, 0, len(data))
    assert (len(found.spans), found.stop) == (100, len(data))


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
@pytest.mark.parametrize("part", [RAW, MAP, TWO_KEYS], ids=["raw", "map", "two keys"])
def test_no_more_than_asked_for(part, limit):
    """An array of entries ends after its last, though bytes that look like another follow."""
    data = part * 9
    scanner = EntryScanner(b"log", in_blob=False)
    assert len(scanner.scan(data, 0, 10, limit)) == 0  # cut: remembered
    found = scanner.scan(data, 0, len(data), limit)
    assert (len(found), found.stop) == (limit, limit * len(part))


def test_a_cut_entry_counts_among_those_asked_for():
    """It was found by the walk, the lines behind it by the fast way; together they are no more than the limit."""
    data = MAP + RAW * 9
    scanner = EntryScanner(b"log", in_blob=False)
    assert len(scanner.scan(data, 0, 10, 3)) == 0
    found = scanner.scan(data, 0, len(data), 3)
    assert (len(found.others), len(found.spans), found.stop) == (1, 2, len(MAP) + 2 * len(RAW))


def test_a_line_is_only_a_line_under_the_log_key_and_first():
    """A key that begins like it, or a value that is no text, is no raw line."""
    for record in ({"logs": "x"}, {"lo": "x"}, {"log": 5}, {"log": ["x"]}, {"a": 1, "log": "x"}, {}, {"log": None}):
        data = entry(record, 1.0)
        found = EntryScanner(b"log", in_blob=True).scan(data, 0, len(data))
        assert (found.spans, len(found.others)) == ([], 1)


@pytest.mark.parametrize("key", ["k", "k" * 31, "k" * 32, "k" * 128])
def test_a_log_key_of_any_length(key):
    """Its own header may be of any width too."""
    data = entry({key: "x" * 300}, 1.0)
    assert len(EntryScanner(key.encode(), in_blob=True).scan(data, 0, len(data)).spans) == 1


def test_a_key_is_taken_literally():
    """The log key is a setting, not an expression."""
    data = entry({"logs": "x"}, 1.0)
    assert not EntryScanner(b"lo..", in_blob=True).scan(data, 0, len(data)).spans


def test_what_is_no_array_is_one_bad_entry_among_others_but_breaks_a_blob():
    """In an array of entries the next one is where msgpack says; in a blob nothing says what the bytes are."""
    data = b"\x05" + RAW
    assert EntryScanner(b"log", in_blob=False).scan(data, 0, len(data)).others == [Other(0, -1, 1)]
    found = EntryScanner(b"log", in_blob=True).scan(data, 0, len(data))
    assert (len(found), found.broken, found.stop) == (0, True, 0)


def test_an_entry_over_the_limit_is_an_error_as_soon_as_it_says_so():
    """Long before its bytes have come; and the advice is for the sender."""
    head = RAW[: RAW.index(b"\xa3log") + 4]
    data = head + b"\xdb" + (MAX_ENTRY_BYTES + 1).to_bytes(4, "big")
    with pytest.raises(ForwardProtocolError, match="buffer_max_size"):
        EntryScanner(b"log", in_blob=True).scan(data, 0, len(data))


@pytest.mark.parametrize("time", [event_time(2.5), [event_time(2.5), {}], [event_time(2.5), {"a": 1}]], ids=str)
def test_the_time_is_found_in_both_entry_forms(time):
    """Seconds and nanoseconds."""
    data = msgpack.packb([time, {"log": "x"}])
    assert time_s(data, 0, len(data)) == 2.5


@pytest.mark.parametrize(
    "data", [b"", b"\x92", b"\x92\xd7\x00\x01", b"\xc1", b"\x92\xc1", b"\x92\x92\x92\x01"], ids=repr
)
def test_a_time_that_cannot_be_read_is_unknown(data):
    """0.0, whatever it is."""
    assert time_s(data, 0, len(data)) == 0.0
