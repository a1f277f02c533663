"""What KubeArmor's clients are shown of our events."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from forwarder.events.audit import decode
from forwarder.events.friction import FrictionEvent
from forwarder.feed import mapping, schema


def line(**more: Any) -> bytes:
    """An exec into a pod, as the apiserver writes it."""
    event = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse",
        "auditID": "63f3a61b-fb39-48eb-a023-ff005e00aa0a", "stage": "ResponseStarted",
        "requestURI": "/api/v1/namespaces/prod/pods/web-0/exec?command=sh&command=-c&command=id&container=app&tty=true",
        "verb": "create", "user": {"username": "alice@corp.example"}, "sourceIPs": ["192.0.2.1"], "userAgent": "kubectl/v1.34",
        "objectRef": {"resource": "pods", "namespace": "prod", "name": "web-0", "subresource": "exec"},
        "responseStatus": {"code": 101}, "requestReceivedTimestamp": "2026-03-01T10:00:00.250000Z",
    }  # fmt: skip
    return json.dumps(event | more).encode()


def test_a_friction_event_is_an_alert(friction: Callable[..., FrictionEvent]) -> None:
    """Every field that has a place, in KubeArmor's words; the rest in EventData."""
    alert = schema.Alert.FromString(mapping.alert(friction()))
    assert alert.Timestamp == 1772359200
    assert alert.UpdatedTime == "2026-03-01T10:00:00.250000Z"
    assert (alert.ClusterName, alert.NamespaceName, alert.PodName, alert.ContainerName) == (
        "eu-1",
        "prod",
        "web-0",
        "app",
    )
    assert (alert.Owner.Ref, alert.Owner.Name, alert.Owner.Namespace) == ("component:prod/web", "web", "prod")
    assert (alert.Type, alert.PolicyName, alert.Severity) == ("MatchedPolicy", "kubectl-exec", "10")
    assert (alert.Operation, alert.Resource) == ("KubernetesAudit", "namespaces/prod/pods/web-0/exec")
    assert (alert.Source, alert.UserName) == ("alice@corp.example", "alice@corp.example")
    assert (alert.Action, alert.Result) == ("Audit", "Passed")
    assert (alert.Tags, list(alert.ATags)) == ("shell,prod", ["shell", "prod"])
    assert alert.Message == "a shell in prod"
    assert (alert.ProcessName, alert.ExecEvent.ExecutableName, alert.TTY) == ("sh -c id", "sh", "true")
    assert alert.Data == "verb=create stage=ResponseComplete code=101 command=sh -c id"
    data = dict(alert.EventData)
    assert data["auditID"] == "63f3a61b-fb39-48eb-a023-ff005e00aa0a"
    assert (data["verb"], data["stage"], data["id"]) == (
        "create",
        "ResponseComplete",
        "5a7f0d5e-7b52-5c2c-8a62-1d2a3c4b5d6e",
    )
    assert (data["durationSeconds"], data["revision"], data["outcome"]) == ("12.500", "1", "allowed")
    assert "" not in data.values()


@pytest.mark.parametrize(
    ("outcome", "code", "action", "result"),
    [
        ("allowed", 200, "Audit", "Passed"),
        ("denied", 403, "Block", "Permission denied"),
        ("denied", 0, "Block", "Permission denied"),
        ("failed", 404, "Audit", "Failed (404)"),
        ("failed", 0, "Audit", "Failed"),
    ],
)
def test_a_denied_attempt_is_a_block(
    friction: Callable[..., FrictionEvent], outcome: str, code: int, action: str, result: str
) -> None:
    """Action and Result follow the outcome."""
    alert = schema.Alert.FromString(mapping.alert(friction(outcome=outcome, response_code=code)))
    assert (alert.Action, alert.Result) == (action, result)


@pytest.mark.parametrize(("severity", "number"), [("high", "10"), ("medium", "6"), ("low", "3")])
def test_severity_is_a_number_as_text(friction: Callable[..., FrictionEvent], severity: str, number: str) -> None:
    """KubeArmor's "1" to "10", whatever points the rule gives."""
    assert schema.Alert.FromString(mapping.alert(friction(severity=severity, points=77))).Severity == number


def test_an_object_that_is_no_pod_has_no_pod_name(friction: Callable[..., FrictionEvent]) -> None:
    """A node is a host; a cluster-wide object stands in no namespace."""
    event = friction(
        resource="nodes", subresource="", name="node-1", node="node-1", namespace="", command="", tty=False
    )
    alert = schema.Alert.FromString(mapping.alert(event))
    assert (alert.PodName, alert.HostName, alert.Resource, alert.TTY) == ("", "node-1", "nodes/node-1", "")
    assert not alert.HasField("ExecEvent")


def test_an_audit_event_is_a_log() -> None:
    """With the command and the terminal of an exec."""
    encoded = mapping.log(decode(line()), "eu-1")
    log = schema.Log.FromString(encoded)
    assert (log.Timestamp, log.UpdatedTime) == (1772359200, "2026-03-01T10:00:00.250000Z")
    assert (log.Type, log.ClusterName, log.NamespaceName, log.PodName) == ("ContainerLog", "eu-1", "prod", "web-0")
    assert (log.Source, log.Operation, log.Result) == ("alice@corp.example", "KubernetesAudit", "Passed")
    assert (log.ProcessName, log.TTY, log.ContainerName) == ("sh -c id", "true", "app")
    assert log.Resource == "namespaces/prod/pods/web-0/exec"
    assert log.EventData["auditID"] == "63f3a61b-fb39-48eb-a023-ff005e00aa0a"
    assert (log.EventData["level"], log.EventData["userAgent"]) == ("RequestResponse", "kubectl/v1.34")


def test_what_is_about_no_pod_is_a_host_log() -> None:
    """Also requests about no object at all, which show their path."""
    encoded = mapping.log(decode(line(objectRef=None, requestURI="/version", responseStatus={"code": 403})), "")
    log = schema.Log.FromString(encoded)
    assert (log.Type, log.Resource, log.Result) == ("HostLog", "/version", "Permission denied")


def test_a_cut_line_is_shown_as_far_as_it_goes() -> None:
    """Managed clouds cut long ones."""
    whole = line(requestObject={"data": "x" * 5000})
    encoded = mapping.log(decode(whole[: whole.index(b"xxx")]), "")
    log = schema.Log.FromString(encoded)
    assert (log.PodName, log.EventData["partial"]) == ("web-0", "true")


def test_no_secret_leaves_in_an_audit_event() -> None:
    """Bodies are never shown; commands, paths, agents and names are redacted, and control characters taken out."""
    planted = "pl4nted-Secret-9f8e7d6c5b4a"
    token = "eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJl"
    data = line(
        requestObject={"data": {"password": planted}, "stringData": {"k": planted}},
        responseObject={"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": planted}}},
        requestURI=f"/api/v1/namespaces/prod/pods/web-0/exec?command=mysql&command=--password%3D{planted}&token={planted}",
        userAgent=f"curl Authorization: Bearer {token} \x1b[31mred",
        annotations={"note": planted},
    )
    encoded = mapping.log(decode(data), "eu-1")
    assert planted.encode() not in encoded
    assert token.encode() not in encoded
    assert b"\x1b[" not in encoded
    assert b"mysql" in encoded


def test_odd_text_breaks_no_message(friction: Callable[..., FrictionEvent]) -> None:
    """Half characters, which JSON may carry, are no UTF-8; a message with them could not be encoded."""
    odd = line(user={"username": "a\ud800b"}, verb="g\x00et", userAgent="\udfff", auditID="not a uuid")
    encoded = mapping.log(decode(odd), "c\ud800")
    assert schema.Log.FromString(encoded).EventData["auditID"] == "not a uuid"


def test_a_time_that_is_none_becomes_now() -> None:
    """A made-up timestamp costs the event nothing."""
    encoded = mapping.log(decode(line(requestReceivedTimestamp="soon")), "")
    assert schema.Log.FromString(encoded).Timestamp > 1772359200


def test_a_notice_is_a_message() -> None:
    """With its level, and the machine that says it."""
    message = schema.Message.FromString(mapping.message("WARN", "the disk is full", "eu-1", 1772359200.25))
    assert (message.Level, message.Message, message.ClusterName) == ("WARN", "the disk is full", "eu-1")
    assert (message.Timestamp, message.UpdatedTime, message.Type) == (
        1772359200,
        "2026-03-01T10:00:00.250000Z",
        "Message",
    )
    assert message.HostName


def test_losses_are_told_in_the_stream_that_had_them() -> None:
    """As KubeArmor tells of its throttle, with the number in EventData."""
    alert = schema.Alert.FromString(mapping.dropped("alerts", 7, "eu-1"))
    assert (alert.Type, alert.Operation, alert.EventData["dropped"]) == ("SystemEvent", "AlertThreshold", "7")
    assert alert.Message.startswith("7 alerts lost here")
    log = schema.Log.FromString(mapping.dropped("logs", 7, "eu-1"))
    assert (log.Type, log.EventData["dropped"]) == ("SystemEvent", "7")
    message = schema.Message.FromString(mapping.dropped("messages", 7, "eu-1"))
    assert (message.Level, message.Message.split(" ")[0]) == ("WARN", "7")
