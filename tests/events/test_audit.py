"""Typed decode of audit lines: what is read, what is tolerated, what is refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.errors import MalformedEvent
from forwarder.events import audit
from forwarder.events.audit import AuditEvent, ObjectRef, ResponseStatus, User, decode, split

LINES = (Path(__file__).parents[1] / "data/control-plane/audit.log").read_bytes().splitlines()
SAMPLES = [LINES[0], *(line for line in LINES if b"/exec?" in line or b"impersonatedUser" in line)][:8]

EVENT: dict[str, Any] = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "level": "RequestResponse",
    "auditID": "a-1",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/shop/pods/x",
    "verb": "delete",
    "user": {"username": "alice", "uid": "1", "groups": ["dev", "ops"], "extra": {"sessionName": ["alice@corp"]}},
    "impersonatedUser": {"username": "bob"},
    "sourceIPs": ["10.0.0.1", "10.0.0.2"],
    "userAgent": "kubectl",
    "objectRef": {"resource": "pods", "namespace": "shop", "name": "x", "apiGroup": "", "apiVersion": "v1"},
    "responseStatus": {"metadata": {}, "code": 200, "reason": "OK", "message": "deleted"},
    "requestObject": {"a": 1},
    "responseObject": {"b": [2]},
    "requestReceivedTimestamp": "2026-11-21T06:20:57.893198Z",
    "stageTimestamp": "2026-11-21T06:20:57.899439Z",
    "annotations": {"authorization.k8s.io/decision": "allow"},
}


def line(**changes: Any) -> bytes:
    return json.dumps(EVENT | changes).encode()


def plain(event: AuditEvent) -> dict[str, Any]:
    """The event as comparable data: two Raw values are never equal by themselves."""
    data = msgspec.structs.asdict(event)
    return {key: bytes(value) if isinstance(value, msgspec.Raw) else value for key, value in data.items()}


def reason(data: bytes) -> str:
    with pytest.raises(MalformedEvent) as caught:
        decode(data)
    assert str(caught.value) == caught.value.reason  # no payload in the message
    assert caught.value.reason in audit.REASONS
    return caught.value.reason


def test_every_field_is_read() -> None:
    """Each field of the line arrives under its snake_case name; bodies stay JSON text."""
    event = decode(line())
    assert plain(event) == {
        "kind": "Event",
        "api_version": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "audit_id": "a-1",
        "stage": "ResponseComplete",
        "request_uri": "/api/v1/namespaces/shop/pods/x",
        "verb": "delete",
        "user": User(username="alice", uid="1", groups=("dev", "ops"), extra={"sessionName": ["alice@corp"]}),
        "impersonated_user": User(username="bob"),
        "source_ips": ("10.0.0.1", "10.0.0.2"),
        "user_agent": "kubectl",
        "object_ref": ObjectRef(resource="pods", namespace="shop", name="x", api_version="v1"),
        "response_status": ResponseStatus(code=200, reason="OK"),
        "annotations": {"authorization.k8s.io/decision": "allow"},
        "request_received_timestamp": "2026-11-21T06:20:57.893198Z",
        "stage_timestamp": "2026-11-21T06:20:57.899439Z",
        "request_object": b'{"a": 1}',
        "response_object": b'{"b": [2]}',
        "partial": False,
    }
    assert not event.is_test


def test_a_real_log_is_read_whole() -> None:
    """Every line that a real apiserver wrote decodes, none as partial."""
    assert len(LINES) == 687
    assert not any(decode(each).partial for each in LINES)


def test_absent_fields_are_empty() -> None:
    """verb and auditID are enough; everything else has an empty value."""
    event = decode(b'{"verb":"get","auditID":"a"}')
    assert event.user == User()
    assert (event.impersonated_user, event.object_ref, event.response_status) == (None, None, None)
    assert (event.source_ips, event.annotations, event.stage) == ((), {}, "")
    assert (bytes(event.request_object), bytes(event.response_object)) == (b"", b"")


@pytest.mark.parametrize("name", [name for name in EVENT if name not in ("verb", "auditID")])
def test_null_is_absent(name: str) -> None:
    """A null field counts as absent, whichever it is, and costs nothing else."""
    event = plain(decode(line(**{name: None})))
    without = plain(decode(json.dumps({key: value for key, value in EVENT.items() if key != name}).encode()))
    if name in ("requestObject", "responseObject"):
        key = "request_object" if name == "requestObject" else "response_object"
        assert event.pop(key) == b"null"
        assert without.pop(key) == b""
    assert event == without


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        pytest.param({"user": "alice"}, "user", User(username="alice"), id="user as text"),
        pytest.param({"user": 7}, "user", User(), id="user as number"),
        pytest.param({"user": {"username": 7, "groups": None}}, "user", User(username="7"), id="username as number"),
        pytest.param({"user": {"username": "a", "groups": "g"}}, "user", User(username="a", groups=("g",)), id="group"),
        pytest.param({"user": {"groups": ["g", 1, {}, None]}}, "user", User(groups=("g", "1")), id="odd groups"),
        pytest.param({"user": {"extra": {"k": "v", "n": None}}}, "user", User(extra={"k": ["v"], "n": []}), id="extra"),
        pytest.param({"sourceIPs": "10.0.0.1"}, "source_ips", ("10.0.0.1",), id="address as text"),
        pytest.param({"sourceIPs": {"a": 1}}, "source_ips", (), id="address as object"),
        pytest.param({"annotations": {"a": 1, "b": "x", "c": None}}, "annotations", {"b": "x"}, id="odd annotations"),
        pytest.param({"annotations": ["a"]}, "annotations", {}, id="annotations as array"),
        pytest.param({"objectRef": "pods"}, "object_ref", None, id="objectRef as text"),
        pytest.param(
            {"objectRef": {"resource": "pods", "name": 5}},
            "object_ref",
            ObjectRef(resource="pods", name="5"),
            id="name",
        ),
        pytest.param(
            {"responseStatus": {"code": "403"}}, "response_status", ResponseStatus(code=403), id="code as text"
        ),
        pytest.param(
            {"responseStatus": {"code": 201.5}}, "response_status", ResponseStatus(code=201), id="code as float"
        ),
        pytest.param({"responseStatus": {"code": "x"}}, "response_status", ResponseStatus(), id="code as word"),
        pytest.param({"responseStatus": {"code": 10**30}}, "response_status", ResponseStatus(), id="huge code"),
        pytest.param({"stage": ["x"]}, "stage", "", id="stage as array"),
        pytest.param({"level": True}, "level", "true", id="level as boolean"),
        pytest.param({"partial": "x"}, "partial", False, id="a field named like ours"),
    ],
)
def test_one_odd_field_costs_only_itself(change: dict[str, Any], field: str, expected: object) -> None:
    """A field of a wrong type keeps what is usable of it, and no other field suffers."""
    event = plain(decode(line(**change)))
    assert event.pop(field) == expected
    normal = plain(decode(line()))
    normal.pop(field)
    assert event == normal


def test_a_body_may_be_text() -> None:
    """Azure writes a string in the place of a body that is too large."""
    event = decode(line(responseObject="skipped-too-big-size-object"))
    assert bytes(event.response_object) == b'"skipped-too-big-size-object"'
    assert audit.metadata_of(event.response_object) == audit.BodyMetadata()


@pytest.mark.parametrize("around", [b"%s\r\n", b"  %s\t", b"\xef\xbb\xbf%s", b"\0\0\0%s\0", b"\0\xef\xbb\xbf %s"])
def test_what_stands_around_a_line_does_not_matter(around: bytes) -> None:
    """White space, a byte order mark and the NULs of a torn file are no part of the line."""
    assert plain(decode(around % line())) == plain(decode(line()))


@pytest.mark.parametrize(
    ("old", "new", "field", "expected"),
    [
        pytest.param(b'"kubectl"', b'"kub\xffctl"', "user_agent", "kub\ufffdctl", id="invalid UTF-8"),
        pytest.param(b'"kubectl"', b'"kub\0ctl\n"', "user_agent", "kub\0ctl\n", id="raw control characters"),
        pytest.param(b'"kubectl"', b'"\\ud800x"', "user_agent", "\ufffdx", id="lone surrogate"),
        pytest.param(b'"kubectl"', b'"a\\qb"', "user_agent", "a\\qb", id="unknown escape"),
        pytest.param(b'{"a": 1}', b'{"a": "\xff\0"}', "request_object", b'{"a": "\xff\0"}', id="in a body"),
        pytest.param(b'"level"', b'"le\xffvel"', "level", "", id="in a key"),
    ],
)
def test_bad_bytes_do_not_lose_the_line(old: bytes, new: bytes, field: str, expected: object) -> None:
    """Bytes that are no JSON inside a text or a body change this text and nothing else."""
    event = plain(decode(line().replace(old, new)))
    assert event[field] == expected
    assert (event["verb"], event["partial"]) == ("delete", False)


def test_the_last_of_two_keys_counts() -> None:
    """In both decoders: or one of them could be shown another verb than the other."""
    twice = b'{"auditID":"a","verb":"get","user":{"username":"x"},"verb":"delete","user":{"username":"y"}%s}'
    for rest in (b"", b',"level":7'):  # the second one is read by the tolerant decoder
        event = decode(twice % rest)
        assert (event.verb, event.user.username) == ("delete", "y")


def test_a_method_without_a_verb_is_an_event() -> None:
    """OPTIONS and the like are audited with an empty verb; as dead letters anybody could make them by the thousand."""
    event = decode(
        b'{"kind":"Event","auditID":"a","stage":"ResponseComplete","requestURI":"/api/v1/pods","verb":"","user":{}}'
    )
    assert (event.verb, event.audit_id, event.partial) == ("", "a", False)


def test_a_body_too_deep_for_the_decoder_is_kept() -> None:
    """Nesting in a body hides neither the event nor the body's annotations."""
    deep = b'{"spec":' + b'{"a":[' * 5000 + b"]}" * 5000 + b',"metadata":{"annotations":{"bypass":"true"}}}'
    event = decode(line().replace(b'{"a": 1}', deep))
    assert (event.verb, event.user.username, event.response_status) == (
        "delete",
        "alice",
        ResponseStatus(code=200, reason="OK"),
    )
    assert event.annotations == {"authorization.k8s.io/decision": "allow"}
    assert not event.partial
    assert audit.annotations_of(event.request_object) == {"bypass": "true"}


def test_a_line_over_the_limit_is_read_as_a_cut_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Length is no place to hide: the head is read and the event marked partial; without a verb it is too_long."""
    monkeypatch.setattr(audit, "MAX_LINE_BYTES", 1000)
    event = decode(line(requestObject="<" * 2000))
    assert (event.verb, event.partial) == ("delete", True)
    assert reason(b'{"auditID":"a","requestURI":"' + b"x" * 2000 + b'","verb":"get"}') == "too_long"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b" \r\n\0", "empty"),
        (b"I1121 06:20:57 server.go:1", "not_json"),
        (b"{nonsense", "not_json"),
        (b"\x81\xa3log", "not_json"),
        (b"[1]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"17", "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "not_an_audit_event"),
        (b'{"kind":"Event","verb":""}', "not_an_audit_event"),
        (b'{"verb":"get"}', "not_an_audit_event"),
        (b'{"auditID":"a","verb":null}', "not_an_audit_event"),
        (b'{"kind":"EventList","items":[]}', "not_an_audit_event"),
        (b'{"kind":"Event","auditID":"a","requestURI":"/api', "cut_too_early"),
    ],
)
def test_what_is_no_audit_event_says_why(data: bytes, expected: str) -> None:
    """Each refusal has its own short reason."""
    assert reason(data) == expected


def test_a_test_event_is_known_by_its_api_version() -> None:
    """Only the top-level field counts: a client can write the same words in a body."""
    assert decode(line(apiVersion=audit.TEST_API_VERSION)).is_test
    assert not decode(line(requestObject={"apiVersion": audit.TEST_API_VERSION})).is_test


def test_a_reused_buffer_does_not_change_the_event() -> None:
    """The bodies of an event are its own, also when it was decoded from a buffer that is then overwritten."""
    buffer = bytearray(line())
    event = decode(memoryview(buffer))
    buffer[:] = b"x" * len(buffer)
    assert bytes(event.request_object) == b'{"a": 1}'


# --- lists -----------------------------------------------------------------------------------------------------------


def test_a_single_event_stays_itself() -> None:
    """Even where the word EventList stands in it, as it does when somebody lists core/v1 events."""
    for each in (line(), line(responseObject={"kind": "EventList", "items": [{}]}), b"", b"EventList"):
        assert split(each) == [each]


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(
            b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[%s , %s]}', id="EventList"
        ),
        pytest.param(b'{"items":[%s,%s],"kind":"EventList"}', id="other order"),
        pytest.param(b"\xef\xbb\xbf [%s,\n%s]\n", id="array"),
        pytest.param(b'{"metadata":{"x":"\xff\0"},"items":[%s,%s],"kind":"EventList"}', id="bad bytes"),
    ],
)
def test_a_list_becomes_its_events(whole: bytes) -> None:
    """Each event is the text that stood in the list."""
    assert split(whole % (SAMPLES[0], SAMPLES[1])) == [SAMPLES[0], SAMPLES[1]]


def test_an_empty_list_has_no_events() -> None:
    assert split(b'{"kind":"EventList","items":[]}') == []
    assert split(b"[]") == []


def test_nothing_of_a_broken_list_vanishes() -> None:
    """What is cut, broken or behind the end comes out too, so that it is counted."""
    one, two = SAMPLES[:2]
    cut = two[: two.index(b'"objectRef"')]
    assert split(b"[%s,%s" % (one, cut)) == [one, cut]
    assert decode(cut).partial
    assert split(b'{"kind":"EventList","items":[%s,%s' % (one, cut)) == [one, cut]
    assert split(b"[%s,oops,%s]" % (one, two)) == [one, b"oops,%s]" % two]
    assert split(b"[%s %s]" % (one, two)) == [one, b"%s]" % two]
    assert split(b"[%s] %s" % (one, two)) == [one, b" " + two]


def test_a_list_cut_before_its_items_stays_one_line() -> None:
    """It is refused by decode, and so counted."""
    cut = b'{"kind":"EventList","apiVersion":"audit'
    assert split(cut) == [cut]
    assert reason(cut) == "cut_too_early"


def test_a_list_too_deep_for_the_decoder_is_split() -> None:
    deep = b'{"verb":"get","auditID":"a","requestObject":%s}' % (b"[" * 5000 + b"]" * 5000)
    assert split(b"[%s,%s]" % (deep, SAMPLES[0])) == [deep, SAMPLES[0]]


def test_a_list_has_a_limit() -> None:
    """One line cannot make a million dead letters; it becomes one."""
    assert len(split(b"[" + b"1," * (audit.MAX_SPLIT_EVENTS - 1) + b"1]")) == audit.MAX_SPLIT_EVENTS
    with pytest.raises(MalformedEvent, match="too_many_events"):
        split(b"[" + b"1," * audit.MAX_SPLIT_EVENTS + b"1]")


# --- properties ------------------------------------------------------------------------------------------------------

MUTATION = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 12), st.binary(max_size=6))


@settings(max_examples=300, deadline=None)
@given(sample=st.sampled_from(SAMPLES), mutations=st.lists(MUTATION, max_size=5), cut=st.none() | st.floats(0, 1))
def test_only_malformed_event_ever_comes_out(
    sample: bytes, mutations: list[tuple[float, int, bytes]], cut: float | None
) -> None:
    """Whatever happens to a real line, decode gives an event with a verb and an id, or MalformedEvent."""
    refused = set()
    for place, length, new in mutations:
        at = int(place * len(sample))
        sample = sample[:at] + new + sample[at + length :]
    if cut is not None:
        sample = sample[: int(cut * len(sample))]
    for each in split(sample):
        try:
            event = decode(each)
        except MalformedEvent as error:
            refused.add(error.reason)
            continue
        assert event.verb
        assert event.audit_id
        audit.metadata_of(event.request_object)
        audit.annotations_of(event.response_object)
        msgspec.json.encode({key: value for key, value in plain(event).items() if not isinstance(value, bytes)})
    assert refused <= set(audit.REASONS)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200) | st.text(alphabet='{}[]",:\\ue0ax1 ', max_size=60).map(str.encode))
def test_any_bytes_are_survived(data: bytes) -> None:
    """No input raises anything but MalformedEvent, also behind a good beginning."""
    for each in (data, b"{" + data, b'{"verb":"get","auditID":"a","user":' + data, b"[" + data):
        for single in split(each):
            try:
                decode(single)
            except MalformedEvent:
                continue


@settings(max_examples=50, deadline=None)
@given(sample=st.sampled_from(SAMPLES), random=st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(sample: bytes, random: Any) -> None:
    """A complete line means the same in any order of its keys; sorted ones come from other writers than the apiserver."""
    members = list(json.loads(sample).items())
    random.shuffle(members)
    compact = json.dumps(json.loads(sample), separators=(",", ":")).encode()
    shuffled = json.dumps(dict(members), separators=(",", ":")).encode()
    assert plain(decode(shuffled)) == plain(decode(compact))


@settings(max_examples=100, deadline=None)
@given(sample=st.sampled_from(SAMPLES), place=st.floats(0, 1))
def test_a_line_cut_behind_user_agent_keeps_who_and_what(sample: bytes, place: float) -> None:
    """In the apiserver's order of keys, who, verb and URI stand first, so any later cut leaves them whole."""
    first = sample.index(b'"objectRef"')
    cut = sample[: first + int(place * (len(sample) - 1 - first))]
    whole, event = decode(sample), decode(cut)
    assert event.partial
    for name in ("audit_id", "stage", "verb", "request_uri", "user", "impersonated_user", "source_ips", "user_agent"):
        assert getattr(event, name) == getattr(whole, name)
