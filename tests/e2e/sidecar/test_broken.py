"""What an operator sees when something is missing, and a receiver that takes nothing for a while."""

import asyncio
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from forwarder.sidecar import supervisor
from forwarder.tasks import cancel, spawn

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        pytest.param("fluent-bit", "/nowhere/fluent-bit", "install Fluent Bit 5.1", id="no-fluent-bit"),
        pytest.param("state-dir", "/proc/state", "state-dir: cannot write to /proc/state", id="state"),
        pytest.param("run-dir", "/proc/run", "run-dir: cannot write to /proc/run", id="run"),
        pytest.param("tls-basedir", "/proc/ssl", "tls-basedir: cannot write to /proc/ssl", id="tls"),
        pytest.param("telemetry-listen", "0.0.0.0:0", "telemetry-listen: 0.0.0.0:0 can be reached", id="telemetry"),
        pytest.param("audit-log-path", "/nowhere/audit.log", "audit-log-path: /nowhere is not there; mount", id="log"),
        pytest.param("log-level", "loud", "--log-level: 'loud' is no log level", id="level"),
    ],
)
def test_what_is_missing_at_the_start_ends_it_with_2_and_says_what_to_do(
    apiserver, kubeconfig, sidecar, option, value, said
):
    """Nothing has been started then."""
    running = sidecar(kubeconfig(apiserver.url), **{option: value})
    assert running.process.wait(20) == 2
    assert said in running.output()


def test_a_log_that_does_not_come_is_said(apiserver, kubeconfig, sidecar, ack_server, authority, wait_until):
    """The audit log is perhaps not switched on; once it is, its lines are sent."""
    receiver = ack_server(context=authority.server_context())
    apiserver.put_secret(authority.secret())
    apiserver.put_service(receiver.port)
    running = sidecar(kubeconfig(apiserver.url))
    wait_until(
        lambda: "audit.log is not there yet; does kube-apiserver write to it" in running.output(), "the complaint"
    )
    running.write([b'{"n":1}'])
    wait_until(lambda: receiver.lines, "the first line")


def test_a_classic_output_ends_it_with_the_yaml_to_write(apiserver, kubeconfig, sidecar, tmp_path):
    """The folder of the program that this replaces, mounted as it was."""
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "splunk.conf").write_text("[OUTPUT]\n  Name splunk\n  Match *\n  Host splunk.example\n")
    running = sidecar(kubeconfig(apiserver.url))
    assert running.process.wait(20) == 2
    assert "write it as splunk.yaml" in running.output()
    assert "host: splunk.example" in running.output()


def test_a_further_output_that_fluent_bit_does_not_take_ends_it_with_2(apiserver, kubeconfig, sidecar, tmp_path):
    """At the start a person is there to read it; later it would be reported and left out."""
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "x.yaml").write_text("pipeline: {outputs: [{name: no-such-output}]}")
    running = sidecar(kubeconfig(apiserver.url))
    assert running.process.wait(20) == 2
    assert "Fluent Bit does not take them" in running.output()


def test_an_absent_kubeconfig_stops_nothing_and_is_used_once_it_comes(
    apiserver, kubeconfig, sidecar, ack_server, authority, wait_until, tmp_path
):
    """The log is read and kept from the first moment."""
    receiver = ack_server(context=authority.server_context())
    running = sidecar(tmp_path / "kubeconfig")
    running.write([b'{"n":1}'])
    wait_until(lambda: running.metric("forwarder_agent_chunks", 0) >= 1, "the line to be kept")
    assert "there is no kubeconfig; mount it there, or set --kubecfg" in running.output()
    apiserver.put_secret(authority.secret())
    apiserver.put_service(receiver.port)
    kubeconfig(apiserver.url)
    wait_until(lambda: receiver.lines == [b'{"n":1}'], "the line")


def test_a_receiver_that_takes_nothing_costs_neither_memory_nor_lines(
    apiserver, kubeconfig, sidecar, ack_server, authority, wait_until
):
    """150 MB are logged and rotated meanwhile, with 20 MB to hold them in: reading waits, memory stays, all arrives."""
    receiver = ack_server(context=authority.server_context())
    receiver.silent = True
    apiserver.put_secret(authority.secret())
    apiserver.put_service(receiver.port)
    running = sidecar(kubeconfig(apiserver.url), mem_buf_limit="20MB")
    wait_until(lambda: running.metric("forwarder_certificate_known") == 1, "the certificates")
    wait_until(running.ready, "Fluent Bit")
    filler = "x" * 2900
    count = 0
    for _ in range(15):
        lines = [b'{"auditID":"%d","filler":"%b"}' % (number, filler.encode()) for number in range(count, count + 3400)]
        count += len(lines)
        running.write(lines)
        running.rotate()
        time.sleep(0.4)
    time.sleep(3)
    (agent,) = running.agents()
    (resident,) = re.findall(r"^VmRSS:\s+([0-9]+) kB", Path(f"/proc/{agent}/status").read_text(), re.MULTILINE)
    assert int(resident) < 150_000, "kB; 150 MB of lines are waiting"
    held = sum(path.stat().st_size for path in (running.folder / "state" / "storage").rglob("*.flb"))
    assert held < 60 << 20
    assert running.metric("forwarder_agent_log_lag_bytes") > 50 << 20
    receiver.silent = False
    receiver.disconnect()
    wait_until(lambda: len({line[:25] for line in receiver.lines}) >= count, "every line", 90)


def test_fluent_bit_is_a_child_that_is_reaped(apiserver, kubeconfig, sidecar, wait_until):
    """No zombie stays after a kill."""
    running = sidecar(kubeconfig(apiserver.url))
    wait_until(running.agents, "Fluent Bit")
    first = running.agents()[0]
    os.kill(first, 9)
    wait_until(lambda: running.agents() not in ([], [first]), "the next one")
    listed = subprocess.run(
        ["ps", "-o", "stat=", "--ppid", str(running.process.pid)], capture_output=True, text=True, check=False
    )
    assert "Z" not in listed.stdout


async def test_as_process_1_it_reaps_the_children_of_others_but_not_its_own(monkeypatch):
    """Orphans of plug-ins become children of process 1; Fluent Bit itself is waited for by who started it."""
    monkeypatch.setattr(supervisor, "REAP_S", 0.02)
    first = subprocess.Popen(["true"])  # noqa: ASYNC220
    reaping = spawn(supervisor._reap_strangers(lambda: None), name="reaper")
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{first.pid}"):  # noqa: ASYNC240
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    await cancel(reaping)
    first.wait()
    own = subprocess.Popen(["true"])  # noqa: ASYNC220
    reaping = spawn(supervisor._reap_strangers(lambda: own.pid), name="reaper")
    await asyncio.sleep(0.5)
    await cancel(reaping)
    assert os.path.exists(f"/proc/{own.pid}")  # noqa: ASYNC240
    assert own.wait() == 0
