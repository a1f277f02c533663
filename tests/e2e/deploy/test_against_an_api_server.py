"""The manifests before a real kube-apiserver: accepted field by field, and at the Pod Security level that they claim."""

import json
from pathlib import Path

import pytest

from kind.sidecars import FOLDER, WAYS
from tests.e2e.controlplane.plane import ControlPlane, missing_parts

pytestmark = pytest.mark.e2e

# The API server alone knows no ServiceMonitor; this accepts any.
SERVICE_MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
ROOT = Path(__file__).parents[3]
PARTS = ["kubeadm", "k3s", "rke2", "plain", "components", "sidecar", "tailer"]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory, parts):
    """An API server with the namespaces and service accounts of all parts; nothing runs in it."""
    if missing := missing_parts():
        pytest.skip(f"needs {', '.join(missing)}: run `make e2e-parts`")
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), {})
    try:
        plane.start()
        plane.kubectl("create", "-f", "-", stdin=json.dumps(SERVICE_MONITORS))
        plane.kubectl(
            "wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com", "--timeout=30s"
        )
        plane.kubectl("create", "namespace", "shoot")
        for part in PARTS:
            for kind in ("Namespace", "ServiceAccount"):
                for one in parts(part).of(kind):
                    plane.kubectl("apply", "-f", "-", stdin=json.dumps(one))
        yield plane
    finally:
        plane.stop()


@pytest.mark.parametrize("part", PARTS)
def test_every_object_is_accepted(api_server, parts, part):
    """Server-side dry run with strict field validation: no unknown field, no impossible value."""
    objects = parts(part)
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    said = api_server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(listed))
    assert said.count("(server dry run)") == len(objects)


@pytest.mark.parametrize("distribution", ["kubeadm", "k3s", "rke2", "plain"])
def test_the_written_overlay_is_ready_to_apply(api_server, overlay, distribution):
    """`kubectl apply -k` as the documentation says."""
    said = api_server.kubectl("apply", "--dry-run=server", "-k", str(overlay(distribution)))
    assert "statefulset.apps/friction-forwarder created" in said
    assert "daemonset.apps/friction-agent created" in said


@pytest.mark.parametrize("way", [way.folder for way in WAYS])
def test_the_kind_clusters_sidecars_are_accepted(api_server, render, way):
    """Every object of kind/sidecar/, beside the overlay's namespaces."""
    objects = render(FOLDER / way)
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    said = api_server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(listed))
    assert said.count("(server dry run)") == len(objects)


def bare_pod(objects, name, namespace):
    """A Pod of that workload's template, its claims named as a StatefulSet names them."""
    owner = next(owner for owner, _ in objects.templates() if owner["metadata"]["name"] == name)
    template = json.loads(json.dumps(owner["spec"]["template"]))
    for claim in owner["spec"].get("volumeClaimTemplates") or []:
        volume = claim["metadata"]["name"]
        template["spec"]["volumes"].append(
            {"name": volume, "persistentVolumeClaim": {"claimName": f"{volume}-{name}-0"}}
        )
    template["spec"]["serviceAccountName"] = "default"
    metadata = template["metadata"] | {"name": f"{name}-0", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("kubeadm", "friction-forwarder"),
        ("kubeadm", "friction-backend"),
        ("components", "friction-backend"),
        ("tailer", "kubernetes-audit-tailer"),
    ],
    ids=["receiver", "backend", "backend-with-components", "tailer"],
)
def test_services_meet_the_restricted_level(api_server, parts, part, name):
    """As a bare Pod in the namespace that enforces it; a StatefulSet's own dry run would only warn."""
    pod = bare_pod(parts(part), name, "friction-forwarder")
    said = api_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    assert f"pod/{name}-0 created (server dry run)" in said


def test_the_agent_needs_its_own_namespace_and_nothing_but_host_paths(api_server, parts):
    """The level is really enforced, and hostPath and uid 0 are all that stands between the agent and it."""
    pod = bare_pod(parts("kubeadm"), "friction-agent", "friction-forwarder")
    with pytest.raises(AssertionError) as refused:
        api_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    words = str(refused.value)
    assert 'violates PodSecurity "restricted' in words
    assert "hostPath" in words
    for other in ("allowPrivilegeEscalation", "capabilities", "seccompProfile", "hostNetwork", "privileged"):
        assert other not in words
    pod["metadata"]["namespace"] = "friction-forwarder-nodes"
    api_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_the_sidecars_user_may_watch_one_service_and_one_secret(api_server, render):
    """What deploy/sidecar/access grants is what discovery asks for, and nothing else."""
    for one in render(ROOT / "deploy/sidecar/access"):
        api_server.kubectl("apply", "-f", "-", stdin=json.dumps(one))
    for kind, name in (("services", "friction-forwarder"), ("secrets", "friction-sidecar-client")):
        asked = ("--as=friction-sidecar", "-n", "friction-forwarder", "get", kind)
        one = f"metadata.name={name}"
        api_server.kubectl(*asked, "--field-selector", one)
        for verb in ("get", "list", "watch"):
            api_server.kubectl(
                "--as=friction-sidecar", "-n", "friction-forwarder", "auth", "can-i", verb, f"{kind}/{name}"
            )
        for refused in ([*asked], [*asked, "--field-selector", "metadata.name=another"]):
            with pytest.raises(AssertionError, match="Forbidden"):
                api_server.kubectl(*refused)
