"""What is left of cut, broken and hostile lines, and that it takes no long time."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from forwarder.errors import MalformedEvent
from forwarder.events.audit import ObjectRef, User, annotations_of, decode
from forwarder.events.salvage import head_digest, salvage

LINES = (Path(__file__).parents[1] / "data/control-plane/audit.log").read_bytes().splitlines()
CREATE = next(line for line in LINES if b'"resource":"deployments"' in line and b'"verb":"create"' in line)
EXEC = next(line for line in LINES if b"/exec?" in line and b'"ResponseComplete"' in line)

HEAD = (
    b'{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"a-1","stage":"ResponseComplete",'
    b'"requestURI":"/api","verb":"patch","user":{"username":"alice","uid":"1","groups":["dev","ops"]},'
    b'"sourceIPs":["10.0.0.1"],"userAgent":"kubectl","objectRef":{"resource":"pods","namespace":"shop","name":"x"}'
)


def cut_behind(line: bytes, mark: bytes) -> bytes:
    return line[: line.index(mark) + len(mark)]


def test_a_complete_line_loses_nothing() -> None:
    """The scanner reads each line of a real log, of canonical and of sorted keys, like a JSON parser."""
    for line in LINES[::10]:
        fields, lost = salvage(line)
        assert not lost
        expected = json.loads(line)
        for body in ("requestObject", "responseObject"):
            assert (body in fields) == (body in expected)
            if body in expected:
                assert json.loads(bytes(fields.pop(body))) == expected.pop(body)
        for name in ("metadata", "message", "status", "details"):
            expected.get("responseStatus", {}).pop(name, None)
        assert fields == expected


@pytest.mark.parametrize(
    ("mark", "username", "groups", "resource"),
    [
        pytest.param(b'"verb":"patch"', "", (), None, id="behind the verb"),
        pytest.param(b'"verb":"patch","user":{', "", (), None, id="in an empty user"),
        pytest.param(b'"username":"ali', "", (), None, id="in the user name"),
        pytest.param(b'"username":"alice"', "alice", (), None, id="behind the user name"),
        pytest.param(b'"groups":["dev","o', "alice", ("dev",), None, id="in a group"),
        pytest.param(b'"ops"]}', "alice", ("dev", "ops"), None, id="behind the user"),
        pytest.param(b'"objectRef":{"resource":"po', "alice", ("dev", "ops"), ObjectRef(), id="in the resource"),
        pytest.param(
            b'"resource":"pods",', "alice", ("dev", "ops"), ObjectRef(resource="pods"), id="behind the resource"
        ),
    ],
)
def test_a_cut_keeps_the_complete_members(
    mark: bytes, username: str, groups: tuple[str, ...], resource: ObjectRef | None
) -> None:
    """Of what is cut inside, the complete members stay; the one that is cut goes."""
    event = decode(cut_behind(HEAD, mark))
    assert (event.verb, event.audit_id, event.partial) == ("patch", "a-1", True)
    assert event.user == User(username=username, uid="1" if groups else "", groups=groups)
    assert event.object_ref == resource


@pytest.mark.parametrize(
    "tail", [b"[Truncated...]", b',"responseStatus":{"code":20[Truncated...]', b',"responseSta', b","]
)
def test_a_marker_of_the_cutter_is_no_value(tail: bytes) -> None:
    """EKS ends a cut line with `[Truncated...]`; half a number is not taken for a whole one."""
    event = decode(HEAD + tail)
    assert (event.user_agent, event.partial) == ("kubectl", True)
    assert event.response_status is None or event.response_status.code == 0


def test_every_cut_of_a_real_line_is_survived() -> None:
    """Cut anywhere, a line gives its true fields or none: never a value that the whole line does not have."""
    whole = decode(EXEC)
    for end in range(len(EXEC) - 1):
        try:
            event = decode(EXEC[:end])
        except MalformedEvent:
            assert end < EXEC.index(b'"user":')
            continue
        assert event.partial
        assert event.verb == whole.verb
        assert event.request_uri == whole.request_uri
        assert event.user.username in ("", whole.user.username)
        assert event.user.groups == whole.user.groups[: len(event.user.groups)]
        assert event.annotations.items() <= whole.annotations.items()


def test_a_cut_body_still_shows_its_annotations() -> None:
    """Or a long body would hide the annotation that bypasses a policy from everyone whose lines are cut."""
    body = b',"requestObject":{"kind":"Pod","metadata":{"annotations":{"bypass":"true","note":"xxxx'
    event = decode(HEAD + body)
    assert event.partial
    assert annotations_of(event.request_object) == {"bypass": "true"}


def test_a_body_cannot_forge_the_head() -> None:
    """Fields inside a cut body, and quotes inside strings, never become fields of the event."""
    forged = b',"requestObject":{"verb":"get","user":{"username":"system:node:n1"},"x":"}},\\"verb\\":\\"list\\"'
    event = decode(HEAD + forged)
    assert (event.verb, event.user.username) == ("patch", "alice")


def test_a_broken_body_cannot_forge_the_head() -> None:
    """Behind a lost quote strings and structure change places, and what was text may look like a field: the first counts."""
    fields = b'"verb":"get","user":{"username":"system:node:n1"},"objectRef":{"resource":"leases"}'
    event = decode(HEAD + b',"requestObject":{"a\\":"x},' + fields + b"}}")
    assert event.partial
    assert (event.verb, event.user.username) == ("patch", "alice")
    assert event.object_ref == ObjectRef(resource="pods", namespace="shop", name="x")


def test_half_a_number_at_the_end_is_no_number() -> None:
    """A code of 403 cut to 40 or 4 is unknown, not another code."""
    event = decode(HEAD + b',"responseStatus":{"code":40')
    assert event.response_status is not None
    assert event.response_status.code == 0


def test_what_is_missing_of_the_object_is_read_from_the_uri() -> None:
    """`create pods` is a change of a workload, `create pods/exec` is a shell: subresource is the last member of objectRef."""
    head = HEAD.replace(b'"/api"', b'"/api/v1/namespaces/shop/pods/x/exec?command=id"')
    whole = ObjectRef(resource="pods", namespace="shop", name="x", api_version="v1", subresource="exec")
    for end in range(head.index(b'"sourceIPs"'), len(head) - 1):
        assert decode(head[:end]).object_ref == whole, head[:end]
    assert decode(HEAD.replace(b'"/api"', b'"/healthz"')[: -len('"objectRef"') - 60]).object_ref is None


# --- digest ----------------------------------------------------------------------------------------------------------


def stages(length: int) -> tuple[bytes, bytes]:
    """The two lines of one exec, each cut at the same length, as a limit on the line does."""
    started = EXEC.replace(b'"ResponseComplete"', b'"ResponseStarted"').replace(b'"Metadata"', b'"Request"')
    return started[:length], EXEC[:length]


def test_both_stages_of_a_request_have_one_digest() -> None:
    """Wherever behind objectRef the lines are cut; the second stage completes the event of the first one."""
    first = EXEC.index(b'"responseStatus"')
    digests = {head_digest(line) for length in range(first, first + 60) for line in stages(length)}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_what_surrounds_a_line_does_not_change_its_digest() -> None:
    assert len({head_digest(line) for line in (HEAD, HEAD + b"\r\n", b"\xef\xbb\xbf " + HEAD, b"\0" + HEAD)}) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"a-1", b"a-2"),
        (b"alice", b"bob"),
        (b'"patch"', b'"get"'),
        (b"/api", b"/apis"),
        (b'"x"', b'"y"'),
        (b"kubectl", b"k9s"),
    ],
)
def test_another_request_has_another_digest(old: bytes, new: bytes) -> None:
    """Each thing that tells two requests apart is in the digest."""
    assert head_digest(HEAD) != head_digest(HEAD.replace(old, new))


def test_a_value_cannot_pass_for_another_field() -> None:
    """Values are prefixed by name and length, so no two different heads give the same text to digest."""
    one = b'{"auditID":"a","verb":"b"'
    two = b'{"auditID":"a","userAgent":"b"'
    assert head_digest(one) != head_digest(two)


# --- hostile lines ---------------------------------------------------------------------------------------------------

SIZE_BYTES = 8 << 20
HOSTILE = {
    "quotes": (b"", b'"'),
    "escaped quotes": (b'"', b'\\"'),
    "backslashes": (b'"', b"\\"),
    "open brackets": (b"", b"["),
    "closed brackets": (b"[", b"]"),
    "deep objects": (b"", b'{"a":'),
    "many small arrays": (b"[", b"[[]],"),
    "many strings in arrays": (b"", b'["'),
    "saw": (b"", b"[[[][]]["),
    "commas": (b"", b","),
    "spaces": (b"", b" "),
    "many members": (b"{", b'"":0,'),
    "digits": (b"", b"1"),
    "signs": (b"", b"-"),
}


@pytest.mark.parametrize(("start", "unit"), [pytest.param(*value, id=name) for name, value in HOSTILE.items()])
def test_eight_hostile_megabytes_take_no_long_time(start: bytes, unit: bytes) -> None:
    """Whatever a body holds, its line is read in linear time, and who and what are known."""
    line = HEAD + b',"requestObject":' + start + unit * (SIZE_BYTES // len(unit))
    began = time.process_time()
    event = decode(line)
    # Below one second where this was written; anything quadratic would take hours.
    assert time.process_time() - began < 10
    assert (event.verb, event.user.username, event.partial) == ("patch", "alice", True)


@pytest.mark.parametrize(("start", "unit"), [pytest.param(*value, id=name) for name, value in HOSTILE.items()])
def test_hostile_bodies_take_no_long_time(start: bytes, unit: bytes) -> None:
    """The same for what reads the body, and for the digest of the head."""
    body = start + unit * (SIZE_BYTES // 8 // len(unit))
    began = time.process_time()
    assert annotations_of(Raw(body)) == {}
    assert head_digest(HEAD + b',"requestObject":' + body) == head_digest(HEAD)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("head", [b'{"verb":"get","auditID":"a",', b'{"verb":"get","auditID":"a","user":{'])
def test_hostile_members_take_no_long_time(head: bytes) -> None:
    """The same for a hundred thousand members, of the event or of its user."""
    began = time.process_time()
    assert decode(head + b'"x":"y",' * 100_000).verb == "get"
    assert time.process_time() - began < 5


@settings(max_examples=150, deadline=None)
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=20,
    ),
    compact=st.booleans(),
)
def test_the_scanner_finds_the_end_of_any_value(value: Any, compact: bool) -> None:
    """A body of any JSON is kept as it stood, and the fields behind it are found."""
    body = json.dumps(value, separators=(",", ":") if compact else None, indent=None if compact else 1).encode()
    fields, lost = salvage(HEAD + b',"requestObject":' + body + b' , "stageTimestamp":"t"}')
    assert (bytes(fields["requestObject"]), fields["stageTimestamp"], lost) == (body, "t", False)
