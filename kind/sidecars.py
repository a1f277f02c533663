"""The sidecar in the kind cluster, four ways: TLS, by tunnel, with a second destination, with a broken receiver.

The agents are put aside meanwhile, so every event has to come through the sidecar. In each way the scenario is played and
the backend must hold exactly its events; `destination` and `broken` look at one thing more.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.e2e.scenario import Event

NAMESPACE, NODES = "friction-forwarder", "friction-forwarder-nodes"
FOLDER = Path(__file__).parent / "sidecar"
USER = "friction-sidecar"
BIG_LINES = 60  # of 600 kB: twice what mem-buf-limit lets it hold
MEMORY_LIMIT_BYTES = 384 << 20  # the pod's own limit, which the kernel enforces; half of it is what is expected
PATIENCE = "--timeout=180s"

Run = Callable[..., None]
Output = Callable[..., str]


class Way(NamedTuple):
    """folder: below kind/sidecar/. sessions: whether shells are played too, which wait for the backend to see them."""

    folder: str
    title: str
    sessions: bool


WAYS = (
    Way("tls", "sidecar, TLS", sessions=True),
    Way("tunnel", "sidecar, through a CONNECT proxy with mutual TLS", sessions=True),
    Way("destination", "sidecar, with a second destination", sessions=False),
    Way("broken", "sidecar, with a receiver that takes nothing meanwhile", sessions=False),
)


class Sidecars:
    """run, output: a program of the machine. kubectl: the command with its kubeconfig. state: where keys are."""

    def __init__(self, run: Run, output: Output, kubectl: tuple[str, ...], state: Path) -> None:
        self._run, self._output, self._kubectl, self._state = run, output, kubectl, state

    def prepare(self, forwarder: tuple[str, ...], kubeconfig: str) -> None:
        """Certificates by `forwarder certs`, Secrets of them, and the agents aside. kubeconfig: of USER, as text."""
        overlay = self._state / "overlay"
        sidecar, proxy, tailer = (self._state / name for name in ("sidecar", "proxy", "tailer"))
        sidecar.mkdir(mode=0o700, exist_ok=True)
        for name in ("ca.crt", "ca.key"):  # the receiver trusts who this authority signed
            (sidecar / name).touch(0o600)
            (sidecar / name).write_bytes((overlay / "certs" / name).read_bytes())
        (sidecar / "kubeconfig").touch(0o600)
        (sidecar / "kubeconfig").write_text(kubeconfig)
        certs = (*forwarder, "certs", "--force", "--dir")
        self._run(*certs, str(sidecar), "--client", USER)
        self._run(*certs, str(proxy), "--server", f"friction-proxy.{NODES}.svc", "--client", USER)
        self._run(*certs, str(tailer), "--server", "kubernetes-audit-tailer", "--client", "audittailer-client")
        keys = overlay / "secrets"
        self._secret(NODES, "friction-sidecar", {"kubeconfig": sidecar / "kubeconfig", "shared-key": keys / "shared-key",
                                                 "telemetry-token": keys / "telemetry-token"})  # fmt: skip
        self._secret(NAMESPACE, "friction-sidecar-client", {"ca.crt": sidecar / "ca.crt",
                     "tls.crt": sidecar / "client.crt", "tls.key": sidecar / "client.key"})  # fmt: skip
        names = ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")
        self._secret(NODES, "friction-proxy", {name: proxy / name for name in names})
        for namespace, name, pair in (
            ("kube-system", "audittailer-server", "server"),
            (NODES, "audittailer-client", "client"),
        ):
            files = {f"{name}.crt": tailer / f"{pair}.crt", f"{name}.key": tailer / f"{pair}.key"}
            self._secret(namespace, name, {"ca.crt": tailer / "ca.crt", **files})
        self._agents(aside=True)

    def start(self, way: Way) -> None:
        """Apply the way's folder and wait until its pods are ready; the broken receiver takes the real ones' place."""
        if way.folder == "broken":
            self._receivers(0)
        self._run(*self._kubectl, "apply", "-k", str(FOLDER / way.folder))
        pods = {"tunnel": [(NODES, "friction-proxy")], "broken": [(NAMESPACE, "friction-broken")]}.get(way.folder, [])
        for namespace, pod in [*pods, (NODES, "friction-sidecar")]:
            self._run(*self._kubectl, "-n", namespace, "wait", "--for=condition=Ready", f"pod/{pod}", PATIENCE)
        if way.folder == "destination":
            rollout = ("rollout", "status", "deployment/kubernetes-audit-tailer", PATIENCE)
            self._run(*self._kubectl, "-n", "kube-system", *rollout)

    def played(self, way: Way, scratch: Path) -> None:
        """After the last action, before its events are waited for: a broken receiver is overrun, then comes back."""
        if way.folder != "broken":
            return
        big = scratch / "big-line.txt"
        big.write_text("x" * 300_000)  # in a ConfigMap at level RequestResponse: a line of 600 kB
        for number in range(BIG_LINES):
            create = ("create", "configmap", f"big-{number}", f"--from-file={big}", "--dry-run=server", "-o", "name")
            self._output(*self._kubectl, "-n", "default", *create)
        held = self.memory_bytes()
        print(f"{way.title}: {held >> 20} MiB held after {BIG_LINES} lines of 600 kB")
        if held > MEMORY_LIMIT_BYTES // 2:
            raise SystemExit(f"{way.title}: its memory grows with what waits")
        self._run(*self._kubectl, "-n", NAMESPACE, "delete", "pod", "friction-broken", "--wait")
        self._receivers(2)

    def check(self, way: Way, events: list[Event]) -> None:
        """What else must be true once the events are there. Raises SystemExit."""
        pod = json.loads(self._output(*self._kubectl, "-n", NODES, "get", "pod", "friction-sidecar", "-o", "json"))
        if restarts := sum(status["restartCount"] for status in pod["status"]["containerStatuses"]):
            raise SystemExit(f"{way.title}: the sidecar was restarted {restarts} times")
        if way.folder == "destination":
            missing = not_tailed(self._tailed(), events)
            if missing:
                raise SystemExit(f"{way.title}: {len(missing)} events are not in the tailer's log: {missing[:3]}")

    def stop(self, way: Way) -> None:
        """Take it away; what it kept on the node stays for the next way."""
        self._run(*self._kubectl, "delete", "-k", str(FOLDER / way.folder), "--ignore-not-found", "--wait")

    def finish(self) -> None:
        """The agents come back."""
        self._agents(aside=False)

    def memory_bytes(self) -> int:
        """What the sidecar's container holds, by its own cgroup; page cache that can be dropped is not counted."""
        program = (
            "import pathlib; f = pathlib.Path('/sys/fs/cgroup');"
            "s = dict(line.split() for line in (f / 'memory.stat').read_text().splitlines());"
            "print(int((f / 'memory.current').read_text()) - int(s['inactive_file']) - int(s['active_file']))"
        )
        command = ("exec", "friction-sidecar", "--", "/python/bin/python3", "-c", program)
        return int(self._output(*self._kubectl, "-n", NODES, *command))

    # --- private -----------------------------------------------------------------------------------------------------

    def _tailed(self) -> str:
        return self._output(*self._kubectl, "-n", "kube-system", "logs", "deployment/kubernetes-audit-tailer")

    def _secret(self, namespace: str, name: str, files: dict[str, Path]) -> None:
        words = [f"--from-file={key}={path}" for key, path in files.items()]
        create = ("create", "secret", "generic", name, *words, "--dry-run=client", "-o", "yaml")
        made = self._output(*self._kubectl, "-n", namespace, *create)
        self._output(*self._kubectl, "-n", namespace, "apply", "--server-side", "-f", "-", stdin=made)

    def _receivers(self, number: int) -> None:
        there = (*self._kubectl, "-n", NAMESPACE)
        self._run(*there, "scale", "statefulset/friction-forwarder", f"--replicas={number}")
        if number:
            self._run(*there, "rollout", "status", "statefulset/friction-forwarder", PATIENCE)
        else:
            receivers = "app.kubernetes.io/component=receiver"
            self._run(*there, "wait", "--for=delete", "pod", "-l", receivers, PATIENCE)

    def _agents(self, *, aside: bool) -> None:
        """A node selector that no node has; null takes it away again."""
        value = {"friction.example/for": "nobody" if aside else None}
        patch = json.dumps({"spec": {"template": {"spec": {"nodeSelector": value}}}})
        agents = (*self._kubectl, "-n", NODES)
        self._run(*agents, "patch", "daemonset/friction-agent", "--type=merge", "--patch", patch)
        if aside:
            self._run(*agents, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=friction-agent", PATIENCE)
        else:
            self._run(*agents, "rollout", "status", "daemonset/friction-agent", PATIENCE)


def not_tailed(log: str, events: list[Event]) -> list[str]:
    """The audit ids of events that do not stand in the tailer's log, which has one audit event a line."""
    found = set()
    for line in log.splitlines():
        try:
            found.add(json.loads(line)["auditID"])
        except (ValueError, KeyError, TypeError):
            continue
    return [str(event["audit_id"]) for event in events if event["audit_id"] not in found]
