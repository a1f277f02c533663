"""The sidecar beside a real apiserver: Service and Secret are watched there, and the scenario arrives exactly."""

import json
import time
import urllib.request

import pytest

from tests.e2e.controlplane.conftest import KEY, RECEIVER_NAME
from tests.e2e.controlplane.plane import NODE
from tests.e2e.product.conftest import wait_until
from tests.e2e.scenario import difference
from tests.e2e.stage import Stage
from tests.ports import free_port

pytestmark = pytest.mark.e2e

SERVICE, SECRET = "kubernetes-audit-tailer", "audittailer-client"
FIRST_EVENT_S = 3.0  # from the Service's appearance to the first event in the backend: the promise


@pytest.fixture
def sidecar(cluster, plane):
    """`forwarder sidecar` with the plane's kubeconfig and audit log, not started; and its telemetry address."""
    key = cluster.folder / "shared-key"
    key.write_text(KEY)
    key.chmod(0o600)
    (cluster.folder / "added").mkdir()
    telemetry = f"127.0.0.1:{free_port()}"
    options = {
        "kubecfg": plane.kubeconfig("plane-setup"), "audit-log-path": plane.audit_log, "shared-key-file": key, "tls-vhost": RECEIVER_NAME,
        "telemetry-listen": telemetry, "fluent-bit": cluster.agent, "additional-dir": cluster.folder / "added",
        "state-dir": cluster.folder / "state", "run-dir": cluster.folder / "run", "tls-basedir": cluster.folder / "ssl",
    }  # fmt: skip
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    program = cluster.program("sidecar", "sidecar", *words)
    yield program, f"http://{telemetry}"
    if program.running:
        program.stop()


def apply(plane, kind, name, **rest):
    metadata = {"name": name, "namespace": "kube-system"}
    plane.kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest})
    )


def apply_service(cluster, plane):
    """Without a network of its own a Service can only name this machine."""
    spec = {
        "type": "ExternalName",
        "externalName": "localhost",
        "ports": [{"name": "forward", "port": cluster.ports["forward"]}],
    }
    apply(plane, "Service", SERVICE, spec=spec)


def apply_certificates(cluster, plane):
    """New ones each time."""
    issued = cluster.authority.issue_cert("audittailer-client")
    data = {
        "ca.crt": cluster.authority.cert_pem.bytes().decode(),
        "audittailer-client.crt": issued.cert_chain_pems[0].bytes().decode(),
        "audittailer-client.key": issued.private_key_pem.bytes().decode(),
    }
    apply(plane, "Secret", SECRET, stringData=data)


def text_of(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def test_the_scenario_through_the_sidecar(cluster, plane, scenario, kubectl, sidecar, tmp_path):
    """The Service comes late, goes, and returns; the client's certificate is replaced; every event is there, once."""
    program, telemetry = sidecar
    cluster.configure(cluster.door | {"tls": cluster.door["tls"] | {"client_ca_file": str(cluster.folder / "ca.crt")}})
    cluster.start()
    program.start()
    wait_until(lambda: cluster._answers(f"{telemetry}/readyz"), "the sidecar")
    folder = tmp_path / "stage"
    folder.mkdir()

    def events():
        return cluster.get("/api/v1/events?limit=1000")

    words = {"node": NODE, "image": "example.test/tools:1"}
    stage = Stage(scenario, kubeconfig=plane.kubeconfig, events=events, folder=folder, kubectl=kubectl, words=words)
    stage.prepare()
    actions = list(scenario.actions)
    sessions = [number for number, action in enumerate(actions) if action.stays_open]
    early, middle, late = actions[: sessions[0]], actions[sessions[0] : sessions[-1] + 1], actions[sessions[-1] + 1 :]

    stage.play(early)
    assert events() == [], "there is no Service yet"
    apply_certificates(cluster, plane)
    wait_until(lambda: "\nforwarder_certificate_known 1" in text_of(f"{telemetry}/metrics"), "the certificates")
    began = time.monotonic()
    apply_service(cluster, plane)
    wait_until(events, "the first event")
    assert time.monotonic() - began <= FIRST_EVENT_S
    took_s = time.monotonic() - began

    stage.play(middle)
    plane.kubectl("delete", "service", "-n", "kube-system", SERVICE)
    half = len(late) // 2
    stage.play(late[:half])
    apply_certificates(cluster, plane)
    stage.play(late[half:])
    apply_service(cluster, plane)
    expected = stage.expected()
    cluster.settled(len(expected))
    differs = difference(expected, events())
    assert not differs, f"\n{differs}"
    slowest_s = max(stage.latencies_s.values())
    print(f"\n{took_s:.2f} s from the Service to the first event; open sessions after {slowest_s:.2f} s at most")
