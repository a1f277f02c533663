"""kind/: what can be known without a container engine."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from typer.main import get_command

from forwarder.cli import app
from forwarder.detection.loader import load_rules
from forwarder.sidecar.settings import load_settings
from kind import run, sidecars
from tests.e2e.scenario import load

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def api_server_settings():
    """kubeadm's part of the control-plane node, and the node."""
    (node,) = [
        one
        for one in yaml.safe_load((ROOT / "kind/cluster.yaml").read_text())["nodes"]
        if one["role"] == "control-plane"
    ]
    (patch,) = node["kubeadmConfigPatches"]
    return node, yaml.safe_load(patch)["apiServer"]


def test_what_is_missing_is_said_before_anything_is_done(tmp_path):
    """Each program with where to get it; exit 1; no folder is made."""
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "kind.run", "up"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    for name, where in run.PROGRAMS.items():
        assert f"{name} is not on PATH: {where}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_does_not_answer_is_no_engine(tmp_path, monkeypatch):
    """The programs are there; docker cannot reach its service."""
    for name in run.PROGRAMS:
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin:/usr/bin")
    (words,) = run.missing_prerequisites()
    assert words.startswith("docker does not answer")


def test_the_policy_reaches_the_api_server(api_server_settings):
    """From the repository into the node, from there into the pod; the log is a folder of the node."""
    node, settings = api_server_settings
    (mount,) = node["extraMounts"]
    assert (ROOT / mount["hostPath"]).is_file()
    arguments = settings["extraArgs"]
    assert arguments["audit-policy-file"] == mount["containerPath"]
    volumes = {volume["hostPath"]: volume for volume in settings["extraVolumes"]}
    assert str(Path(mount["containerPath"]).parent) in volumes
    log = volumes[str(Path(arguments["audit-log-path"]).parent)]
    assert (log["mountPath"], log["readOnly"]) == (log["hostPath"], False)


def test_the_agent_reads_where_the_api_server_writes(api_server_settings):
    """deploy/node/kubeadm and kind/cluster.yaml name one folder."""
    patch = yaml.safe_load((ROOT / "deploy/node/kubeadm/patch.yaml").read_text())
    (volume,) = patch["spec"]["template"]["spec"]["volumes"]
    _, settings = api_server_settings
    assert Path(settings["extraArgs"]["audit-log-path"]).parent == Path(volume["hostPath"]["path"])


def test_the_overlay_renders_with_every_rule(render, tmp_path):
    """Both rule files, the images that are loaded, our pods on the worker that the scenario does not drain."""
    (tmp_path / "state").mkdir()
    objects = render(run.write_overlay(tmp_path / "state"))
    rules = objects.data("ConfigMap", "friction-forwarder-rules", "friction-forwarder")
    assert set(rules) == {"friction.yaml", "extended.yaml"}
    folder = tmp_path / "rules"
    folder.mkdir()
    for name, data in rules.items():
        (folder / name).write_bytes(data)
    assert len(load_rules([folder]).rules) > 30
    labels = [node.get("labels", {}) for node in yaml.safe_load((ROOT / "kind/cluster.yaml").read_text())["nodes"]]
    for name in ("friction-forwarder", "friction-backend"):
        spec = objects.template(name)["spec"]
        assert spec["containers"][0]["image"] == run.IMAGES["receiver"]
        assert spec["nodeSelector"] in labels
    key, _, value = run.SCENARIO_LABEL.partition("=")
    assert {key: value} in labels
    (config,) = [one for one in objects.of("ConfigMap") if "FORWARDER_CLUSTER" in one["data"]]
    assert config["data"]["FORWARDER_CLUSTER"] == "kind"


def test_an_earlier_run_is_cleared_away():
    """Every namespace of the scenario, those that its actions make included."""
    assert {"shop", "sandbox"} <= set(run.namespaces(load()))


def test_a_kubeconfig_names_one_user_of_one_cluster(tmp_path):
    """kubectl reads it."""
    path = tmp_path / "config"
    path.write_text(json.dumps(run.kubeconfig_of({"server": "https://127.0.0.1:1"}, {"token": "t"})))
    command = ["kubectl", "--kubeconfig", str(path), "config", "view", "--raw", "-o", "json"]
    view = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert view["current-context"] == "it"
    assert view["users"] == [{"name": "it", "user": {"token": "t"}}]


def test_it_settles_only_when_nothing_more_comes(monkeypatch):
    """An event that nobody expected may be the last to arrive."""
    said = iter(["- missing", "", "+ unexpected"])
    slept = []
    monkeypatch.setattr(run.time, "sleep", slept.append)
    assert run._settled(lambda: next(said)) == "+ unexpected"
    assert slept == [1, run.QUIET_S]


@pytest.fixture
def prepared(overlay, tmp_path):
    """What `Sidecars.prepare` does, with the real `forwarder certs` and kubectl but for what asks a cluster; the Secrets."""
    shutil.copytree(overlay(), tmp_path / "overlay")
    made, asked = {}, []

    def output(*command, stdin=""):
        if "apply" in command:
            secret = yaml.safe_load(stdin)
            made[secret["metadata"]["namespace"], secret["metadata"]["name"]] = secret["data"]
            return ""
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def program(*command):
        if command[0] == "kubectl":
            asked.append(command)
            return
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)

    kubeconfig = json.dumps(run.kubeconfig_of({"server": "https://127.0.0.1:1"}, {"token": "t"}))
    sidecars.Sidecars(program, output, ("kubectl",), tmp_path).prepare((sys.executable, "-m", "forwarder"), kubeconfig)
    return made, asked


def test_the_sidecars_find_their_secrets(render, prepared):
    """Each that a pod mounts, or that the sidecar watches, is made, with the keys that are read from it."""
    secrets, _ = prepared
    assert secrets["friction-forwarder-nodes", "friction-sidecar"].keys() == {
        "kubeconfig",
        "shared-key",
        "telemetry-token",
    }
    read = {}
    for way in sidecars.WAYS:
        for one in render(sidecars.FOLDER / way.folder):
            spec = one["spec"] if one["kind"] == "Pod" else one.get("spec", {}).get("template", {}).get("spec", {})
            for volume in spec.get("volumes", []):
                if "secret" in volume:
                    mounts = [(container, mount["mountPath"]) for container in spec["containers"]
                              for mount in container["volumeMounts"] if mount["name"] == volume["name"]]  # fmt: skip
                    read[one["metadata"]["namespace"], volume["secret"]["secretName"]] = mounts
    read["friction-forwarder", "friction-sidecar-client"] = []
    assert read.keys() == secrets.keys()
    texts = [path.read_text() for path in sidecars.FOLDER.rglob("*") if path.is_file()]
    texts.append((ROOT / "deploy/tailer/tailer.yaml").read_text())
    for key, mounts in read.items():
        for _, path in mounts:
            named = {name for text in texts for name in re.findall(rf"(?<!\w){path}/([a-z-]+(?:\.[a-z]+)?)", text)}
            assert named <= secrets[key].keys(), key


def test_the_sidecars_certificates_fit(prepared, tmp_path):
    """The receiver's authority signed the sidecar's; proxy and tailer go by the names under which they are dialled."""
    secrets, _ = prepared
    assert (
        secrets["friction-forwarder", "friction-sidecar-client"]["ca.crt"]
        == base64.b64encode((tmp_path / "overlay/certs/ca.crt").read_bytes()).decode()
    )
    for key, file, name in (
        (("friction-forwarder-nodes", "friction-proxy"), "server.crt", "friction-proxy.friction-forwarder-nodes.svc"),
        (("kube-system", "audittailer-server"), "audittailer-server.crt", "kubernetes-audit-tailer"),
    ):
        certificate = x509.load_pem_x509_certificate(base64.b64decode(secrets[key][file]))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [name]


def test_agents_stand_aside_while_sidecars_run(prepared):
    """On a node selector that no node has; null gives them back."""
    _, asked = prepared
    (patch,) = [json.loads(command[-1]) for command in asked if "patch" in command]
    assert patch["spec"]["template"]["spec"]["nodeSelector"] == {"friction.example/for": "nobody"}


@pytest.mark.parametrize("way", sidecars.WAYS, ids=[way.folder for way in sidecars.WAYS])
def test_the_sidecars_arguments_are_what_the_program_takes(render, way):
    """And its settings load."""
    (pod,) = [one for one in render(sidecars.FOLDER / way.folder) if one["metadata"]["name"] == "friction-sidecar" and one["kind"] == "Pod"]  # fmt: skip
    (container,) = pod["spec"]["containers"]
    assert container["image"] == run.IMAGES["sidecar"]
    command, *words = container["args"]
    given = dict(word.removeprefix("--").split("=", 1) for word in words)
    flags = {name: int(value) if name == "proxy-port" else value for name, value in given.items()}
    settings, _ = load_settings(flags, {}, None)
    get_command(app).commands[command].make_context(command, list(words))
    assert bool(settings.proxy_host) == (way.folder == "tunnel")
    static = yaml.safe_load((ROOT / "deploy/sidecar/kube-apiserver+strategic.yaml").read_text())
    same = {word for word in static["spec"]["containers"][0]["args"] if not word.startswith("--telemetry")}
    assert same <= set(container["args"]), "as in deploy/sidecar"


def test_what_the_tailer_has_not_is_named():
    """Lines of others between are passed over."""
    events = [{"audit_id": "a"}, {"audit_id": "b"}]
    assert sidecars.not_tailed('{"auditID": "a"}\nnoise\n[1]\n{"kind": "Event"}\n', events) == ["b"]
    assert sidecars.not_tailed('{"auditID": "a"}\n{"auditID": "b"}\n', events) == []


def test_a_sidecar_that_grows_or_restarts_fails_the_run(tmp_path):
    """The broken receiver's way is about memory; every way is about living through it."""
    said = {"exec": str(300 << 20), "get": json.dumps({"status": {"containerStatuses": [{"restartCount": 1}]}})}

    def output(*command, stdin=""):
        return next((answer for word, answer in said.items() if word in command), "")

    broken = next(way for way in sidecars.WAYS if way.folder == "broken")
    made = sidecars.Sidecars(lambda *_: None, output, ("kubectl",), tmp_path)
    with pytest.raises(SystemExit, match="memory grows"):
        made.played(broken, tmp_path)
    with pytest.raises(SystemExit, match="restarted 1 times"):
        made.check(broken, [])
    said |= {"exec": str(90 << 20), "get": json.dumps({"status": {"containerStatuses": [{"restartCount": 0}]}})}
    made.played(broken, tmp_path)
    made.check(broken, [])
