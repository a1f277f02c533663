"""GKE LogEntries as audit events: who, what, where, and how it really ended."""

import json

import pytest

from forwarder.envelopes.google import HTTP_OF_GRPC
from forwarder.events.audit import decode


def entry(message, **payload):
    document = json.loads(message("gke-exec.json"))
    document["protoPayload"] |= payload
    return json.dumps(document).encode()


def only(contents):
    assert len(contents.lines) == 1
    assert contents.bad == []
    return decode(contents.lines[0].line)


def test_an_exec(message, opened, friction):
    """Converted so that the shipped rules find it."""
    contents = opened(message("gke-exec.json"))
    event = only(contents)
    assert event.audit_id == "3f1b2c64-5d4e-4a43-9b7a-0d5a7d3a9c10"
    assert (event.verb, event.stage, event.user.username) == ("create", "ResponseComplete", "jane@example.com")
    assert (event.object_ref.namespace, event.object_ref.subresource, event.object_ref.api_group) == (
        "shop",
        "exec",
        "",
    )
    assert event.request_uri == "/api/v1/namespaces/shop/pods/checkout-7d4b9c6f5d-x2v8q/exec"
    assert event.annotations["authorization.k8s.io/decision"] == "allow"
    found = friction(contents)
    assert [(one.type, one.entity_ref, one.outcome, one.cluster, one.source_ips) for one in found] == [
        ("kubectl-exec", "component:shop/checkout", "allowed", "shop-gke", ("203.0.113.7",))
    ]


def test_a_denial_is_a_denial(message, opened):
    """Status code 7; it must not look like a success."""
    assert only(opened(message("gke-denied.json"))).response_status.code == 403


@pytest.mark.parametrize(("grpc", "http"), sorted(HTTP_OF_GRPC.items()))
def test_every_grpc_code(message, opened, grpc, http):
    """Each becomes the HTTP code that the API server gave."""
    assert only(opened(entry(message, status={"code": grpc}))).response_status.code == http


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"status": {}}, 201),
        ({"status": {"code": 0}}, 201),
        ({"status": {"code": 99}}, 500),
        ({"status": {}, "authorizationInfo": [{"permission": "x"}]}, 403),
        ({"status": {}, "authorizationInfo": [{"granted": False}]}, 403),
        ({"status": {}, "authorizationInfo": []}, 201),
        ({"status": {}, "methodName": "io.k8s.core.v1.pods.delete"}, 200),
    ],
    ids=["ok", "zero", "unknown", "granted left out", "not granted", "no authorisation", "delete"],
)
def test_how_it_ended_is_not_invented(message, opened, payload, code):
    """The status first, then the authorisation."""
    assert only(opened(entry(message, **payload))).response_status.code == code


@pytest.mark.parametrize(
    ("name", "method", "expected", "uri"),
    [
        ("core/v1/nodes/n1/proxy", "io.k8s.core.v1.nodes.proxy.get", ("", "v1", "", "nodes", "n1", "proxy"), "/api/v1/nodes/n1/proxy"),
        ("apps/v1/namespaces/shop/deployments/web/scale", "io.k8s.apps.v1.deployments.scale.patch", ("apps", "v1", "shop", "deployments", "web", "scale"), "/apis/apps/v1/namespaces/shop/deployments/web/scale"),
        ("core/v1/namespaces/shop", "io.k8s.core.v1.namespaces.delete", ("", "v1", "shop", "namespaces", "shop", ""), "/api/v1/namespaces/shop"),
        ("core/v1/namespaces/shop/finalize", "io.k8s.core.v1.namespaces.finalize.update", ("", "v1", "shop", "namespaces", "shop", "finalize"), "/api/v1/namespaces/shop/finalize"),
        ("core/v1/namespaces/shop/secrets", "io.k8s.core.v1.secrets.list", ("", "v1", "shop", "secrets", "", ""), "/api/v1/namespaces/shop/secrets"),
        ("rbac.authorization.k8s.io/v1/clusterroles/admin", "io.k8s.authorization.rbac.v1.clusterroles.update", ("rbac.authorization.k8s.io", "v1", "", "clusterroles", "admin", ""), "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin"),
        ("argoproj.io/v1alpha1/namespaces/argo/applications/web", "io.argoproj.v1alpha1.applications.patch", ("argoproj.io", "v1alpha1", "argo", "applications", "web", ""), "/apis/argoproj.io/v1alpha1/namespaces/argo/applications/web"),
    ],
    ids=["node proxy", "scale", "a namespace", "finalize", "list", "cluster role", "custom resource"],
)  # fmt: skip
def test_what_it_was_about(message, opened, name, method, expected, uri):
    """resourceName and methodName together say group, version, namespace, resource, name, subresource."""
    event = only(opened(entry(message, resourceName=name, methodName=method)))
    reference = event.object_ref
    found = (
        reference.api_group,
        reference.api_version,
        reference.namespace,
        reference.resource,
        reference.name,
        reference.subresource,
    )
    assert found == expected
    assert (event.request_uri, event.verb) == (uri, method.rpartition(".")[2])


def test_a_first_entry_without_a_last_is_an_open_session(message, opened):
    """Long-running requests have two entries."""
    document = json.loads(message("gke-exec.json"))
    document["operation"] = {"first": True, "id": "x", "producer": "k8s.io"}
    assert only(opened(json.dumps(document).encode())).stage == "ResponseStarted"


def test_other_google_services_are_passed_over(message, opened):
    """A node pool that was resized is no request to the API server."""
    contents = opened(message("gke-node-pool.json"))
    assert (contents.lines, contents.skipped) == ([], {"other_service": 1})


def test_pub_sub_push_and_pull(message, opened):
    """The entry is in the message's data, in base64."""
    push = message("gke-pubsub-push.json")
    pull = json.dumps({"receivedMessages": [{"ackId": "a", "message": json.loads(push)["message"]}]}).encode()
    assert opened(push).lines == opened(pull).lines == opened(message("gke-exec.json")).lines


def test_bodies_come_along_as_they_are(message, opened):
    """request and response, where Data Access logs hold them."""
    event = only(
        opened(entry(message, request={"@type": "core.k8s.io/v1.Pod", "spec": {}}, response={"kind": "Status"}))
    )
    assert event.level == "RequestResponse"
    assert bytes(event.request_object).startswith(b'{"@type"')
