"""What an operator has hidden beyond what is hidden anyway."""

import json
from typing import Any

import pytest

from forwarder.errors import ConfigError
from forwarder.events.audit import decode
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.events.redaction import Redaction, RedactionSettings

EVENT: dict[str, Any] = {
    "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "stage": "ResponseComplete", "verb": "update",
    "requestURI": "/apis/x/CUST-12345678", "user": {"username": "jane"}, "userAgent": "tool CUST-12345678",
    "objectRef": {"resource": "customers", "name": "c"}, "annotations": {"ownerEmail": "jane@example.com"},
    "requestObject": {"spec": {"SSN": "078-05-1120", "list": [{"mySsnField": {"deep": 1}}], "note": "for CUST-12345678"},
                      "verb": "kept"},
}  # fmt: skip


def sent(event: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    line = json.dumps(event or EVENT).encode()
    redaction = Redaction(RedactionSettings(**settings))
    found: dict[str, Any] = json.loads(OutgoingEvent(decode(line), line, "", redaction).json)
    return found


def test_the_body_of_a_resource_is_hidden_whole() -> None:
    """And only of that one."""
    assert sent(resources=["cust*"])["requestObject"] == "[redacted]"
    assert sent(resources=["orders"])["requestObject"]["spec"]["note"] == "for CUST-12345678"


def test_values_under_a_name_are_hidden_wherever_they_stand_in_bodies_and_annotations() -> None:
    """Whatever they hold, in any case; the audit event's own names are not meant."""
    found = sent(fields=["*ssn*", "owneremail", "verb", "username"])
    spec = found["requestObject"]["spec"]
    assert (spec["SSN"], spec["list"][0]["mySsnField"]) == ("[redacted]", "[redacted]")
    assert found["annotations"]["ownerEmail"] == "[redacted]"
    assert (found["verb"], found["user"]["username"]) == ("update", "jane")


def test_a_pattern_is_hidden_in_every_text() -> None:
    """Of an audit event, and of the typed view that messages are made of."""
    line = json.dumps(EVENT).encode()
    outgoing = OutgoingEvent(decode(line), line, "", Redaction(RedactionSettings(patterns=[r"CUST-\d{8}", "nothing"])))
    assert b"12345678" not in outgoing.json
    assert outgoing.event.request_uri == "/apis/x/[redacted]"
    assert json.loads(outgoing.json)["requestObject"]["spec"]["note"] == "for [redacted]"


def test_friction_events_are_covered_and_keep_their_service() -> None:
    """A backend refuses an entity reference with brackets in it."""
    event = FrictionEvent(entity_ref="component:shop/cust-1", type="x", severity="low", actor="cust-1", workflow="debug",
                          description="about cust-1", timestamp="t", points=1, id="i", revision=0, audit_id="a",
                          verb="get", resource="pods", command="echo cust-1")  # fmt: skip
    hidden = Redaction(RedactionSettings(patterns=[r"cust-\d"])).friction(event)
    assert (hidden.actor, hidden.command, hidden.description) == ("[redacted]", "echo [redacted]", "about [redacted]")
    assert hidden.entity_ref == event.entity_ref
    assert Redaction(RedactionSettings(fields=["x"])).friction(event) is event


def test_nothing_set_is_nothing_to_do() -> None:
    """The pipeline leaves it out."""
    assert not Redaction(RedactionSettings()).active
    assert Redaction(RedactionSettings(fields=["x"])).active


@pytest.mark.parametrize(
    ("patterns", "words"),
    [(["("], "is no regular expression"), (["a*"], "matches nothing at all"), (["a"] * 101, "more than 100")],
)
def test_patterns_that_cannot_be_meant(patterns: list[str], words: str) -> None:
    """By name, before anything runs."""
    with pytest.raises(ConfigError, match=words):
        Redaction(RedactionSettings(patterns=patterns))
