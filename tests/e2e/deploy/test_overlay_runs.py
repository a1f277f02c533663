"""What `forwarder init --kubernetes` writes, run as processes: the very settings, keys, certificates and agent configuration."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from forwarder.events.sample import SampleLog
from tests.ports import free_port

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
STOP_DEADLINE_S = 30
MOUNTED = re.compile(
    r"(?<![\w/.*])/(?:etc/forwarder|var/lib/forwarder|fluent-bit/settings|audit|state|tls)\b"
)  # where a path begins


class Installed:
    """The overlay's pods on one machine: everything that they would find mounted stands below `folder`."""

    def __init__(self, objects, unpack, folder):
        self.folder = folder
        self.forward, self.telemetry, self.backend, self.backend_telemetry = (free_port() for _ in range(4))
        self._processes = []
        self._environments = {}
        self._arguments = {}
        for name, namespace in (
            ("friction-backend", "friction-forwarder"),
            ("friction-forwarder", "friction-forwarder"),
            ("friction-agent", "friction-forwarder-nodes"),
        ):
            template = objects.template(name)
            self._environments[name] = unpack(objects, namespace, template)
            self._arguments[name] = template["spec"]["containers"][0]["args"]
        for path in folder.rglob("forwarder.yaml"):
            path.write_text(self._moved(path.read_text()))
        for path in folder.rglob("backend.yaml"):  # in a cluster it has an address of its own, and so the same port
            path.write_text(self._moved(path.read_text().replace('":9000"', f"127.0.0.1:{self.backend_telemetry}")))
        self.agent_environment = {
            name: self._moved(value) if value.startswith("/") else value
            for name, value in self._environments["friction-agent"].items()
        } | {"FORWARDER_HOST": "127.0.0.1", "FORWARDER_PORT": str(self.forward), "FLUENT_BIT_FLUSH": "0.2"}
        self.agent_configuration = self._moved(self._arguments["friction-agent"][1])
        self.log = folder / "audit" / "audit.log"

    def _moved(self, text):
        """Paths below the folder, ports on loopback."""
        text = re.sub(MOUNTED, lambda match: f"{self.folder}{match.group()}", text)
        for port, chosen in ((24224, self.forward), (9000, self.telemetry), (8000, self.backend)):
            text = text.replace(f'":{port}"', f"127.0.0.1:{chosen}")
        return text

    def start(self, name):
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **self._environments[name]}
        environment["FORWARDER_BACKEND_URL"] = f"http://127.0.0.1:{self.backend}"
        arguments = [self._moved(argument) for argument in self._arguments[name]]
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "forwarder", *arguments], env=environment, stdout=log, stderr=log
            )
        self._processes.append(process)
        return process

    def run(self, *arguments):
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **self._environments["friction-forwarder"]}
        environment["FORWARDER_BACKEND_URL"] = f"http://127.0.0.1:{self.backend}"
        command = [sys.executable, "-m", "forwarder", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    @property
    def settings(self):
        return str(self.folder / "etc/forwarder/settings/forwarder.yaml")

    def get(self, port, path, token=""):
        """(status, body) of a GET; status 0 while nobody listens."""
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, b""
        except OSError:
            return 0, b""

    def events(self):
        key = (self.folder / "etc/forwarder/keys/api-key").read_text().strip()
        status, body = self.get(self.backend, "/events?limit=500", key)
        return json.loads(body) if status == 200 else []

    def stop(self):
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def installed(parts, unpack, tmp_path):
    one = Installed(parts("kubeadm"), unpack, tmp_path)
    yield one
    one.stop()


def test_what_is_written_works_together(installed, fluent_bit, wait_until):
    """Agent, receiver and backend of the overlay: TLS in both directions, keys, probes, metrics with the token, events, drain."""
    installed.start("friction-backend")
    receiver = installed.start("friction-forwarder")
    wait_until(lambda: installed.get(installed.telemetry, "/readyz")[0] == 200, "the receiver")
    installed.log.write_bytes(b"".join(line + b"\n" for line in SampleLog(1, start_time=time.time()).lines(400)))
    agent = fluent_bit(installed.agent_configuration, installed.agent_environment)
    wait_until(lambda: len(installed.events()) > 0, "the first events in the backend")
    wait_until(lambda: agent.records_read() >= 400, "the agent to read the log")
    assert {event["service"] for event in installed.events()}

    token = (installed.folder / "etc/forwarder/keys/telemetry-token").read_text()
    assert installed.get(installed.telemetry, "/metrics")[0] == 401
    wait_until(
        lambda: (
            b'forwarder_lines_received_total{source="forward"} 400.0'
            in installed.get(installed.telemetry, "/metrics", token)[1]
        ),
        "every line at the receiver",
    )

    assert installed.get(installed.backend_telemetry, "/metrics")[0] == 401
    wait_until(
        lambda: (
            b'forwarder_backend_events_total{result="recorded"}'
            in installed.get(installed.backend_telemetry, "/metrics", token)[1]
        ),
        "the backend's metrics",
    )

    drained = installed.run("drain", "--config", installed.settings, "--timeout", "30")
    assert drained.returncode == 0, drained.stderr
    receiver.send_signal(signal.SIGTERM)
    assert receiver.wait(STOP_DEADLINE_S) == 0
    ledger = json.loads(installed.run("status", "--config", installed.settings, "--json").stdout)
    assert ledger["balanced"] is True
    (sink,) = ledger["ledger"]["sinks"]
    assert (sink["waiting"], sink["dead"]) == (0, 0)
    assert len(installed.events()) == ledger["ledger"]["new"]


@pytest.mark.parametrize("wrong", ["key", "certificate"])
def test_an_agent_without_either_proof_gets_nowhere(installed, fluent_bit, wait_until, wrong):
    """The shared key alone does not open the door, nor does the certificate."""
    installed.start("friction-forwarder")
    wait_until(lambda: installed.get(installed.telemetry, "/readyz")[0] == 200, "the receiver")
    installed.log.write_bytes(b"".join(line + b"\n" for line in SampleLog(1, start_time=time.time()).lines(50)))
    environment = dict(installed.agent_environment)
    environment |= (
        {"FORWARD_SHARED_KEY": "another"}
        if wrong == "key"
        else {"FORWARDER_CLIENT_CERT": "", "FORWARDER_CLIENT_KEY": ""}
    )
    agent = fluent_bit(installed.agent_configuration, environment)
    wait_until(lambda: agent.records_read() >= 50, "the agent to read the log")
    token = (installed.folder / "etc/forwarder/keys/telemetry-token").read_text()

    def metrics():
        return installed.get(installed.telemetry, "/metrics", token)[1].decode()

    wait_until(lambda: "forwarder_connections_closed_total{" in metrics(), "the receiver to turn the agent away")
    assert "forwarder_lines_received_total{" not in metrics()
