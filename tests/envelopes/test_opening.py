"""Any message: its form is recognised, forms nest, nothing raises and nothing is lost without a word."""

import base64
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.envelopes import opening
from forwarder.envelopes.opening import open_message

EVENT = {"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "a", "stage": "ResponseComplete", "verb": "get"}  # fmt: skip
LINE = json.dumps(EVENT, separators=(",", ":")).encode()
IN_A_LIST = {key: value for key, value in EVENT.items() if key not in ("kind", "apiVersion")}
EVENT_LIST = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": [IN_A_LIST] * 3}


def dumps(value):
    return json.dumps(value, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (LINE, 1),
        (LINE + b"\n", 1),
        (dumps([EVENT, EVENT]), 2),
        (LINE + b"\n" + LINE + b"\r\n\n" + LINE, 3),
        (LINE + LINE, 2),
        (gzip.compress(LINE + b"\n" + LINE), 2),
        (json.dumps(EVENT, indent=2).encode(), 1),
        (dumps(json.dumps(EVENT)), 1),
        (b"", 0),
        (b" \n\0 ", 0),
        (b"[]", 0),
        (dumps({"kind": "EventList", "items": []}), 0),
    ],
    ids=["event", "newline", "array", "lines", "in a row", "gzip", "indented", "text of json", "empty", "blank", "empty array", "empty list"],
)  # fmt: skip
def test_plain_forms(data, count):
    """One event, several, compressed, indented, none."""
    contents = open_message(data, max_bytes=1 << 20)
    assert [json.loads(found.line) for found in contents.lines] == [EVENT] * count
    assert contents.bad == []


@pytest.mark.parametrize(
    "data",
    [dumps(EVENT_LIST), dumps([IN_A_LIST] * 3), b"\xef\xbb\xbf" + dumps(EVENT_LIST)],
    ids=["list", "array", "BOM"],
)
def test_items_of_a_list_become_the_lines_that_the_log_file_has(data):
    """kube-apiserver leaves kind and apiVersion out in a list; with them a line can be screened in place."""
    assert [found.line for found in open_message(data, max_bytes=1).lines] == [LINE] * 3


@pytest.mark.parametrize(
    ("record", "time_s"),
    [
        ({"@timestamp": 1786699391.5, "log": LINE.decode()}, 1786699391.5),
        ({"@timestamp": "2026-08-14T09:23:11.5Z", "log": LINE.decode() + "\n"}, 1786699391.5),
        ({"date": 1786699391.5, "log": LINE.decode()}, 1786699391.5),
        ({"timestamp": "2026-08-14T09:23:11.5Z", "message": LINE.decode()}, 1786699391.5),
        ({"log": EVENT}, 0.0),
        ({"@timestamp": 1786699391.5, **EVENT}, 1786699391.5),
    ],
    ids=["fluent bit", "its iso8601", "its http", "vector", "parsed under log", "parsed"],
)
def test_records_of_log_shippers(record, time_s):
    """The line under a key of theirs, or the event's own fields; the time is theirs."""
    contents = open_message(dumps(record), max_bytes=1)
    assert len(contents.lines) == 1
    assert EVENT.items() <= json.loads(contents.lines[0].line).items()
    assert contents.lines[0].time_s == time_s


def test_an_envelope_in_a_record_of_a_shipper():
    """Forms nest."""
    inner = {
        "@timestamp": 1.0,
        "log": json.dumps({"records": [{"category": "kube-audit", "properties": {"log": LINE.decode()}}]}),
    }
    assert [found.line for found in open_message(dumps([inner]), max_bytes=1).lines] == [LINE]


def test_what_is_no_event_in_a_list_is_a_line_of_its_own():
    """Detection makes a dead letter of it; its neighbours count."""
    listing = dumps({"kind": "EventList", "items": [IN_A_LIST, 42, "x", None, IN_A_LIST]})
    found = [found.line for found in open_message(listing, max_bytes=1).lines]
    assert found == [LINE, b"42", b'"x"', b"null", LINE]


@pytest.mark.parametrize("data", [b"this is no audit event", b'{"some":"object"}', b"42", b'{"kind":"Event"'])
def test_what_is_nothing_known_is_one_line(data):
    """Detection says what is wrong with it, and keeps it."""
    contents = open_message(data, max_bytes=1)
    assert [found.line for found in contents.lines] == [data]


def test_a_broken_line_among_lines_stays_one_line():
    """Its neighbours are whole."""
    contents = open_message(LINE + b"\n" + LINE[:40] + b"\n" + LINE, max_bytes=1)
    assert [found.line for found in contents.lines] == [LINE, LINE[:40], LINE]


def test_text_between_lines_is_kept_as_lines():
    """And does not hide the events around it."""
    contents = open_message(b"hello\n" + LINE + b"\n", max_bytes=1)
    assert [found.line for found in contents.lines] == [b"hello", LINE]


def test_a_cut_list_keeps_its_complete_items():
    """And the head of the cut one."""
    contents = open_message(dumps(EVENT_LIST)[:-60], max_bytes=1)
    assert [found.line for found in contents.lines[:2]] == [LINE] * 2
    assert len(contents.lines) == 3


def test_inflation_is_bounded():
    """A megabyte of zeros is a kilobyte of gzip: kept compressed, with its reason."""
    bomb = gzip.compress(b"\0" * (1 << 20))
    contents = open_message(bomb, max_bytes=1 << 16)
    assert [(bad.reason, bad.data) for bad in contents.bad] == [("inflates_too_far", bomb)]


def test_the_bound_is_for_the_whole_message():
    """Many small bombs are one big one."""
    part = base64.b64encode(gzip.compress(b" " * 60_000)).decode()
    contents = open_message(dumps({"records": [{"data": part}] * 3}), max_bytes=100_000)
    assert [bad.reason for bad in contents.bad] == ["inflates_too_far"] * 2


def test_depth_is_bounded():
    """A sender cannot make us recurse."""
    data = LINE
    for _ in range(20):
        data = gzip.compress(data)
    assert [bad.reason for bad in open_message(data, max_bytes=1 << 20).bad] == ["too_deep"]
    nested = b"[" * 100_000 + b"]" * 100_000
    contents = open_message(nested, max_bytes=1)
    assert len(contents.bad) + len(contents.lines) == 1


def test_the_number_of_records_is_bounded(monkeypatch):
    """What is beyond is one dead letter, not a million."""
    monkeypatch.setattr(opening, "MAX_RECORDS", 5)
    for data in (b"\n".join([LINE] * 9), dumps(EVENT_LIST | {"items": [IN_A_LIST] * 9})):
        contents = open_message(data, max_bytes=1)
        assert len(contents.lines) == 5
        assert [bad.reason for bad in contents.bad] == ["too_many_records"]


@settings(max_examples=300, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["records", "data", "properties", "log", "logEvents", "message", "protoPayload", "items", "kind", "category", "awslogs", "Records", "kinesis", "resource", "labels", "receivedMessages", "operation", "status", "authorizationInfo"]), inner, max_size=5)), st.integers(0, 200))  # fmt: skip
def test_nothing_raises(value, cut):
    """Whatever stands where, whole or cut."""
    data = dumps(value)
    open_message(data, max_bytes=1000)
    open_message(data[:cut], max_bytes=1000)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x1f\x8b\x08\0", b"{", b"[", b'{"records":[', b"H4sI", b'{"log":"']),
)
def test_nothing_raises_for_bytes(data, start):
    """Nor for what is no JSON at all."""
    open_message(start + data, max_bytes=1000)
