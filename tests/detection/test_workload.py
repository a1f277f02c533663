"""From objects to services."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.detection.workload import entity_ref, owner_workload, pod_workload, workload
from forwarder.events.audit import AuditEvent, BodyMetadata, ObjectRef, OwnerReference

HEALERT = re.compile(r"[a-zA-Z0-9_-]+:[a-zA-Z0-9_-]+/[a-zA-Z0-9_.\-]+")


@pytest.mark.parametrize(
    ("pod", "service"),
    [
        ("web-7998647bdf-phvq7", "web"),
        ("checkout-6b499f964d-f7s8w", "checkout"),
        ("my-service-b4c7fb94f-xyzz2", "my-service-b4c7fb94f-xyzz2"),  # y is in neither alphabet: not Kubernetes' doing
        ("web-bcdfg", "web"),
        ("agent-x7k9p", "agent"),
        ("backup-29384756-zxc7w", "backup"),
        ("report-1700000000-zxc7w", "report"),
        ("db-0", "db"),
        ("orders-db-12", "orders-db"),
        ("one-off", "one-off"),
        ("order-service-proxy", "order-service-proxy"),
        ("redis-master-cache", "redis-master-cache"),
        ("api-v2-x7k9p", "api-v2"),  # a DaemonSet or Job called api-v2: `v2` is no pod-template hash
        ("tls-2024", "tls"),
        ("web", "web"),
    ],
)
def test_a_pod_name_tells_its_workload(pod: str, service: str) -> None:
    """Only what Kubernetes' own alphabets and lengths allow is taken off."""
    assert pod_workload(pod) == service


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        ("deployments", "api-v2"),
        ("deployments", "web-0"),
        ("secrets", "db-creds-admin"),
        ("secrets", "tls-2024"),
        ("services", "order-service-proxy"),
        ("configmaps", "web-bcdfg"),
    ],
)
def test_names_of_other_kinds_stay(resource: str, name: str) -> None:
    """Stripping a suffix from what is no pod puts the score on the wrong entity."""
    event = AuditEvent(object_ref=ObjectRef(resource=resource, namespace="shop", name=name))
    assert workload(event, "default").entity_ref == f"component:shop/{name}"


@pytest.mark.parametrize(
    ("kind", "owner", "service"),
    [
        ("ReplicaSet", "web-7998647bdf", "web"),
        ("Job", "backup-29384756", "backup"),
        ("Job", "migrate", "migrate"),
        ("DaemonSet", "agent-x7k9p", "agent-x7k9p"),
        ("StatefulSet", "db-0", "db-0"),
        ("Node", "node-1", ""),
    ],
)
def test_an_owner_wins_over_guessing(kind: str, owner: str, service: str) -> None:
    """ownerReferences are facts; a name's suffix is a guess."""
    body = BodyMetadata(owner_references=(OwnerReference(kind=kind, name=owner, controller=True),))
    assert owner_workload(body) == service


def test_the_controller_wins_over_other_owners() -> None:
    """An object may have several owners; one of them controls it."""
    owners = (
        OwnerReference(kind="Deployment", name="other"),
        OwnerReference(kind="StatefulSet", name="db", controller=True),
    )
    assert owner_workload(BodyMetadata(owner_references=owners)) == "db"


def test_the_response_names_what_the_reference_does_not() -> None:
    """generateName leaves objectRef without a name; the answer has it."""
    event = AuditEvent(
        object_ref=ObjectRef(resource="pods", namespace="shop"),
        response_object=msgspec.Raw(b'{"metadata":{"name":"run-x7k9p","generateName":"run-"}}'),
    )
    assert (workload(event, "default").name, workload(event, "default").service) == ("run-x7k9p", "run")
    event = AuditEvent(
        object_ref=ObjectRef(resource="pods", namespace="shop"),
        request_object=msgspec.Raw(b'{"metadata":{"generateName":"run-"}}'),
    )
    assert workload(event, "default").service == "run"


def test_a_list_stands_for_its_resource() -> None:
    """There is no name to find."""
    event = AuditEvent(object_ref=ObjectRef(resource="secrets", namespace="shop"))
    assert workload(event, "default").entity_ref == "component:shop/secrets"


def test_cluster_scoped_objects_use_the_entity_namespace() -> None:
    """A Namespace object carries its own name as namespace when it is deleted, none when it is made: one entity."""
    made = AuditEvent(object_ref=ObjectRef(resource="namespaces", name="tmp"))
    gone = AuditEvent(object_ref=ObjectRef(resource="namespaces", namespace="tmp", name="tmp"))
    node = AuditEvent(object_ref=ObjectRef(resource="nodes", name="node-1"))
    assert {workload(e, "platform").entity_ref for e in (made, gone)} == {"component:platform/tmp"}
    assert workload(node, "platform").entity_ref == "component:platform/node-1"


@pytest.mark.parametrize(
    ("resource", "asked", "service", "name"),
    [
        ("services", "web:80", "web", "web"),
        ("services", "https:web:", "web", "web"),
        ("pods", "web-7998647bdf-phvq7:8080", "web", "web-7998647bdf-phvq7"),
        ("nodes", "https:node-1:10250", "node-1", "node-1"),
    ],
)
def test_a_proxied_object_is_named_without_scheme_and_port(resource: str, asked: str, service: str, name: str) -> None:
    """`/pods/https:web-…:8443/proxy/` asks the same pod as any other."""
    event = AuditEvent(
        object_ref=ObjectRef(resource=resource, namespace="shop", name=asked, subresource="proxy"),
    )
    found = workload(event, "default")
    assert (found.service, found.name) == (service, name)


def test_forbidden_characters_are_replaced() -> None:
    """RBAC names hold colons, which the backend's pattern refuses; sent as they are they would be lost."""
    assert entity_ref("default", "system:kube-scheduler") == "component:default/system-kube-scheduler"


@given(st.text(), st.text())
def test_any_names_give_a_reference_that_no_backend_refuses(namespace: str, service: str) -> None:
    """Pattern and length of Healert's entity_ref."""
    reference = entity_ref(namespace, service)
    assert HEALERT.fullmatch(reference)
    assert 3 <= len(reference) <= 200


def test_two_overlong_names_stay_two_entities() -> None:
    """They end in digits of their hash."""
    assert entity_ref("n", "a" * 250 + "x") != entity_ref("n", "a" * 250 + "y")
