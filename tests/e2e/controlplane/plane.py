"""A Kubernetes control plane of real programs on this machine's loopback, without containers.

etcd, kube-apiserver and kube-controller-manager are the real ones; kwok plays the kubelet of one node, and `exec`, `cp`,
`attach`, `port-forward`, `logs` and `debug` work: what they run, they run on this machine. There is no scheduler, so pods
name their node. Users come from a token file. Everything lives in one folder and ends with the last `stop`.
"""

import json
import os
import secrets
import shutil
import signal
import ssl
import string
import subprocess
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path

import trustme

from tests.e2e.product.conftest import ROOT, Program, wait_until
from tests.e2e.scenario import Person
from tests.ports import free_port

PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kwok")
BUILT = ROOT / "tests" / "e2e" / "parts" / "bin"
POLICY = ROOT / "kind" / "audit-policy.yaml"
NODE = "node1"
ROTATE_AT_MB = 1  # the smallest that kube-apiserver knows: one scenario is enough to see it rotate several times
STOP_S = 4.0  # for each; 15 s for all of them

MACHINES = {
    "plane-controllers": Person(user="system:kube-controller-manager", groups=("system:masters",)),
    "plane-node": Person(user=f"system:node:{NODE}", groups=("system:nodes", "system:masters")),
    "plane-setup": Person(user="system:serviceaccount:kube-system:setup", groups=("system:masters",)),
}


def find_part(name: str) -> str | None:
    """Where a program is: built by `make e2e-parts`, in KUBEBUILDER_ASSETS, or on PATH."""
    places = [str(BUILT), os.environ.get("KUBEBUILDER_ASSETS", ""), os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(place for place in places if place))


def missing_parts() -> list[str]:
    return [name for name in (*PARTS, "kubectl") if not find_part(name)]


class ControlPlane:
    """`start` returns when its node is ready. audit_log: what kube-apiserver writes; rotated files stand beside it.

    apiserver_flags: further ones.
    """

    def __init__(self, folder: Path, people: dict[str, Person], apiserver_flags: Sequence[str] = ()) -> None:
        self.folder = folder
        self._apiserver_flags = apiserver_flags
        self.audit_log = folder / "audit" / "audit.log"
        self.audit_log.parent.mkdir()
        self.port, self._etcd_port, self._peer_port, self._kubelet_port, self._controllers_port = (
            free_port() for _ in range(5)
        )
        self._certificates()
        everybody = people | MACHINES
        self._tokens = {name: secrets.token_hex(16) for name in everybody}
        rows = [
            f'{self._tokens[name]},{person.user},{name},"{",".join(person.groups)}"\n'
            for name, person in everybody.items()
        ]
        self._private("tokens.csv", "".join(rows))
        for name in (*everybody, "nobody"):
            self._private(f"{name}.kubeconfig", json.dumps(self._kubeconfig(name)))
        self._programs = [self._etcd(), self._apiserver(), self._controllers(), self._kubelet()]

    def kubeconfig(self, name: str) -> Path:
        """Of somebody by their name in the scenario; `nobody` sends no credentials."""
        return self.folder / f"{name}.kubeconfig"

    def start(self) -> None:
        etcd, apiserver, *others = self._programs
        etcd.start()
        apiserver.start()
        wait_until(lambda: self._running(apiserver) and self._ready(), "kube-apiserver")
        for program in others:
            program.start()
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(node))
        self.kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=60s")
        wait_until(
            lambda: "default" in self.kubectl("get", "serviceaccounts", "-o", "name"), "the first service account"
        )

    def stop(self) -> None:
        """Two signals for each: after the first, kube-apiserver waits up to 10 s for its watchers, the second ends it at
        once. Nothing is lost by it: the audit log is written before a request is answered. etcd last, it has clients.
        """
        etcd, *others = self._programs
        running = [program for program in reversed(others) if program.running]
        for program in running:
            os.kill(program.pid, signal.SIGTERM)
        for program in (*running, etcd):
            if program.running:
                self._stop(program)

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """As a machine of the cluster: nothing of it is friction. Its output; fails with what it said."""
        run = subprocess.run(
            [str(find_part("kubectl")), "--kubeconfig", str(self.kubeconfig("plane-setup")), *arguments],
            input=stdin, capture_output=True, text=True, timeout=90, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
        )  # fmt: skip
        assert run.returncode == 0, f"kubectl {' '.join(arguments)}: {run.stderr}"
        return run.stdout

    def token(self, name: str) -> str:
        return self._tokens[name]

    def trust(self) -> ssl.SSLContext:
        """What a client of our own needs to trust kube-apiserver."""
        return ssl.create_default_context(cafile=str(self.folder / "ca.crt"))

    def audit_files(self) -> list[Path]:
        """Every file of the audit log, the rotated ones first."""
        return [*sorted(self.audit_log.parent.glob("audit-*.log")), self.audit_log]

    # --- its programs ------------------------------------------------------------------------------------------------

    def _program(self, name: str, *arguments: str) -> Program:
        found = find_part(name)
        assert found
        return Program(name, [found, *arguments], self.folder, {})

    def _etcd(self) -> Program:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        return self._program(
            "etcd", "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        )  # fmt: skip

    def _apiserver(self) -> Program:
        return self._program(
            "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{self._etcd_port}", "--bind-address", "127.0.0.1",
            "--secure-port", str(self.port), "--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.96.0.0/24",
            "--tls-cert-file", self._path("server.crt"), "--tls-private-key-file", self._path("server.key"),
            "--token-auth-file", self._path("tokens.csv"), "--authorization-mode", "RBAC",
            "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-account-key-file", self._path("server.key"), "--service-account-signing-key-file", self._path("server.key"),
            "--kubelet-preferred-address-types", "InternalIP", "--shutdown-delay-duration", "0s",
            "--audit-policy-file", str(POLICY), "--audit-log-path", str(self.audit_log), "--audit-log-maxsize", str(ROTATE_AT_MB),
            *self._apiserver_flags,
        )  # fmt: skip

    def _controllers(self) -> Program:
        return self._program(
            "kube-controller-manager", "--kubeconfig", str(self.kubeconfig("plane-controllers")), "--leader-elect=false",
            "--controllers", "*,-node-lifecycle-controller,-node-ipam-controller", "--use-service-account-credentials",
            "--service-account-private-key-file", self._path("server.key"), "--root-ca-file", self._path("ca.crt"),
            "--bind-address", "127.0.0.1", "--secure-port", str(self._controllers_port),
        )  # fmt: skip

    def _kubelet(self) -> Program:
        log = self.folder / "container.log"
        log.write_text("2026-01-01T00:00:00.000000000Z stdout F a line of the container\n")
        text = (Path(__file__).parent / "kwok.yaml").read_text()
        settings = string.Template(text).substitute(log=json.dumps(str(log)), port=self._etcd_port)
        (self.folder / "kwok.yaml").write_text(settings)
        return self._program(
            "kwok", "--kubeconfig", str(self.kubeconfig("plane-node")), "--config", self._path("kwok.yaml"),
            "--manage-all-nodes", "--node-name", NODE, "--node-ip", "127.0.0.1", "--node-port", str(self._kubelet_port),
            "--server-address", f"127.0.0.1:{self._kubelet_port}",
            "--tls-cert-file", self._path("server.crt"), "--tls-private-key-file", self._path("server.key"),
        )  # fmt: skip

    # --- its files ---------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return str(self.folder / name)

    def _private(self, name: str, text: str) -> None:
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)

    def _certificates(self) -> None:
        authority = trustme.CA(key_type=trustme.KeyType.RSA)
        server = authority.issue_cert("127.0.0.1", "localhost", key_type=trustme.KeyType.RSA)
        authority.cert_pem.write_to_path(self.folder / "ca.crt")
        server.cert_chain_pems[0].write_to_path(self.folder / "server.crt")
        self._private("server.key", server.private_key_pem.bytes().decode())

    def _kubeconfig(self, name: str) -> dict[str, object]:
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": self._path("ca.crt")}
        user = {"token": self._tokens[name]} if name in self._tokens else {}
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": cluster}], "users": [{"name": "it", "user": user}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }  # fmt: skip

    # --- whether they live -------------------------------------------------------------------------------------------

    @staticmethod
    def _running(program: Program) -> bool:
        assert program.running, f"{program.name} ended: {program.output()[-2000:]}"
        return True

    def _ready(self) -> bool:
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}/readyz", headers={"Authorization": f"Bearer {self._tokens['plane-setup']}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2, context=self.trust()) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @staticmethod
    def _stop(program: Program) -> None:
        try:
            program.stop(deadline_s=STOP_S)
        except subprocess.TimeoutExpired:  # it was killed then; a test's verdict does not hang on it
            pass


def lines_of(files: Iterable[Path]) -> list[dict[str, object]]:
    """Every audit event in these files."""
    return [json.loads(line) for file in files for line in file.read_bytes().split(b"\n")[:-1]]  # whole lines only
