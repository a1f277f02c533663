"""kube-apiserver itself posts to the webhook, through a proxy that often fails and a receiver that is killed: exactly the events."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.controlplane.plane import NODE, ControlPlane, find_part, missing_parts
from tests.e2e.product.conftest import Product, Program, wait_until
from tests.e2e.scenario import Scenario, difference
from tests.e2e.stage import Stage
from tests.ports import free_port

pytestmark = pytest.mark.e2e

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr; events {{}}
http {{
  access_log {folder}/access.log; client_max_body_size 64m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {certs}/server.crt; ssl_certificate_key {certs}/server.key;
    location / {{
      if ($request_id ~ "^[01]") {{ return 502; }}     # one in eight never arrives; kube-apiserver gives up after five tries
      proxy_pass https://127.0.0.1:{receiver}; proxy_ssl_trusted_certificate {certs}/ca.crt; proxy_ssl_verify on; proxy_ssl_name localhost;
    }}
  }}
}}
"""


class Posted(Product):
    """Backend, receiver with a webhook as `forwarder init --webhook` sets it up, and nginx in front of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, None)
        self.ports |= {"webhook": free_port(), "nginx": free_port()}
        url = f"https://127.0.0.1:{self.ports['nginx']}/audit"
        command = [
            sys.executable,
            "-m",
            "forwarder",
            "init",
            "--dir",
            str(folder / "init"),
            "--yes",
            "--forward-listen",
            "none",
        ]
        made = subprocess.run(
            [*command, "--webhook", "--webhook-url", url],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"HOME": str(folder)},
        )
        assert made.returncode == 0, made.stderr
        self.kubeconfig = folder / "init" / "audit-webhook.kubeconfig"
        certs = folder / "init" / "certs"
        token = yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]["token"]
        door = {
            "listen": f"127.0.0.1:{self.ports['webhook']}",
            "token": token,
            "tls": {"cert_file": str(certs / "server.crt"), "key_file": str(certs / "server.key")},
        }
        self.configure(sources={"webhook": door}, detection={"rules": ["rules/friction.yaml", "rules/extended.yaml"]})
        (folder / "nginx").mkdir()
        conf = NGINX.format(
            folder=folder / "nginx", port=self.ports["nginx"], receiver=self.ports["webhook"], certs=certs
        )
        (folder / "nginx.conf").write_text(conf)
        self.nginx = Program("nginx", [str(shutil.which("nginx")), "-c", str(folder / "nginx.conf")], folder, {})

    def stop(self) -> None:
        super().stop()
        if self.nginx.running:
            self.nginx.stop()


@pytest.fixture
def posted(tmp_path: Path) -> Iterator[Posted]:
    if missing := missing_parts():
        pytest.skip(f"needs {', '.join(missing)}: run `make e2e-parts` (needs Go), and install kubectl")
    if not shutil.which("nginx"):
        pytest.skip("needs nginx on PATH")
    whole = Posted(tmp_path)
    try:
        yield whole
    finally:
        whole.stop()
    assert whole.ledger().balanced() == []


@pytest.fixture
def posting(posted: Posted, scenario: Scenario, tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane that posts to it. Its defaults would wait ten seconds after the first failure."""
    flags = [
        f"--audit-webhook-config-file={posted.kubeconfig}",
        "--audit-webhook-batch-max-wait=0.3s",
        "--audit-webhook-initial-backoff=1s",
    ]
    folder = tmp_path / "plane"
    folder.mkdir()
    posted.start()
    posted.nginx.start()
    plane = ControlPlane(folder, scenario.people, flags)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def test_every_action_gives_exactly_its_events(posted, posting, scenario, tmp_path):
    """The whole scenario over the webhook; one request in eight fails on the way, and the receiver is killed once."""
    folder = tmp_path / "stage"
    folder.mkdir()

    def events():
        return posted.get("/api/v1/events?limit=1000")

    words = {"node": NODE, "image": "example.test/tools:1"}
    kubectl = str(find_part("kubectl"))
    stage = Stage(scenario, kubeconfig=posting.kubeconfig, events=events, folder=folder, kubectl=kubectl, words=words)
    stage.prepare()
    half = len(scenario.actions) // 2
    stage.play(scenario.actions[:half])
    posted.receiver.kill()
    time.sleep(0.3)
    posted.receiver.start()
    posted.wait_receiver()
    stage.play(scenario.actions[half:])
    expected = stage.expected()
    posted.settled(len(expected))
    differs = difference(expected, events())
    assert not differs, f"\n{differs}"
    assert {event["revision"] for event in events()} == {1}
    statuses = re.findall(r'" (\d{3}) ', (posted.folder / "nginx" / "access.log").read_text())
    assert statuses.count("502") > 3
    assert set(statuses) <= {"200", "502"}
    metrics = posted.metrics()
    assert "forwarder_screen_fallback_total 0.0" in metrics or fallback_share(metrics) < 0.2
    wait_until(lambda: "dropped" not in posting._programs[1].output(), "no audit event dropped by kube-apiserver")


def fallback_share(metrics: str) -> float:
    """Of all lines; items of an EventList are to be screened as fast as lines of a file."""
    values = {
        line.split("{")[0].split(" ")[0]: float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line and line[0] != "#"
    }
    return values["forwarder_screen_fallback_total"] / values["forwarder_lines_received_total"]
