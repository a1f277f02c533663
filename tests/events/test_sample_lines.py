"""Rendering: Go's escaping, and templates whose fixed text may hold anything."""

import json

import pytest

from forwarder.events.sample_cluster import User
from forwarder.events.sample_lines import Template, audit_event, go_json, object_uri

VALUES = (b"the-id", b"ResponseStarted", b"received", b"staged", b"12")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a&b<c>d", rb'"a\u0026b\u003cc\u003ed"'),
        ("\u2028\u2029", rb'"\u2028\u2029"'),
        ('é\n"\\', '"é\\n\\"\\\\"'.encode()),
        ({"b": 1, "a": [True, None]}, b'{"b":1,"a":[true,null]}'),
    ],
    ids=["html", "line separators", "plain escapes", "order"],
)
def test_go_json(value, text):
    """What encoding/json would write, byte for byte."""
    assert go_json(value) == text


def test_a_template_fills_its_marks_and_nothing_else():
    """Percent signs, e-mail addresses and texts like marks stay; every mark is filled, also twice."""
    event = {
        "auditID": "@audit_id@",
        "a": "100%b @x@ alice@corp.example",
        "stage": "@stage@",
        "again": "x@audit_id@y@version@",
    }
    line = Template(event).render(VALUES)
    assert json.loads(line) == {
        "auditID": "the-id",
        "a": "100%b @x@ alice@corp.example",
        "stage": "ResponseStarted",
        "again": "xthe-idy12",
    }


@pytest.mark.parametrize(
    ("reference", "uri"),
    [
        (
            {"resource": "pods", "namespace": "shop", "name": "a", "subresource": "exec"},
            "/api/v1/namespaces/shop/pods/a/exec",
        ),
        (
            {"resource": "deployments", "apiGroup": "apps", "namespace": "shop"},
            "/apis/apps/v1/namespaces/shop/deployments",
        ),
        ({"resource": "nodes", "name": "n"}, "/api/v1/nodes/n"),
    ],
    ids=["subresource", "group", "cluster-scoped"],
)
def test_object_uri(reference, uri):
    """Paths are the API's own."""
    assert object_uri(reference) == uri
    assert object_uri(reference, "a=1") == f"{uri}?a=1"


def test_a_denied_request_says_so_twice():
    """A 403 carries a Status with its reason, and annotations that say `forbid` with an empty reason."""
    event = audit_event(
        "Metadata",
        "get",
        "/x",
        User("bob"),
        "kubectl",
        {"resource": "secrets"},
        code=403,
        message="no",
        reason="Forbidden",
    )
    assert event["responseStatus"]["reason"] == "Forbidden"
    assert event["annotations"] == {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}
