"""deploy/tailer as processes: what a sidecar sends into the cluster is the standard output of the tailer, event for event."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from forwarder.events.sample import SampleLog
from tests.ports import free_port

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
STOP_S = 30


class Tailer:
    """`forwarder receive` with the very settings of deploy/tailer, its paths and ports moved here. out: its standard output."""

    def __init__(self, folder, files, port=0):
        self.folder = folder
        self.out, self.log = folder / "tailer.out", folder / "tailer.log"
        self.port, self._telemetry = port or free_port(), free_port()
        for name in ("crt", "key"):
            (files / f"tls.{name}").rename(files / f"audittailer-server.{name}")
        text = (ROOT / "deploy/tailer/tailer.yaml").read_text()
        text = text.replace("/etc/forwarder/tls/", f"{files}/").replace("/var/lib/forwarder/", f"{folder}/")
        text = text.replace('":24224"', f"127.0.0.1:{self.port}").replace('":9000"', f"127.0.0.1:{self._telemetry}")
        assert not re.search(r"(?<!\w)/(etc|var)/", text)
        (folder / "tailer.yaml").write_text(text)
        self._process = None

    def start(self):
        with open(self.out, "ab") as out, open(self.log, "ab") as log:
            command = [sys.executable, "-m", "forwarder", "receive", "--config", str(self.folder / "tailer.yaml")]
            environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=log)
        return self

    def stop(self, sign=signal.SIGTERM):
        if self._process is None:
            return None
        self._process.send_signal(sign)
        try:
            return self._process.wait(STOP_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send(self, sign):
        self._process.send_signal(sign)

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._telemetry}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def late(self):
        """How many connections it closed without an acknowledgement, because it was too late for one."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._telemetry}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found = re.search(r'connections_closed_total{cause="overloaded".*} (\S+)', text)
        return int(float(found.group(1))) if found else 0

    def events(self):
        """(auditID, stage) of each whole line, in order; what a kill cut short is left out."""
        found = []
        for line in (self.out.read_bytes() if self.out.exists() else b"").split(b"\n")[:-1]:
            try:
                found.append(identity(line))
            except ValueError:
                continue
        return found


def identity(line):
    event = json.loads(line)
    return event["auditID"], event["stage"]


@pytest.fixture
def tailer(tmp_path, authority):
    one = Tailer(tmp_path, authority.files(tmp_path / "tailer", "kubernetes-audit-tailer"))
    yield one
    one.stop()
    print(one.log.read_text(errors="replace")[-4000:] if one.log.exists() else "")


@pytest.fixture
def lines():
    """`lines(n)`: the next n audit events of a cluster."""
    return SampleLog(7, start_time=time.time()).lines


def test_each_event_is_one_line_of_standard_output_and_nothing_else_is(
    apiserver, kubeconfig, sidecar, tailer, authority, lines, wait_until
):
    """With the names, the namespace and the certificates that a sidecar expects by default. Once each, unless the machine is so
    busy that an acknowledgement is late: that chunk is printed again.
    """
    apiserver.put_secret(authority.secret())
    apiserver.put_service(tailer.port)
    tailer.start()
    running = sidecar(kubeconfig(apiserver.url))
    written = list(lines(1000))
    running.write(written)
    wait_until(lambda: len(tailer.events()) >= 1000, "every event")
    time.sleep(1)
    assert set(tailer.events()) == set(map(identity, written))
    assert len(tailer.events()) == 1000 or tailer.late(), "repeats without a reason"
    assert all(line.startswith(b'{"kind":"Event"') for line in tailer.out.read_bytes().splitlines())
    assert tailer.stop() == 0
    assert "receiving" in tailer.log.read_text()
    assert all(json.loads(line)["level"] in ("info", "warning") for line in tailer.log.read_text().splitlines())


def test_a_tailer_that_is_killed_stopped_and_hung_loses_nothing(
    apiserver, kubeconfig, sidecar, tailer, authority, lines, wait_until
):
    """kill -9, an orderly end, and a process that takes connections and says nothing for a while; Fluent Bit is killed too."""
    apiserver.put_secret(authority.secret())
    apiserver.put_service(tailer.port)
    tailer.start()
    running = sidecar(kubeconfig(apiserver.url))
    written = []

    def write(number):
        part = list(lines(number))
        written.extend(part)
        running.write(part)

    def everything():
        return set(tailer.events()) >= set(map(identity, written))

    for sign in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        write(300)
        wait_until(lambda: len(tailer.events()) > len(written) - 300, "the first of these")
        tailer.stop(sign)
        write(300)
        tailer.start()
    wait_until(everything, "what was written while it was away")
    tailer.send(signal.SIGSTOP)
    write(300)
    time.sleep(12)  # longer than Fluent Bit waits for an answer
    for agent in running.agents():
        os.kill(agent, signal.SIGKILL)
    tailer.send(signal.SIGCONT)
    write(300)
    wait_until(everything, "what was written while it hung")
    assert set(tailer.events()) == set(map(identity, written))


def test_audit_forwarders_fluent_bit_is_taken(sidecar, tailer, authority, lines, tmp_path, wait_until):
    """Its classic settings with parsed JSON: the tailer prints the events it read as maps, whole."""
    tailer.start()
    wait_until(tailer.ready, "the tailer")
    for name, content in authority.secret().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "parsers.conf").write_text("[PARSER]\n  Name json\n  Format json\n")
    written = list(lines(300))
    (tmp_path / "audit.log").write_bytes(b"".join(line + b"\n" for line in written))
    config = tmp_path / "theirs.conf"
    config.write_text(
        f"[SERVICE]\n  Flush 1\n  Parsers_File {tmp_path}/parsers.conf\n"
        f"[INPUT]\n  Name tail\n  Tag audit\n  Path {tmp_path}/audit.log\n  Read_from_Head On\n  Parser json\n"
        f"  Buffer_Max_Size 1MB\n"
        f"[OUTPUT]\n  Name forward\n  Match audit\n  Host 127.0.0.1\n  Port {tailer.port}\n  Require_ack_response True\n"
        f"  tls On\n  tls.verify On\n  tls.vhost kubernetes-audit-tailer\n  tls.ca_file {tmp_path}/ca.crt\n"
        f"  tls.crt_file {tmp_path}/audittailer-client.crt\n  tls.key_file {tmp_path}/audittailer-client.key\n"
    )
    program = os.environ.get("FLUENT_BIT") or "fluent-bit"
    with open(tmp_path / "theirs.log", "ab") as log, subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log) as agent:  # fmt: skip
        try:
            wait_until(lambda: len(tailer.events()) >= 300, "every event")
        finally:
            agent.kill()
    assert set(tailer.events()) == set(map(identity, written))


def test_without_a_certificate_nothing_is_taken(apiserver, kubeconfig, sidecar, tailer, authority, lines, wait_until):
    """A stranger's certificate opens no door; the lines wait on the sidecar's disk."""
    stranger = type(authority)()
    apiserver.put_secret(stranger.secret() | {"ca.crt": authority.ca})
    apiserver.put_service(tailer.port)
    tailer.start()
    running = sidecar(kubeconfig(apiserver.url))
    running.write(list(lines(50)))
    wait_until(lambda: "not one that `client_ca_file` has signed" in tailer.log.read_text(), "the tailer to refuse it")
    assert tailer.events() == []
    apiserver.put_secret(authority.secret())
    wait_until(lambda: len(tailer.events()) >= 50, "every event once the certificate is right")
