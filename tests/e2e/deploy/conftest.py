"""The manifests of deploy/ as `kubectl kustomize` renders them, and what a pod of them would find in its file system."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from forwarder.cli import app

ROOT = Path(__file__).parents[3]
RENDER_DEADLINE_S = 60


class Objects(list):
    """Rendered objects, found by kind and name."""

    def of(self, *kinds):
        return [one for one in self if one["kind"] in kinds]

    def get(self, kind, name, namespace):
        for one in self.of(kind):
            if (one["metadata"]["name"], one["metadata"].get("namespace")) == (name, namespace):
                return one
        raise AssertionError(f"no {kind} {name} in {namespace}")

    def templates(self):
        """(owner, pod template) of everything that makes pods."""
        return [(one, one["spec"]["template"]) for one in self.of("StatefulSet", "DaemonSet", "Deployment")]

    def template(self, name):
        return next(template for owner, template in self.templates() if owner["metadata"]["name"] == name)

    def data(self, kind, name, namespace):
        """The files of a ConfigMap or Secret, as bytes."""
        found = self.get(kind, name, namespace)
        files = {key: text.encode() for key, text in found.get("data", {}).items()} if kind == "ConfigMap" else {}
        return files or {key: base64.b64decode(text) for key, text in found.get("data", {}).items()}


@pytest.fixture(scope="session")
def render():
    """`render(folder)`: its objects; skips where there is no kubectl."""
    program = shutil.which("kubectl")
    if not program:
        pytest.skip("needs kubectl on PATH (kubernetes.io/docs/tasks/tools)")
    known = {}

    def run(folder):
        if folder not in known:
            command = [program, "kustomize", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_DEADLINE_S, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stderr == "", "no warnings either"
            known[folder] = Objects(yaml.safe_load_all(done.stdout))
        return known[folder]

    return run


@pytest.fixture(scope="session")
def overlay(tmp_path_factory):
    """`overlay(distribution)`: the folder that `forwarder init --kubernetes` writes for it."""
    known = {}

    def write(distribution="kubeadm"):
        if distribution not in known:
            folder = tmp_path_factory.mktemp(distribution)
            arguments = [
                "init",
                "--kubernetes",
                "--dir",
                str(folder),
                "--cluster",
                "c-1",
                "--distribution",
                distribution,
            ]
            result = CliRunner().invoke(app, arguments, catch_exceptions=False)
            assert result.exit_code == 0, result.output
            known[distribution] = folder
        return known[distribution]

    return write


@pytest.fixture(scope="session")
def parts(render, overlay, tmp_path_factory):
    """`parts(name)`: every way of installing that the documentation names, rendered."""

    def sidecar():
        """The component on a bare kube-apiserver Deployment."""
        folder = tmp_path_factory.mktemp("apiserver")
        shutil.copytree(ROOT / "deploy/sidecar", folder / "sidecar")
        (folder / "kustomization.yaml").write_text("resources: [apiserver.yaml]\ncomponents: [sidecar]\n")
        (folder / "apiserver.yaml").write_text(APISERVER)
        return render(folder)

    def with_components():
        """The overlay with every component and with settings of its own, as its comments say."""
        folder = tmp_path_factory.mktemp("components")
        shutil.copytree(overlay(), folder, dirs_exist_ok=True)
        text = (folder / "kustomization.yaml").read_text()
        for line in (
            "components:",
            "  - base/deploy/components/servicemonitor",
            "  - base/deploy/components/postgresql",
            "  - base/deploy/components/notify",
            "  - name: friction-backend\n",
            "    behavior: merge\n#     files: [backend.yaml]",
            "  - name: friction-backend-sinks",
            "    files: [secrets/slack-token]",
        ):
            assert f"# {line}" in text
            text = text.replace(f"# {line}", line.replace("\n# ", "\n"))
        for name in ("friction-backend", "friction-backend-sinks"):  # what stands between the lines above
            text = text.replace(f"- name: {name}\n#     namespace", f"- name: {name}\n    namespace")
        shutil.copy(folder / "base/deploy/backend/backend.yaml", folder)
        (folder / "secrets/slack-token").write_text("xoxb-of-a-test")
        secret = "  - {name: friction-backend-database, namespace: friction-forwarder, literals: [url=postgresql+psycopg://u@h/d]}\n"
        (folder / "kustomization.yaml").write_text(text + secret)
        return render(folder)

    def tailer():
        return render(ROOT / "deploy/tailer")

    made = {"sidecar": sidecar, "components": with_components, "tailer": tailer}

    def part(name):
        return made[name]() if name in made else render(overlay(name))

    return part


@pytest.fixture
def unpack(tmp_path):
    """`unpack(objects, namespace, template)`: writes what its first container finds mounted below `tmp_path`; its environment."""

    def write(objects, namespace, template):
        container = template["spec"]["containers"][0]
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes.get(mount["name"], {})
            target = tmp_path / mount["mountPath"].lstrip("/")
            target.mkdir(parents=True, exist_ok=True)
            kind, key = ("Secret", "secretName") if "secret" in volume else ("ConfigMap", "name")
            source = volume.get("secret") or volume.get("configMap")
            for file, data in (objects.data(kind, source[key], namespace) if source else {}).items():
                (target / file).write_bytes(data)
        environment = {}
        for source in container.get("envFrom", []):
            found = objects.data("ConfigMap", source["configMapRef"]["name"], namespace)
            environment |= {name: value.decode() for name, value in found.items()}
        for variable in container.get("env", []):
            environment[variable["name"]] = value_of(objects, namespace, variable)
        return environment

    return write


def value_of(objects, namespace, variable):
    """What an environment variable of a pod would be."""
    if "value" in variable:
        return variable["value"]
    source = variable["valueFrom"]
    if "secretKeyRef" in source:
        return objects.data("Secret", source["secretKeyRef"]["name"], namespace)[source["secretKeyRef"]["key"]].decode()
    return {"metadata.namespace": namespace, "spec.nodeName": "node-1", "status.podIP": "127.0.0.1"}[
        source["fieldRef"]["fieldPath"]
    ]


APISERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: kube-apiserver, namespace: shoot}
spec:
  selector: {matchLabels: {app: kube-apiserver}}
  template:
    metadata: {labels: {app: kube-apiserver}}
    spec:
      containers:
        - {name: kube-apiserver, image: "registry.k8s.io/kube-apiserver:v1.34.4", command: [kube-apiserver]}
"""
