"""What machines do all day: nine tenths of any audit log, and none of it friction.

Kubelets renew leases and report pods, controllers keep objects in step, operators read, informers watch. The weights
give a mean of about 2.8 kB: two thirds of the lines at Metadata level, an eighth at Request, a fifth with both bodies.
"""

from collections.abc import Iterator
from itertools import cycle

import msgspec

from forwarder.events.sample_cluster import API, SECRETS, Body, Cluster, User
from forwarder.events.sample_lines import Template, audit_event, object_uri, service_account

KUBELET = "kubelet/v1.34.4 (linux/amd64) kubernetes/4cb5f07"
CONTROLLERS = "kube-controller-manager/v1.34.4 (linux/amd64) kubernetes/4cb5f07/"
READERS = (  # namespace, service account, agent, what it reads
    ("monitoring", "prometheus", "Prometheus/3.4.0", "endpointslices"),
    ("external-secrets", "external-secrets", "external-secrets/v0.18.2 (linux/amd64)", "secrets"),
    ("argocd", "argocd-application-controller", "argocd-application-controller/v3.0.6 (linux/amd64)", "deployments"),
    ("cert-manager", "cert-manager", "cert-manager-certificates/v1.18.2 (linux/amd64)", "secrets"),
    ("data-platform", "strimzi-cluster-operator", "fabric8-kubernetes-client/7.3.1", "configmaps"),
    ("kube-system", "horizontal-pod-autoscaler", CONTROLLERS + "horizontal-pod-autoscaler", "pods"),
)


class Traffic(msgspec.Struct, frozen=True):
    """Templates of one kind; `share` of all machine lines are drawn from them."""

    share: float
    templates: tuple[Template, ...]


def traffic(cluster: Cluster) -> list[Traffic]:
    """Everything that machines do in `cluster`, with its shares, which add up to about 1."""
    nodes = [User(f"system:node:{node}", "", ("system:nodes", "system:authenticated")) for node in cluster.nodes]
    return [
        Traffic(0.15, tuple(_reads(cluster))),
        Traffic(0.19, tuple(_kubelet_reads(cluster, nodes))),
        Traffic(0.02, tuple(_watches(nodes))),
        Traffic(0.13, tuple(_elections())),
        Traffic(0.11, tuple(_lists(cluster))),
        Traffic(0.03, tuple(_discovery())),
        Traffic(0.04, tuple(_config_maps(cluster))),
        Traffic(0.12, tuple(_leases(nodes))),
        Traffic(0.115, tuple(_controller_writes(cluster))),
        Traffic(0.07, tuple(_pod_writes(cluster, nodes))),
        Traffic(0.025, tuple(_placements(cluster))),
    ]


def _reference(resource: str, namespace: str = "", name: str = "", **more: str) -> dict[str, str]:
    return {"resource": resource, "namespace": namespace, "name": name, "apiVersion": "v1", **more}


def _metadata(verb: str, reference: dict[str, str], user: User, agent: str, query: str = "", code: int = 200) -> Body:
    return audit_event("Metadata", verb, object_uri(reference, query), user, agent, reference, code=code)


def _reads(cluster: Cluster) -> Iterator[Template]:
    for namespace, account, agent, resource in READERS:
        user = service_account(namespace, account)
        for workload, secret in zip(cluster.workloads, cycle(SECRETS), strict=False):
            name = {"secrets": secret, "deployments": workload.name, "pods": workload.pods[0]}.get(
                resource, workload.name
            )
            group = {"deployments": "apps", "endpointslices": "discovery.k8s.io"}.get(resource, "")
            yield Template(
                _metadata("get", _reference(resource, workload.namespace, name, apiGroup=group), user, agent)
            )


def _kubelet_reads(cluster: Cluster, nodes: list[User]) -> Iterator[Template]:
    for node in nodes:
        name = node.username.rpartition(":")[2]
        yield Template(_metadata("get", _reference("nodes", name=name), node, KUBELET, "resourceVersion=0&timeout=10s"))
        for workload in cluster.workloads:
            yield Template(_metadata("get", _reference("pods", workload.namespace, workload.pods[-1]), node, KUBELET))


def _watches(nodes: list[User]) -> Iterator[Template]:
    for node in nodes:
        for resource in ("configmaps", "secrets", "services"):
            reference = _reference(resource, "edge", "kube-root-ca.crt" if resource == "configmaps" else "")
            query = "allowWatchBookmarks=true&resourceVersion=@version@&timeoutSeconds=431&watch=true"
            yield Template(_metadata("watch", reference, node, KUBELET, query), two_stages=True)


def _elections() -> Iterator[Template]:
    for name in ("kube-scheduler", "kube-controller-manager", "cert-manager-controller", "ingress-nginx-leader"):
        for verb in ("get", "update"):
            reference = _reference("leases", "kube-system", name, apiGroup="coordination.k8s.io")
            user = service_account("kube-system", name)
            yield Template(_metadata(verb, reference, user, f"{name}/v1.34.4 (linux/amd64) leader-election"))


def _lists(cluster: Cluster) -> Iterator[Template]:
    user = service_account("monitoring", "kube-state-metrics")
    for workload in cluster.workloads:
        query = f"labelSelector=app%3D{workload.name}%2Cteam+in+%28{workload.namespace}%29&limit=500&resourceVersion=0"
        yield Template(
            _metadata("list", _reference("pods", workload.namespace), user, "kube-state-metrics/v2.16.0", query)
        )


def _discovery() -> Iterator[Template]:
    user = service_account("kube-system", "resourcequota-controller")
    for path in ("/apis?timeout=32s", "/api?timeout=32s", "/openapi/v3"):
        yield Template(audit_event("Metadata", "get", path, user, CONTROLLERS + "resourcequota", None))


def _config_maps(cluster: Cluster) -> Iterator[Template]:
    user = service_account("argocd", "argocd-application-controller")
    for workload in cluster.workloads:
        reference = _reference("configmaps", workload.namespace, f"{workload.name}-config")
        yield Template(
            _metadata(
                "patch", reference, user, "argocd-application-controller/v3.0.6", "fieldManager=argocd-controller"
            )
        )


def _leases(nodes: list[User]) -> Iterator[Template]:
    for node in nodes:
        name = node.username.rpartition(":")[2]
        reference = _reference(
            "leases", "kube-node-lease", name, apiGroup="coordination.k8s.io", resourceVersion="@version@"
        )
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": "a8034b9f-eb6b-4b35-9018-4b5259e466bc"}
        meta = {
            "name": name,
            "namespace": "kube-node-lease",
            "resourceVersion": "@version@",
            "ownerReferences": [owner],
        }
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": "@received@"}
        request = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": meta, "spec": spec}
        yield Template(
            audit_event("Request", "update", object_uri(reference), node, KUBELET, reference, request=request)
        )


def _controller_writes(cluster: Cluster) -> Iterator[Template]:
    """Status updates, and what deployment by GitOps looks like: near misses of config-drift, as are the next two."""
    for workload in cluster.workloads:
        resource, group, _ = API[workload.kind]
        body = cluster.controller(workload)
        at = _reference(resource, workload.namespace, workload.name, apiGroup=group)
        owner = service_account("kube-system", f"{workload.kind.lower()}-controller")
        yield _both_bodies("update", {**at, "subresource": "status"}, owner, body, body)
        yield _both_bodies("patch", at, service_account("argocd", "argocd-application-controller"), body, body)
        if workload.replica_set:
            body = cluster.replica_set(workload)
            at = _reference(
                "replicasets", workload.namespace, workload.replica_set, apiGroup="apps", subresource="status"
            )
            yield _both_bodies("update", at, service_account("kube-system", "replicaset-controller"), body, body)


def _pod_writes(cluster: Cluster, nodes: list[User]) -> Iterator[Template]:
    controller = service_account("kube-system", "replicaset-controller")
    for workload, node in zip(cluster.workloads, cycle(nodes), strict=False):
        for pod in workload.pods:
            body = cluster.pod(workload, pod)
            at = _reference("pods", workload.namespace, pod)
            status = {"status": {**body["status"], "startTime": "@received@"}}
            yield _both_bodies("patch", {**at, "subresource": "status"}, node, status, body)
            created = {**body, "metadata": {"generateName": pod[:-5], "labels": body["metadata"]["labels"]}}
            yield _both_bodies("create", {**at, "name": ""}, controller, created, body, code=201)


def _placements(cluster: Cluster) -> Iterator[Template]:
    """Pods bound to nodes and evicted from them: writes to pods that no person makes."""
    answer = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    scheduler = User("system:kube-scheduler", "", ("system:authenticated",))
    descheduler = service_account("kube-system", "descheduler")
    for workload in cluster.workloads:
        pod = workload.pods[0]
        at = _reference("pods", workload.namespace, pod)
        meta = {"name": pod, "namespace": workload.namespace}
        binding = {
            "kind": "Binding",
            "apiVersion": "v1",
            "metadata": meta,
            "target": {"kind": "Node", "name": workload.node},
        }
        yield _both_bodies("create", {**at, "subresource": "binding"}, scheduler, binding, answer, code=201)
        eviction = {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": meta}
        yield _both_bodies("create", {**at, "subresource": "eviction"}, descheduler, eviction, answer, code=201)


def _both_bodies(
    verb: str, reference: dict[str, str], user: User, request: Body, response: Body, code: int = 200
) -> Template:
    uri = object_uri(reference, "timeout=30s&fieldManager=x" if verb == "patch" else "")
    agent = KUBELET if user.username.startswith("system:node:") else CONTROLLERS + user.username
    return Template(
        audit_event("RequestResponse", verb, uri, user, agent, reference, code=code, request=request, response=response)
    )
