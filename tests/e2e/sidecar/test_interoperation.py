"""Both directions: our sidecar to our receiver and to a stock Fluent Bit, and audit-forwarder's Fluent Bit to our receiver."""

import json
import os
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


@pytest.fixture
def run(tmp_path):
    """A function that starts a program with its output in a file; all are ended."""
    started = []

    def start(*arguments, **environment):
        with open(tmp_path / f"{len(started)}.log", "ab") as output:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
            started.append(subprocess.Popen(arguments, stdout=output, stderr=output, cwd=tmp_path, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def our_receiver(tmp_path, run, authority, wait_until):
    """`forwarder receive` with mutual TLS: its port, and a function that counts the lines it has accepted."""
    files = authority.files(tmp_path / "server", "kubernetes-audit-tailer")
    port, telemetry = free_port(), free_port()
    tls = {"cert_file": f"{files}/tls.crt", "key_file": f"{files}/tls.key", "client_ca_file": f"{files}/ca.crt"}
    settings = {
        "sources": {"forward": {"listen": f"127.0.0.1:{port}", "tls": tls}},
        "sinks": {"backend": {"url": "http://127.0.0.1:9"}},
        "outbox": {"path": "outbox.db"},
        "telemetry": {"listen": f"127.0.0.1:{telemetry}"},
    }
    (tmp_path / "forwarder.yaml").write_text(json.dumps(settings))
    run(sys.executable, "-m", "forwarder", "receive", "--config", "forwarder.yaml")

    def lines():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{telemetry}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return -1
        found = [line for line in text.splitlines() if line.startswith("forwarder_lines_received_total{")]
        return sum(int(float(line.rpartition(" ")[2])) for line in found)

    wait_until(lambda: lines() >= 0, "the receiver")
    return port, lines


def test_our_sidecar_to_our_receiver_with_client_certificates(
    apiserver, kubeconfig, sidecar, our_receiver, authority, wait_until
):
    """Every line is counted once by the receiver, over TLS that asks for the client's certificate."""
    port, lines = our_receiver
    apiserver.put_secret(authority.secret())
    apiserver.put_service(port)
    running = sidecar(kubeconfig(apiserver.url))
    running.write(list(SampleLog(5, start_time=time.time()).lines(1000)))
    wait_until(lambda: lines() >= 1000, "every line")
    time.sleep(1)
    assert lines() == 1000


def test_our_sidecar_to_a_stock_fluent_bit(apiserver, kubeconfig, sidecar, run, authority, tmp_path, wait_until):
    """An existing tailer, TLS and all, takes our lines as they are; it rotates away and comes back as another process."""
    files = authority.files(tmp_path / "server", "kubernetes-audit-tailer")
    port = free_port()
    apiserver.put_secret(authority.secret())
    apiserver.put_service(port)
    running = sidecar(kubeconfig(apiserver.url))
    config = tmp_path / "tailer.conf"
    config.write_text(
        f"[SERVICE]\n  Flush 0.2\n[INPUT]\n  Name forward\n  Listen 127.0.0.1\n  Port {port}\n  tls on\n  tls.verify off\n"
        f"  tls.ca_file {files}/ca.crt\n  tls.crt_file {files}/tls.crt\n  tls.key_file {files}/tls.key\n"
        f"[OUTPUT]\n  Name file\n  Match *\n  Path {tmp_path}\n  File tailed\n  Format plain\n"
    )
    lines = [json.dumps({"kind": "Event", "auditID": str(number)}).encode() for number in range(600)]
    tailed = tmp_path / "tailed"

    def arrived():
        text = tailed.read_text() if tailed.exists() else ""
        whole = text.split("\n")[:-1]  # the last may be half written
        return {json.loads(json.loads(line)["log"])["auditID"] for line in whole}

    for part in range(3):
        tailer = run(running.options["fluent-bit"], "-c", str(config))
        running.write(lines[part * 200 : part * 200 + 200])
        wait_until(lambda part=part: len(arrived()) >= part * 200 + 200, "the lines")
        tailer.send_signal(signal.SIGTERM)
        tailer.wait(10)


def test_audit_forwarders_fluent_bit_to_our_receiver(sidecar, run, our_receiver, authority, tmp_path, wait_until):
    """Its settings, in classic format, with parsed JSON, gzip, TLS, a client certificate and acknowledgements."""
    port, lines = our_receiver
    client = authority.secret()
    for name, content in client.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "parsers.conf").write_text("[PARSER]\n  Name json\n  Format json\n")
    (tmp_path / "audit.log").write_bytes(
        b"".join(line + b"\n" for line in SampleLog(6, start_time=time.time()).lines(500))
    )
    config = tmp_path / "theirs.conf"
    config.write_text(
        f"[SERVICE]\n  Flush 1\n  Parsers_File {tmp_path}/parsers.conf\n  storage.path {tmp_path}/theirs\n"
        f"[INPUT]\n  Name tail\n  Tag audit\n  Path {tmp_path}/audit.log\n  Read_from_Head On\n  Parser json\n"
        f"  DB {tmp_path}/theirs.db\n  Mem_Buf_Limit 200M\n  storage.type filesystem\n  Buffer_Max_Size 1MB\n"
        f"[OUTPUT]\n  Name forward\n  Match audit\n  Host 127.0.0.1\n  Port {port}\n  Require_ack_response True\n"
        f"  Compress gzip\n  tls On\n  tls.verify On\n  tls.vhost kubernetes-audit-tailer\n"
        f"  tls.ca_file {tmp_path}/ca.crt\n  tls.crt_file {tmp_path}/audittailer-client.crt\n"
        f"  tls.key_file {tmp_path}/audittailer-client.key\n"
    )
    run(os.environ.get("FLUENT_BIT") or "fluent-bit", "-c", str(config))
    wait_until(lambda: lines() >= 500, "every line")


def test_a_further_output_is_a_mounted_file_and_may_come_and_go(
    apiserver, kubeconfig, sidecar, ack_server, authority, wait_until, tmp_path
):
    """A second destination gets what the first gets; a file that is no configuration leaves all as it is."""
    receiver = ack_server(context=authority.server_context())
    apiserver.put_secret(authority.secret())
    apiserver.put_service(receiver.port)
    running = sidecar(kubeconfig(apiserver.url))
    running.write([b'{"n":1}'])
    wait_until(lambda: len(receiver.lines) == 1, "the first line")
    output = {"name": "file", "match": "audit", "path": str(tmp_path), "file": "second"}
    (running.added / "second.yaml").write_text(json.dumps({"pipeline": {"outputs": [output]}}))
    wait_until(lambda: running.metric('forwarder_agent_reloads_total{result="reloaded"}', 0) == 1, "the reload")
    running.write([b'{"n":2}'])
    wait_until((tmp_path / "second").exists, "the second destination")
    wait_until(lambda: len(receiver.lines) == 2, "the first one")
    starts = running.metric("forwarder_agent_starts_total")
    (running.added / "third.yaml").write_text("pipeline: {outputs: [{name: no-such-output}]}")
    wait_until(lambda: "stay as they were" in running.output(), "the complaint")
    running.write([b'{"n":3}'])
    wait_until(lambda: len(receiver.lines) == 3, "the third line")
    assert running.metric("forwarder_agent_starts_total") == starts
