"""kind/: what can be known without a container engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from forwarder.detection.loader import load_rules
from kind import run
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
