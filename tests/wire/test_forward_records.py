"""From odd records to lines: what is recognised, what is refused and by which word."""

import msgpack
import pytest

from forwarder.errors import MalformedEvent
from forwarder.wire import forward_records
from forwarder.wire.forward_entries import Other
from forwarder.wire.forward_records import REASONS, keys, to_line


def _entry(record, packed=None):
    packed = packed if packed is not None else msgpack.packb(record, use_bin_type=True)
    return b"\x92\x01" + packed, Other(0, 2, 2 + len(packed))


def _line(record=None, packed=None):
    return to_line(*_entry(record, packed), "log")


def test_a_line_behind_other_keys_keeps_every_byte():
    """Also those that are not UTF-8, and beside values that no decoder likes."""
    assert _line(packed=b"\x82\xa1a\xa2\xff\xfe\xa3log\xa3\xff\x00{") == b"\xff\x00{"
    assert _line(packed=b"\x82\xa1a" + b"\x91" * 3000 + b"\xc0" + b"\xa3log\xa2{}") == b"{}"


def test_in_a_parsed_map_a_byte_that_is_not_utf8_becomes_a_replacement_character():
    """JSON is UTF-8; the event is worth more than the byte."""
    assert _line(packed=b"\x82\xa4verb\xa3get\xa4user\xa3a\xffb") == '{"verb":"get","user":"a\ufffdb"}'.encode()


def test_keys_of_a_map_stay_in_order():
    """The screen's fast way knows the order in which kube-apiserver writes."""
    record = {"kind": "Event", "apiVersion": "v1", "level": "Metadata", "auditID": "a", "stage": "Panic", "verb": "get"}
    assert _line(record).startswith(
        b'{"kind":"Event","apiVersion":"v1","level":"Metadata","auditID":"a","stage":"Panic"'
    )


@pytest.mark.parametrize("depth", [100, 500, 900, 1020, 1030, 5000, 100_000])
def test_a_body_of_any_depth_leaves_the_event(depth):
    """Each decoder on the way has its own limit; between them there is no gap in which an event disappears."""
    line = _line(packed=b"\x82\xa4verb\xa3get\xadrequestObject" + b"\x91" * depth + b"\xc0")
    assert line.startswith(b'{"verb":"get","requestObject":')


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"\xa4text", "not_a_record"),
        (b"\xc0", "not_a_record"),
        (b"\x80", "no_line"),
        (b"\x81\xa3foo\xa3bar", "no_line"),
        (b"\x81\xa7message\xa5hello", "no_line"),
        (b"\x81\x81\x01\x01\x01", "unreadable_record"),
        (b"\x81\xa4verb\xc7\x01\x05x", "unreadable_record"),
        (b"\x82\xa4verb\xa1x\xc0\x01", "unreadable_record"),
        (b"\x91" * 5000 + b"\xc0", "too_deep"),
        (b"\x81" + b"\x91" * 5000 + b"\xc0\xc0", "too_deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:8].hex(),
)
def test_what_gives_no_line_says_why_in_one_word(packed, reason):
    """A metric label: from a closed set, without payload."""
    with pytest.raises(MalformedEvent) as caught:
        _line(packed=packed)
    assert caught.value.reason == reason
    assert reason in REASONS


def test_what_is_no_entry_has_no_record():
    """Neither line nor keys."""
    with pytest.raises(MalformedEvent, match="not_an_entry"):
        to_line(b"\x05", Other(0, -1, 1), "log")
    assert keys(b"\x05", Other(0, -1, 1)) == []


def test_the_names_in_a_record_are_told_without_its_values():
    """Enough to recognise the sender, nothing that could be a secret."""
    assert keys(*_entry({"token": "s3cr3t", 5: "five", "n" * 100: {"inner": 1}})) == ["token", "n" * 64]
    assert keys(*_entry(["token", "s3cr3t"])) == []


# --- what a parsed event asks for, without building it -------------------------------------------------------------------

EVENT = {
    "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "a", "stage": "ResponseComplete",
    "requestURI": "/", "verb": "get", "user": {"username": "alice", "groups": ["dev"]}, "sourceIPs": ["::1"],
    "objectRef": {"resource": "pods", "namespace": "shop", "name": "x", "subresource": "exec"},
    "requestObject": {"deep": [{"a": 1}]},
}  # fmt: skip


def _asked(record, log_key="log"):
    data = msgpack.packb(record)
    decode = forward_records.decoder(log_key)
    return decode and forward_records.asked(memoryview(data), Other(0, 0, len(data)), decode)


def test_a_parsed_event_says_what_it_asks_for():
    """Word for word; a non-resource URL has no resource."""
    assert _asked(EVENT) == ("ResponseComplete", "get", "alice", "pods", "exec", "shop")
    url = {key: value for key, value in EVENT.items() if key != "objectRef"}
    assert _asked(url) == ("ResponseComplete", "get", "alice", None, "", "")
    assert _asked(EVENT, log_key="line") is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"log": "{}"}, {"message": "{}"}, {"impersonatedUser": {"username": "bob"}}, {"impersonatedUser": None}, {"verb": ""},
        {"auditID": ""}, {"verb": b"get"}, {"user": None}, {"user": "alice"}, {"user": {"username": 7}}, {"kind": "EventList"},
        {"apiVersion": "forwarder.test/v1"}, {"stage": None}, {"objectRef": {"resource": None}}, {"objectRef": []}, {7: 7},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_certain_is_left_to_the_line(changes):
    """Raw lines, people behind machines, odd types: what the full decode makes of them is not guessed."""
    assert _asked({**EVENT, **changes}) is None


def test_a_key_of_the_settings_that_holds_a_raw_line_is_seen():
    """Whatever it is called; one of the event's own names leaves the shortcut out."""
    assert _asked({**EVENT, "line": "{}"}, log_key="line") is None
    assert forward_records.decoder("verb") is None


def test_what_is_no_record_says_nothing():
    """Bad entries, other types, a body deeper than the decoder goes."""
    deep = []
    for _ in range(400):
        deep = [deep]
    assert _asked({**EVENT, "responseObject": deep}) in (None, _asked(EVENT))
    assert _asked("text") is None
    decode = forward_records.decoder("log")
    assert forward_records.asked(memoryview(b"\xc0"), Other(0, -1, 1), decode) is None
