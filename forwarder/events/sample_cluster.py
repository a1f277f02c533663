"""An imaginary cluster: its nodes, workloads, pods and people, and the objects that the API would show of them.

Everything is drawn from one random generator, so the same seed gives the same cluster. Names follow Kubernetes' rules:
a ReplicaSet's hash has only the letters that a hash can have, generated suffixes only those of its suffix alphabet.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

HASH_ALPHABET = "456789bcdf"  # what the ten digits of a pod-template hash turn into
SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # k8s.io/apimachinery/pkg/util/rand

Body = dict[str, Any]

SERVICES: Mapping[str, Sequence[tuple[str, str]]] = {
    "shop": [("checkout", "Deployment"), ("cart", "Deployment"), ("catalog", "Deployment"), ("shop-db", "StatefulSet")],
    "payments": [
        ("ledger", "Deployment"),
        ("payouts", "Deployment"),
        ("fraud-check", "Deployment"),
        ("settle", "CronJob"),
    ],
    "search": [("query-api", "Deployment"), ("indexer", "Deployment"), ("opensearch", "StatefulSet")],
    "identity": [("login", "Deployment"), ("sessions", "Deployment"), ("keycloak", "StatefulSet")],
    "logistics": [("tracking", "Deployment"), ("labels", "Deployment"), ("rates-import", "CronJob")],
    "mobile-api": [("gateway", "Deployment"), ("push", "Deployment"), ("feature-flags", "Deployment")],
    "data-platform": [("ingest", "Deployment"), ("kafka", "StatefulSet"), ("daily-report", "CronJob")],
    "edge": [("router", "Deployment"), ("log-agent", "DaemonSet"), ("cache", "StatefulSet")],
}
SECRETS = ("db-credentials", "api-token", "tls-cert", "smtp-password", "signing-key")
API: Mapping[str, tuple[str, str, str]] = {  # kind -> resource, group, version
    "Deployment": ("deployments", "apps", "v1"),
    "StatefulSet": ("statefulsets", "apps", "v1"),
    "DaemonSet": ("daemonsets", "apps", "v1"),
    "ReplicaSet": ("replicasets", "apps", "v1"),
    "CronJob": ("cronjobs", "batch", "v1"),
    "Job": ("jobs", "batch", "v1"),
    "Pod": ("pods", "", "v1"),
}


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    """`user` of an audit event, in the key order of kube-apiserver."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = {}


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One service: its controller object and the pods that run it. replica_set: "" where the kind has none."""

    namespace: str
    name: str
    kind: str
    uid: str
    replica_set: str
    pods: tuple[str, ...]
    node: str


class Cluster:
    """nodes, workloads, people: what the traffic of a sample log is about."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.nodes = tuple(f"node-{number}" for number in range(1, 9))
        self.workloads = tuple(
            self._workload(namespace, name, kind) for namespace, services in SERVICES.items() for name, kind in services
        )
        self.people = tuple(_people())

    def uid(self) -> str:
        """A random (version 4) UUID."""
        digits = f"{self.rng.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def suffix(self) -> str:
        """Five characters, as the API server adds them to `generateName`."""
        return "".join(self.rng.choices(SUFFIX_ALPHABET, k=5))

    def _workload(self, namespace: str, name: str, kind: str) -> Workload:
        rng = self.rng
        replica_set = ""
        if kind == "Deployment":
            replica_set = f"{name}-{''.join(rng.choices(HASH_ALPHABET, k=rng.choice((9, 10, 10))))}"
            pods = [f"{replica_set}-{self.suffix()}" for _ in range(rng.randint(2, 4))]
        elif kind == "StatefulSet":
            pods = [f"{name}-{ordinal}" for ordinal in range(3)]
        elif kind == "CronJob":
            pods = [f"{name}-{29_400_000 + 60 * run}-{self.suffix()}" for run in range(2)]
        else:
            pods = [f"{name}-{self.suffix()}" for _ in self.nodes[:4]]
        return Workload(
            namespace=namespace,
            name=name,
            kind=kind,
            uid=self.uid(),
            replica_set=replica_set,
            pods=tuple(pods),
            node=rng.choice(self.nodes),
        )

    # --- objects ---

    def controller(self, workload: Workload, annotations: Mapping[str, str] | None = None) -> Body:
        """The Deployment (StatefulSet, …) itself, as a response shows it."""
        _, group, version = API[workload.kind]
        template = {"metadata": {"labels": {"app": workload.name}}, "spec": self.pod_spec(workload)}
        spec: Body = {"replicas": 3, "selector": {"matchLabels": {"app": workload.name}}, "template": template}
        if workload.kind == "CronJob":
            spec = {
                "schedule": "17 * * * *",
                "concurrencyPolicy": "Forbid",
                "jobTemplate": {"spec": {"template": template}},
            }
        status = {
            "observedGeneration": 7,
            "replicas": 3,
            "readyReplicas": 3,
            "conditions": [
                _condition("Available", "MinimumReplicasAvailable"),
                _condition("Progressing", "NewReplicaSetAvailable"),
            ],
        }
        body: Body = {
            "kind": workload.kind,
            "apiVersion": f"{group}/{version}",
            "metadata": self.metadata(workload.namespace, workload.name, workload.uid, annotations),
            "spec": spec,
            "status": status,
        }
        return _managed(body, "argocd-controller")

    def replica_set(self, workload: Workload) -> Body:
        """The ReplicaSet of a Deployment."""
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.name, "uid": workload.uid}
        meta = self.metadata(workload.namespace, workload.replica_set, self.uid())
        meta["ownerReferences"] = [{**owner, "controller": True, "blockOwnerDeletion": True}]
        spec = {"replicas": 3, "selector": {"matchLabels": {"app": workload.name}}}
        spec["template"] = {"metadata": {"labels": {"app": workload.name}}, "spec": self.pod_spec(workload)}
        body: Body = {"kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": meta, "spec": spec}
        return _managed({**body, "status": {"replicas": 3, "readyReplicas": 3}}, "kube-controller-manager")

    def pod(self, workload: Workload, name: str) -> Body:
        """A running pod."""
        kind = "ReplicaSet" if workload.replica_set else "Job" if workload.kind == "CronJob" else workload.kind
        owner = workload.replica_set or (name.rpartition("-")[0] if kind == "Job" else workload.name)
        meta = self.metadata(workload.namespace, name, self.uid())
        group, version = API[kind][1:]
        reference = {"apiVersion": f"{group}/{version}", "kind": kind, "name": owner, "uid": self.uid()}
        meta["ownerReferences"] = [{**reference, "controller": True, "blockOwnerDeletion": True}]
        conditions = [_condition(name, "") for name in ("Initialized", "Ready", "ContainersReady", "PodScheduled")]
        status = {"phase": "Running", "conditions": conditions, "podIP": "10.42.3.17", "qosClass": "Burstable"}
        body: Body = {"kind": "Pod", "apiVersion": "v1", "metadata": meta}
        return _managed({**body, "spec": self.pod_spec(workload), "status": status}, "kubelet")

    def pod_spec(self, workload: Workload) -> Body:
        """What most of a workload's bytes are: containers with environment, probes and mounts."""
        prefix = workload.name.upper().replace("-", "_")
        variables: list[Body] = [
            {"name": f"{prefix}_{word}", "value": f"http://{word.lower()}.{workload.namespace}.svc.cluster.local:8080"}
            for word in (
                "UPSTREAM",
                "CACHE",
                "QUEUE",
                "FLAGS",
                "METRICS",
                "AUDIT",
                "SEARCH",
                "BILLING",
                "PROFILE",
                "MAIL",
            )
        ]
        secret = {"secretKeyRef": {"name": SECRETS[0], "key": "password"}}
        probe = {"httpGet": {"path": "/healthz?full=1&timeout=2", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 2}
        container = {
            "name": "app",
            "image": f"registry.corp.example/{workload.namespace}/{workload.name}:1.{len(workload.name)}.4",
            "args": ["serve", "--listen=:8080", "--log-format=json", "--drain=20s"],
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "env": [*variables, {"name": "DB_PASSWORD", "valueFrom": secret}],
            "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
            "livenessProbe": probe,
            "readinessProbe": probe,
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
        }
        return {
            "volumes": [
                {"name": "config", "configMap": {"name": f"{workload.name}-config"}},
                {"name": "tmp", "emptyDir": {}},
            ],
            "containers": [container],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": workload.name,
            "nodeName": workload.node,
            "securityContext": {"runAsNonRoot": True},
            "schedulerName": "default-scheduler",
        }

    def metadata(self, namespace: str, name: str, uid: str, annotations: Mapping[str, str] | None = None) -> Body:
        """`metadata` of any object; its resourceVersion is filled in when a line is written."""
        return {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "resourceVersion": "@version@",
            "generation": 7,
            "creationTimestamp": "2026-01-05T08:00:00Z",
            "labels": {"app": name, "team": namespace, "app.kubernetes.io/managed-by": "argocd"},
            "annotations": {"deployment.kubernetes.io/revision": "7", **(annotations or {})},
        }


def _condition(kind: str, reason: str) -> Body:
    time = "2026-01-05T08:00:12Z"
    return {"type": kind, "status": "True", "lastUpdateTime": time, "lastTransitionTime": time, "reason": reason}


def _managed(body: Body, manager: str) -> Body:
    """`body` with the managedFields that server-side apply keeps for it: half of the bytes of a real object."""
    fields = {f"f:{key}": _fields(body[key]) for key in ("metadata", "spec", "status") if key in body}
    entry = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": body["apiVersion"],
        "time": "2026-01-05T08:00:12Z",
    }
    body["metadata"]["managedFields"] = [{**entry, "fieldsType": "FieldsV1", "fieldsV1": fields}]
    return body


def _fields(value: Any) -> Body:
    if isinstance(value, dict):
        return {f"f:{key}": _fields(item) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
        return {f'k:{{"name":"{item["name"]}"}}': {".": {}, **_fields(item)} for item in value}
    return {}


def _people() -> list[User]:
    names = ["alice", "bob", "carol", "dmitri", "erin", "farid", "grace", "hiro", "inés", "jonas"]
    people = [
        User(f"{name}@corp.example", f"{name}-uid", ("dev", "R&D <platform>", "system:authenticated")) for name in names
    ]
    return [
        *people,
        User("kubernetes-admin", "", ("kubeadm:cluster-admins", "system:authenticated")),
        User("system:admin", "", ("system:masters", "system:authenticated")),
    ]
