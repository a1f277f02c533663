"""What objects the Kubernetes API has: group, scope, subresources, and which verbs a request for them can have.

An audit policy names groups, which rules need not know; and whether a request carries a namespace depends on the object.
Other resources (CustomResourceDefinitions) may have any group, any scope and the subresources `status` and `scale`.
"""

from typing import Final

import msgspec

ANY_GROUP: Final = "any.example.com"  # stands for every group that nobody named
ANY_RESOURCE: Final = "anything"  # stands for every resource that nobody named

_NAMESPACED: Final = {
    "": "bindings configmaps endpoints events limitranges persistentvolumeclaims pods podtemplates "
    "replicationcontrollers resourcequotas secrets serviceaccounts services",
    "apps": "controllerrevisions daemonsets deployments replicasets statefulsets",
    "authorization.k8s.io": "localsubjectaccessreviews",
    "autoscaling": "horizontalpodautoscalers",
    "batch": "cronjobs jobs",
    "coordination.k8s.io": "leases",
    "discovery.k8s.io": "endpointslices",
    "events.k8s.io": "events",
    "networking.k8s.io": "ingresses networkpolicies",
    "policy": "poddisruptionbudgets",
    "rbac.authorization.k8s.io": "rolebindings roles",
    "storage.k8s.io": "csistoragecapacities",
}
_CLUSTER_WIDE: Final = {
    "": "namespaces nodes persistentvolumes",
    "admissionregistration.k8s.io": "mutatingwebhookconfigurations validatingadmissionpolicies "
    "validatingadmissionpolicybindings validatingwebhookconfigurations",
    "apiextensions.k8s.io": "customresourcedefinitions",
    "apiregistration.k8s.io": "apiservices",
    "authentication.k8s.io": "selfsubjectreviews tokenreviews",
    "authorization.k8s.io": "selfsubjectaccessreviews selfsubjectrulesreviews subjectaccessreviews",
    "certificates.k8s.io": "certificatesigningrequests",
    "flowcontrol.apiserver.k8s.io": "flowschemas prioritylevelconfigurations",
    "networking.k8s.io": "ingressclasses",
    "node.k8s.io": "runtimeclasses",
    "rbac.authorization.k8s.io": "clusterrolebindings clusterroles",
    "scheduling.k8s.io": "priorityclasses",
    "storage.k8s.io": "csidrivers csinodes storageclasses volumeattachments",
}

GROUPS: Final[dict[str, tuple[str, ...]]] = {}
"""Resource -> the API groups that have it; `events` has two."""
for _groups in (_NAMESPACED, _CLUSTER_WIDE):
    for _group, _resources in _groups.items():
        for _resource in _resources.split():
            GROUPS[_resource] = (*GROUPS.get(_resource, ()), _group)

CLUSTER_WIDE: Final = frozenset(word for resources in _CLUSTER_WIDE.values() for word in resources.split())
NAMESPACED: Final = frozenset(word for resources in _NAMESPACED.values() for word in resources.split())

SUBRESOURCES: Final[dict[str, tuple[str, ...]]] = {
    "pods": ("attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize", "status"),
    "services": ("proxy", "status"),
    "nodes": ("proxy", "status"),
    "namespaces": ("finalize", "status"),
    "serviceaccounts": ("token",),
    "certificatesigningrequests": ("approval", "status"),
    **dict.fromkeys(("deployments", "replicasets", "replicationcontrollers", "statefulsets"), ("scale", "status")),
    **dict.fromkeys(
        ("cronjobs", "customresourcedefinitions", "daemonsets", "horizontalpodautoscalers", "ingresses", "jobs",
         "persistentvolumeclaims", "persistentvolumes", "poddisruptionbudgets", "resourcequotas", "apiservices", "flowschemas",
         "prioritylevelconfigurations", "validatingadmissionpolicies", "volumeattachments"), ("status",)),
    ANY_RESOURCE: ("scale", "status"),
}  # fmt: skip

OBJECT_VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
URL_VERBS: Final = ("get", "post", "put", "patch", "delete", "head", "options")  # of non-resource URLs: HTTP's own
_SESSION: Final = ("get", "create")  # a websocket is opened by GET, SPDY by POST
_VERBS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("exec", "attach", "portforward"), _SESSION),
    "log": ("get",),
    "proxy": ("get", "create", "update", "patch", "delete"),
    **dict.fromkeys(("eviction", "binding", "token"), ("create",)),
    **dict.fromkeys(("scale", "status", "approval", "resize", "ephemeralcontainers"), ("get", "update", "patch")),
    "finalize": ("update",),
}

NEVER_WITH_BODIES: Final = (
    ("", "secrets"),  # their data, base64
    ("", "configmaps"),  # people keep passwords in them; and one may have a megabyte
    ("", "serviceaccounts/token"),  # the answer is a live token
    ("authentication.k8s.io", "tokenreviews"),  # the question is one
)
"""(group, resource) whose bodies do not belong in a log: whoever reads it could act with what stands in them."""


class ApiObject(msgspec.Struct, frozen=True, order=True):
    """What an audit policy can tell apart of a request's object. name: "" where the URL has none (create, list)."""

    group: str
    resource: str
    subresource: str = ""
    name: str = ""

    def __str__(self) -> str:
        """As policies write it, with the group where it is not the core one: `pods/exec`, `deployments.apps`."""
        resource = "any other resource" if self.resource == ANY_RESOURCE else self.resource
        if self.group == ANY_GROUP:
            resource += " of any other group" if self.resource == ANY_RESOURCE else ""
        elif self.group and self.resource == ANY_RESOURCE:
            resource += f" of {self.group}"
        return resource + (f"/{self.subresource}" if self.subresource else "") + (f" {self.name}" if self.name else "")


def verbs_of(subresource: str) -> tuple[str, ...]:
    """The verbs that requests for an object, or for this subresource of it, can have."""
    if not subresource:
        return OBJECT_VERBS
    return _VERBS.get(subresource, ("get", "create", "update", "patch", "delete"))


def subresources_of(resource: str) -> tuple[str, ...]:
    """Its subresources, the object itself ("") first."""
    return ("", *SUBRESOURCES.get(resource, () if resource in GROUPS else SUBRESOURCES[ANY_RESOURCE]))
