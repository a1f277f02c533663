"""An audit event as it leaves: the line as it was, its secrets hidden, always one line of JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from forwarder.events.audit import decode
from forwarder.events.outgoing import PARTIAL_ANNOTATION, OutgoingEvent

LOG = Path("tests/data/control-plane/audit.log").read_bytes().splitlines()
PLANTED = "hunter2-Planted"
EVENT: dict[str, Any] = {
    "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "a", "stage": "ResponseComplete",
    "requestURI": "/api/v1/pods", "verb": "list", "user": {"username": "jane", "groups": ["dev"]}, "sourceIPs": ["10.0.0.7"],
    "userAgent": "kubectl/v1.34", "objectRef": {"resource": "pods", "apiVersion": "v1"}, "responseStatus": {"metadata": {}, "code": 200},
    "requestReceivedTimestamp": "2026-03-02T10:15:09.129000Z", "stageTimestamp": "2026-03-02T10:15:09.129421Z",
    "annotations": {"authorization.k8s.io/decision": "allow"},
}  # fmt: skip


def outgoing(line: bytes) -> OutgoingEvent:
    return OutgoingEvent(decode(line), line)


def sent(**changes: Any) -> bytes:
    return outgoing(json.dumps(EVENT | changes).encode()).json


def test_an_event_without_secrets_stays_as_it_was() -> None:
    """Byte for byte: whoever hashes or diffs lines finds them unchanged."""
    metadata = [line for line in LOG if b'"level":"Metadata"' in line and b"?" not in line]
    assert metadata
    assert all(outgoing(line).json == line for line in metadata)


def test_every_line_of_a_real_log_stays_the_event_it_was() -> None:
    """Only texts change; keys, order and identities do not."""
    for line in LOG:
        before, after = json.loads(line), json.loads(outgoing(line).json)
        assert list(before) == list(after)
        for key in ("auditID", "stage", "verb", "user", "objectRef", "sourceIPs", "stageTimestamp"):
            assert before.get(key) == after.get(key)
        assert b"\n" not in outgoing(line).json


@pytest.mark.parametrize(
    "changes",
    [
        {"requestURI": f"/api/v1/namespaces/shop/pods/web/exec?command=mysql&command=-p{PLANTED}&command=--password%3D{PLANTED}"},
        {"userAgent": f"curl token={PLANTED}"},
        {"responseStatus": {"metadata": {}, "code": 422, "message": f"invalid password={PLANTED}"}},
        {"annotations": {"webhook": f"Authorization: Bearer {PLANTED}"}},
        {"requestObject": {"kind": "Secret", "data": {"x": PLANTED}}},
        {"responseObject": {"kind": "TokenRequest", "status": {"token": PLANTED}}},
        {"responseObject": f"password={PLANTED}"},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_a_planted_secret_does_not_leave(changes: dict[str, Any]) -> None:
    """In no field where people can put one."""
    assert PLANTED.encode() not in sent(**changes)


def test_unknown_and_odd_fields_are_passed_on() -> None:
    """A newer apiserver adds some; a null is no event of ours to repair."""
    out = json.loads(sent(authenticationMetadata={"impersonationConstraint": "x"}, impersonatedUser=None))
    assert out["authenticationMetadata"] == {"impersonationConstraint": "x"}
    assert out["impersonatedUser"] is None


def test_a_line_with_breaks_leaves_as_one_line() -> None:
    """Pretty-printed JSON from a webhook or a file."""
    line = json.dumps(EVENT, indent=2).encode()
    assert b"\n" not in outgoing(line).json
    assert json.loads(outgoing(line).json) == EVENT


def test_of_a_cut_line_what_could_be_read_is_written_anew() -> None:
    """Marked, without bodies, and readable for whoever comes next."""
    line = json.dumps(EVENT | {"requestObject": {"data": PLANTED * 9}}).encode()
    cut = line[: line.index(b"requestObject") + 60]
    out = json.loads(outgoing(cut).json)
    assert out["annotations"][PARTIAL_ANNOTATION] == "true"
    assert (out["verb"], out["user"]["username"], out["objectRef"]["resource"]) == ("list", "jane", "pods")
    assert PLANTED not in json.dumps(out)
    assert decode(outgoing(cut).json).verb == "list"


def test_the_typed_view_is_that_of_what_leaves() -> None:
    """A message made of it cannot leak; the original is for deciding only."""
    line = json.dumps(EVENT | {"userAgent": f"curl token={PLANTED}"}).encode()
    event = outgoing(line)
    assert PLANTED not in event.event.user_agent
    assert PLANTED in event.original.user_agent
    assert event.unredacted().json == line
