"""The product in a kind cluster: `python -m kind.run up | test | down` (`make kind-up`, `kind-test`, `kind-down`).

up    the cluster of cluster.yaml, both images loaded into it, and what `forwarder init --kubernetes` writes, applied
test  the actions of scenario.yaml through kubectl: with everything up, with the receivers gone meanwhile, and through the
      sidecar in the four ways of sidecars.py; each time the backend must hold exactly the events that the scenario names;
      the scores are printed
down  the cluster is deleted, with the keys that were made for it

Everything of a cluster stands in .kind/, which git ignores.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kind.sidecars import USER, WAYS, Sidecars
from tests.e2e.scenario import Event, Scenario, difference, load
from tests.e2e.stage import Stage

ROOT = Path(__file__).parents[1]
STATE = ROOT / ".kind"
CLUSTER = "friction"
CONTROL_PLANE = f"{CLUSTER}-control-plane"
SCENARIO_LABEL = "friction.example/for=scenario"
IMAGES = {"receiver": "friction-forwarder:kind", "sidecar": "friction-forwarder-sidecar:kind"}
SCENARIO_IMAGE = os.environ.get("KIND_SCENARIO_IMAGE", "docker.io/library/busybox:1.37")
NODE_IMAGE = os.environ.get("KIND_NODE_IMAGE", "kindest/node:v1.34.0")  # give it with its digest for repeatable runs
PROGRAMS = {
    "docker": "docs.docker.com/engine/install (podman with its docker command works too)",
    "kind": "kind.sigs.k8s.io/docs/user/quick-start",
    "kubectl": "kubernetes.io/docs/tasks/tools",
}
NAMESPACE, NODES = "friction-forwarder", "friction-forwarder-nodes"
ROLLOUTS = (
    (NAMESPACE, "statefulset/friction-backend"),
    (NAMESPACE, "statefulset/friction-forwarder"),
    (NODES, "daemonset/friction-agent"),
)
SETTLE_S = 120.0  # from the last action until its event must be in the backend; the agent's retries are 10 s apart
QUIET_S = 5.0  # no further event for so long: what was not expected would have come


def missing_prerequisites(which: Callable[[str], str | None] = shutil.which) -> list[str]:
    """What is not there, each with where to get it; empty when all is well."""
    missing = [f"{name} is not on PATH: {where}" for name, where in PROGRAMS.items() if not which(name)]
    if not missing and subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False).returncode:
        missing = ["docker does not answer: is its service running, and may this user talk to it?"]
    return missing


def up() -> None:
    """Create the cluster where it is not there, and bring it to what this checkout says."""
    if CLUSTER not in _output("kind", "get", "clusters").split():
        _run(
            "kind",
            "create",
            "cluster",
            "--name",
            CLUSTER,
            "--image",
            NODE_IMAGE,
            "--config",
            "kind/cluster.yaml",
            "--wait",
            "180s",
        )
    for target, image in IMAGES.items():
        _run("docker", "build", "--target", target, "--tag", image, ".")
        _run("kind", "load", "docker-image", "--name", CLUSTER, image)
    _run("docker", "pull", SCENARIO_IMAGE)
    _run("kind", "load", "docker-image", "--name", CLUSTER, SCENARIO_IMAGE)
    scenario = load()
    write_people(scenario)
    kubectl = ("kubectl", "--kubeconfig", str(kubeconfig(scenario.setup)))  # a machine: what it sets up is no friction
    _run(*kubectl, "apply", "-k", str(write_overlay(STATE)))
    for namespace, workload in ROLLOUTS:
        _run(*kubectl, "-n", namespace, "rollout", "status", workload, "--timeout", "180s")
    print("ready: `make kind-test` plays the scenario")


def test() -> None:
    """Every run, each compared exactly. Raises SystemExit with what differs."""
    scenario = load()
    with _backend(scenario) as get:
        _play(scenario, get, Part("everything up"))
        _play(scenario, get, _receivers_gone(scenario))
        rotated = _output("docker", "exec", CONTROL_PLANE, "ls", "/var/log/kubernetes/audit").split()
        print(f"the audit log was rotated {len(rotated) - 1} times")
        if len(rotated) < 2:
            raise SystemExit("the audit log was never rotated, so rotation was not tested")
        _through_sidecars(scenario, get)
        print("\nscore  service")
        for entity in get("/api/v1/entities?limit=20"):
            print(f"{entity['score']:5.1f}  {entity['entity_ref']}")


def down() -> None:
    """Delete the cluster and its keys."""
    _run("kind", "delete", "cluster", "--name", CLUSTER)
    shutil.rmtree(STATE, ignore_errors=True)


# --- what is applied -------------------------------------------------------------------------------------------------


def write_overlay(state: Path) -> Path:
    """The folder for `kubectl apply -k`; keys that were made for this cluster stay."""
    _run(
        sys.executable, "-m", "forwarder", "init", "--kubernetes", "--force", "--dir", str(state / "overlay"),
        "--cluster", "kind", "--distribution", "kubeadm", "--image", IMAGES["receiver"],
    )  # fmt: skip
    apply = state / "apply"
    apply.mkdir(exist_ok=True)
    shutil.copy(ROOT / "kind/kustomization.yaml", apply)
    shutil.copy(ROOT / "rules/extended.yaml", apply)
    return apply


def write_people(scenario: Scenario) -> None:
    """A kubeconfig for everybody in the scenario, with a certificate that the cluster's own authority signed."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    for name, person in scenario.people.items():
        made = _user_kubeconfig(person.user, person.groups)
        if person.user == "system:anonymous":
            made["users"][0]["user"] = {}
        path = kubeconfig(name)
        path.touch(0o600)
        path.write_text(json.dumps(made))


def _user_kubeconfig(user: str, groups: Sequence[str]) -> dict[str, Any]:
    """For somebody of that name and in those groups, as seen from this machine."""
    outside = json.loads(
        _output("kubectl", "config", "view", "--raw", "-o", "json", stdin="", kubeconfig=_kind_kubeconfig())
    )
    words = [word for group in groups for word in ("--org", group)]
    made = _output("docker", "exec", CONTROL_PLANE, "kubeadm", "kubeconfig", "user", "--client-name", user, *words)
    view = ("kubectl", "config", "view", "--raw", "-o", "json", "--kubeconfig", "/dev/stdin")
    return kubeconfig_of(outside["clusters"][0]["cluster"], json.loads(_output(*view, stdin=made))["users"][0]["user"])


def kubeconfig_of(cluster: dict[str, Any], user: dict[str, Any]) -> dict[str, Any]:
    """A kubeconfig (JSON is YAML) for one user of one cluster."""
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": cluster}], "users": [{"name": "it", "user": user}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }  # fmt: skip


def kubeconfig(name: str) -> Path:
    return STATE / f"{name}.kubeconfig"


def _kind_kubeconfig() -> str:
    path = STATE / "admin.kubeconfig"
    path.touch(0o600)
    path.write_text(_output("kind", "get", "kubeconfig", "--name", CLUSTER))
    return str(path)


# --- playing ---------------------------------------------------------------------------------------------------------


def _nothing(_: Path) -> None: ...


class Part(NamedTuple):
    """One playing of the scenario. sessions: open shells too, which wait until the backend shows them. before, after: what
    is done around the actions, given a scratch folder. check: what else must be true of the events.
    """

    title: str
    sessions: bool = True
    before: Callable[[Path], None] = _nothing
    after: Callable[[Path], None] = _nothing
    check: Callable[[list[Event]], None] = lambda _: None


def _receivers_gone(scenario: Scenario) -> Part:
    kubectl = ("kubectl", "--kubeconfig", str(kubeconfig(scenario.setup)), "-n", NAMESPACE)
    receivers = "app.kubernetes.io/component=receiver"

    def before(_: Path) -> None:
        _run(*kubectl, "scale", "statefulset/friction-forwarder", "--replicas=0")
        _run(*kubectl, "wait", "--for=delete", "pod", "-l", receivers, "--timeout=150s")

    def after(_: Path) -> None:
        _run(*kubectl, "scale", "statefulset/friction-forwarder", "--replicas=2")

    return Part("receivers gone meanwhile", sessions=False, before=before, after=after)


def _through_sidecars(scenario: Scenario, get: Callable[[str], Any]) -> None:
    """The agents stand aside; in each way every event has to come through the sidecar."""
    kubectl = ("kubectl", "--kubeconfig", str(kubeconfig(scenario.setup)))
    sidecars = Sidecars(_run, _output, kubectl, STATE)
    outside = _user_kubeconfig(USER, ())
    outside["clusters"][0]["cluster"]["server"] = "https://kubernetes.default.svc"
    sidecars.prepare((sys.executable, "-m", "forwarder"), json.dumps(outside))
    try:
        for way in WAYS:
            sidecars.start(way)
            part = Part(
                way.title, way.sessions, after=partial(sidecars.played, way), check=partial(sidecars.check, way)
            )
            _play(scenario, get, part)
            sidecars.stop(way)
    finally:
        sidecars.finish()


def _play(scenario: Scenario, get: Callable[[str], Any], part: Part) -> None:
    """Play everything that can be played; the backend then holds exactly its events, whatever came before."""
    kubectl = ("kubectl", "--kubeconfig", str(kubeconfig(scenario.setup)), "-n", NAMESPACE)
    (node,) = _output(*kubectl, "get", "nodes", "-l", SCENARIO_LABEL, "-o", "name").split()
    began = ""

    def events() -> list[dict[str, Any]]:
        return [event for event in get("/api/v1/events?limit=1000") if event["timestamp"] >= began]

    with tempfile.TemporaryDirectory(dir=STATE) as scratch:
        folder = Path(scratch)
        stage = Stage(
            scenario, kubeconfig=kubeconfig, events=events, folder=folder, kubectl="kubectl",
            words={"node": node.removeprefix("node/"), "image": SCENARIO_IMAGE},
        )  # fmt: skip
        for namespace in namespaces(scenario):
            _run(*kubectl, "delete", "namespace", namespace, "--ignore-not-found", "--wait")  # of an earlier run
        began = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        stage.prepare()
        actions = tuple(action for action in scenario.actions if part.sessions or not action.stays_open)
        part.before(folder)
        stage.play(actions)
        part.after(folder)
        expected = stage.expected(actions)
        differs = _settled(lambda: difference(expected, events()))
    if differs:
        raise SystemExit(f"{part.title}: not exactly the expected events\n{differs}")
    part.check(events())
    print(f"{part.title}: exactly {len(expected)} events from {len(actions)} actions")


def namespaces(scenario: Scenario) -> list[str]:
    """Those that stand there before, and those that actions make."""
    before = [one["metadata"]["name"] for one in scenario.objects if one["kind"] == "Namespace"]
    return before + [action.kubectl[2] for action in scenario.actions if action.kubectl[:2] == ("create", "namespace")]


def _settled(differs: Callable[[], str]) -> str:
    """What still differs after SETTLE_S; empty when nothing did, and nothing came for QUIET_S more."""
    end = time.monotonic() + SETTLE_S
    while words := differs():
        if time.monotonic() > end:
            return words
        time.sleep(1)
    time.sleep(QUIET_S)
    return differs()


@contextlib.contextmanager
def _backend(scenario: Scenario) -> Iterator[Callable[[str], Any]]:
    """`get(path)`: the backend's answer, through a port-forward made by a machine."""
    key = (STATE / "overlay/secrets/api-key").read_text()
    command = [
        "kubectl", "--kubeconfig", str(kubeconfig(scenario.setup)), "-n", NAMESPACE,
        "port-forward", "service/friction-backend", ":8000",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            port = int(line.split(" -> ")[0].rpartition(":")[2])

            def get(path: str) -> Any:
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {key}"}
                )
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own port-forward
                    return json.load(answer)

            yield get
        finally:
            process.terminate()


# --- programs --------------------------------------------------------------------------------------------------------


def _run(*command: str) -> None:
    print("+", *command, file=sys.stderr)
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(f"{command[0]} ended with {code}; see above")


def _output(*command: str, stdin: str = "", kubeconfig: str = "") -> str:
    environment = dict(os.environ) | ({"KUBECONFIG": kubeconfig} if kubeconfig else {})
    done = subprocess.run(command, cwd=ROOT, input=stdin, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kind.run", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("up", "test", "down"))
    what = parser.parse_args().what
    if missing := missing_prerequisites():
        raise SystemExit("\n".join(["the kind cluster needs more than is here:", *(f"  {one}" for one in missing)]))
    if what == "test" and not kubeconfig(load().setup).exists():
        raise SystemExit("there is no cluster yet: make kind-up")
    {"up": up, "test": test, "down": down}[what]()


if __name__ == "__main__":
    main()
