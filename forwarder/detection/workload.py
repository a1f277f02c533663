"""Which service: from the object of a request to `component:<namespace>/<workload>`.

Only pod names are normalised, with the alphabets that Kubernetes itself uses; an owner that the response names wins
over guessing. Everything else keeps its name.
"""

import hashlib
import re

import msgspec

from forwarder.events.audit import AuditEvent, BodyMetadata, metadata_of

# k8s.io/apimachinery/pkg/util/rand: no vowels (no words), no 0, 1, 3 (look like letters), no y
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
# a pod-template hash is a decimal uint32 put through that alphabet (rand.SafeEncodeString), so only the characters that
# ten digits map to can appear in it, 1 to 10 of them
_HASH = "456789bcdf"

_REPLICASET_POD = re.compile(rf"(.+)-[{_HASH}]{{1,10}}-[{_SUFFIX}]{{5}}")
_CRONJOB_POD = re.compile(rf"(.+)-\d{{8,10}}-[{_SUFFIX}]{{5}}")  # minutes (8 digits), before 1.21 seconds (10)
_SUFFIXED_POD = re.compile(rf"(.+)-[{_SUFFIX}]{{5}}")  # DaemonSet, Job
_ORDINAL_POD = re.compile(r"(.+)-\d{1,6}")  # StatefulSet
_REPLICASET = re.compile(rf"(.+)-[{_HASH}]{{1,10}}")
_CRONJOB_JOB = re.compile(r"(.+)-\d{8,10}")

OWNED = frozenset({"pods", "replicasets", "jobs"})  # the kinds whose owner is the workload that people know
MAX_REF_CHARACTERS = 200  # Healert's bound on entity_ref
MAX_NAMESPACE_CHARACTERS = 63  # a DNS label


class Workload(msgspec.Struct, frozen=True, gc=False):
    """entity_ref: within Healert's pattern and length. service: the workload's name. name: the object's own name."""

    entity_ref: str
    service: str
    name: str


def pod_workload(name: str) -> str:
    """The workload that a pod's name tells: `web-7998647bdf-phvq7` → `web`, `db-0` → `db`; else the name itself."""
    for pattern in (_REPLICASET_POD, _CRONJOB_POD, _SUFFIXED_POD, _ORDINAL_POD):
        match = pattern.fullmatch(name)
        if match:
            return match.group(1)
    return name


def owner_workload(body: BodyMetadata) -> str:
    """The workload that owns the object, by its ownerReferences; "" when they tell none."""
    for owner in sorted(body.owner_references, key=lambda reference: not reference.controller):
        if owner.kind == "ReplicaSet":
            match = _REPLICASET.fullmatch(owner.name)
            return match.group(1) if match else owner.name
        if owner.kind == "Job":
            match = _CRONJOB_JOB.fullmatch(owner.name)
            return match.group(1) if match else owner.name
        if owner.kind in ("Deployment", "StatefulSet", "DaemonSet", "CronJob", "ReplicationController") and owner.name:
            return owner.name
    return ""


def workload(event: AuditEvent, entity_namespace: str) -> Workload:
    """The service that a request touched; cluster-scoped objects stand in `entity_namespace`."""
    reference = event.object_ref
    if reference is None:
        return Workload(entity_ref(entity_namespace, "non-resource"), "non-resource", "")
    resource = reference.resource
    # the body is worth reading for its name or its owner only; subresources such as scale carry neither
    readable = not reference.name or (
        resource in OWNED and reference.subresource in ("", "status", "ephemeralcontainers")
    )
    body = metadata_of(event.response_object) if readable else BodyMetadata()
    name = reference.name or body.name
    if reference.subresource == "proxy":  # `name:port` or `scheme:name:port`
        name = name.split(":")[-2] if ":" in name else name
    if not name:
        asked = metadata_of(event.request_object)
        name = asked.name or asked.generate_name.rstrip("-")
        service = name or resource or "unknown"
    else:
        service = owner_workload(body) if resource in OWNED else ""
        service = service or (pod_workload(name) if resource == "pods" else name)
    # a Namespace object is cluster-scoped, though requests for it carry its own name as their namespace
    namespace = reference.namespace if resource != "namespaces" else ""
    return Workload(entity_ref(namespace or entity_namespace, service), _cut(service, 200), name)


def entity_ref(namespace: str, service: str) -> str:
    """`component:<namespace>/<service>` within `[a-zA-Z0-9_-]+:[a-zA-Z0-9_-]+/[a-zA-Z0-9_.-]+`, at most 200 characters.

    Characters that the pattern forbids (`system:kube-scheduler` has one) become `-`; what is too long ends in 8 digits
    of its hash, so that two long names stay two entities.
    """
    left = _cut(re.sub(r"[^a-zA-Z0-9_-]", "-", namespace) or "default", MAX_NAMESPACE_CHARACTERS)
    prefix = f"component:{left}/"
    right = re.sub(r"[^a-zA-Z0-9_.-]", "-", service) or "unknown"
    return prefix + _cut(right, MAX_REF_CHARACTERS - len(prefix))


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{text[: limit - 9]}-{digest}"
