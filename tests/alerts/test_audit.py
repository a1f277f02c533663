"""Audit events for people: what becomes of one, and that no secret of it does."""

import json

import pytest

from forwarder.alerts.audit import as_event, wants
from forwarder.alerts.planner import Group, Message, group_key
from forwarder.alerts.wording import note
from forwarder.events.audit import decode
from forwarder.events.outgoing import OutgoingEvent

EXEC = {
    "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": "a-1", "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/shop/pods/cart-1/exec?command=mysql&command=-pS3cret&container=db&tty=true",
    "verb": "create", "user": {"username": "jane"}, "sourceIPs": ["10.0.0.7"], "userAgent": "kubectl",
    "objectRef": {"resource": "pods", "subresource": "exec", "namespace": "shop", "name": "cart-1"},
    "responseStatus": {"metadata": {}, "code": 101},
    "requestReceivedTimestamp": "2025-06-18T12:00:00.000000Z", "stageTimestamp": "2025-06-18T12:00:09.000000Z",
}  # fmt: skip


def outgoing(cluster: str = "prod", **fields) -> OutgoingEvent:
    line = json.dumps(EXEC | fields).encode()
    return OutgoingEvent(decode(line), line, cluster)


def test_what_when_who_on_what_and_at_which_stage() -> None:
    """All that the audit event has to say to people."""
    made = as_event(outgoing(), "slack")
    said = note(Message((Group("k", (made,)),)))
    assert said.title == "jane: create pods/exec shop/cart-1, ResponseComplete"
    facts = dict(said.facts)
    assert (facts["When"], facts["Who"], facts["Stage"]) == (
        "2025-06-18 12:00:09 UTC",
        "jane from 10.0.0.7",
        "ResponseComplete",
    )
    assert (facts["Outcome"], facts["Cluster"]) == ("allowed (101)", "prod")
    assert "Severity" not in facts


@pytest.mark.parametrize(
    ("fields", "severity", "outcome"),
    [
        ({}, "low", "allowed"),
        ({"responseStatus": {"code": 403}}, "medium", "denied"),
        ({"responseStatus": {"code": 500}}, "low", "failed"),
        ({"stage": "Panic"}, "low", "failed"),
    ],
)
def test_a_denied_one_is_graver(fields, severity, outcome) -> None:
    """So that a minimum severity can tell."""
    made = as_event(outgoing(**fields), "slack")
    assert (made.severity, made.outcome) == (severity, outcome)


def test_each_stage_is_an_event_of_its_own_for_each_sink_and_the_same_whenever_it_is_read() -> None:
    """Nothing is told twice because a log is read again."""
    one = as_event(outgoing(), "slack")
    assert as_event(outgoing(), "slack") == one
    others = [
        as_event(outgoing(), "mail"),
        as_event(outgoing(stage="RequestReceived"), "slack"),
        as_event(outgoing("b"), "slack"),
    ]
    assert len({one.id, *(other.id for other in others)}) == 4
    assert group_key(one) != group_key(others[1])


def test_planted_secrets_are_in_no_part_of_it() -> None:
    """Neither of the command nor of bodies, which are not looked at."""
    body = {"kind": "Secret", "data": {"password": "UGxhbnRlZDE="}, "stringData": {"x": "Planted2"}}
    made = as_event(outgoing(requestObject=body, userAgent="kubectl Bearer abcdefabcdefabcdefabcdef"), "slack")
    text = str(made) + str(note(Message((Group("k", (made,)),))))
    for secret in ("S3cret", "UGxhbnRlZDE=", "Planted2", "abcdefabcdef"):
        assert secret not in text
    assert made.command == "mysql -p[redacted]"


def test_objects_without_a_name_or_a_namespace_or_at_all() -> None:
    """Lists, nodes and /healthz."""
    assert as_event(outgoing(objectRef={"resource": "nodes"}), "s").entity_ref == "audit:nodes"
    made = as_event(outgoing(objectRef=None, requestURI="/healthz", verb="get"), "s")
    assert (made.type, made.entity_ref, made.description) == ("audit: get request", "audit:request", "get /healthz")


def test_a_sink_gets_what_it_was_made_for(event) -> None:
    """Friction by default; the audit events chosen for it with `stream: audit`, and then no friction."""
    audit = as_event(outgoing(), "slack")
    assert (wants(event(), "friction"), wants(audit, "friction")) == (True, False)
    assert (wants(event(), "audit"), wants(audit, "audit")) == (False, True)
