"""`forwarder receive` with a feed and `forwarder watch` beside it, each a process of its own; and `karmor`, where it is installed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder.events.sample import SampleLog
from forwarder.outbox import read_ledger
from tests.e2e.feed.protocol import Client
from tests.ports import free_port

pytestmark = pytest.mark.e2e

LOG = Path("tests/data/control-plane/audit.log")
ALERTS = 22  # friction events, ends of sessions included, that the five default rules find in that log
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path.cwd()), "NO_COLOR": "", "FEED_TOKEN": ""}


class Receiver:
    """`forwarder receive` over a log file, with a feed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.feed, self.telemetry = folder, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.log = folder / "audit.log"
        self.log.touch()
        settings = {
            "cluster": "eu-1",
            "sources": {"file": {"path": "audit.log", "start": "beginning", "checkpoint": "file.json"}},
            "sinks": {"stdout": {}},
            "outbox": {"path": "outbox.db"},
            "feed": {"listen": self.feed},
            "telemetry": {"listen": self.telemetry},
        }
        (folder / "forwarder.yaml").write_text(json.dumps(settings))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.folder / "out", "ab") as out, open(self.folder / "err", "ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "forwarder", "receive", "--config", str(self.folder / "forwarder.yaml")],
                env=ENVIRONMENT, cwd=Path.cwd(), stdout=out, stderr=err,
            )  # fmt: skip

    def stop(self) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(40)
        finally:
            process.kill()
            process.wait()

    def append(self, lines: bytes) -> None:
        with open(self.log, "ab") as file:
            file.write(lines)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.telemetry}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0.0
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


@pytest.fixture
def receiver(tmp_path: Path, wait_until: Callable[..., None]) -> Iterator[Receiver]:
    """One that is up."""
    one = Receiver(tmp_path)
    one.start()
    wait_until(
        lambda: one.metric("forwarder_rules_loaded") > 0 and b"receiving" in (tmp_path / "err").read_bytes(), "it"
    )
    yield one
    one.stop()


class Watch:
    """`forwarder watch`, its output in files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.out, self.err = folder / "watch.out", folder / "watch.err"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "forwarder", "watch", *arguments], env=ENVIRONMENT, cwd=Path.cwd(), stdout=out, stderr=err
            )  # fmt: skip

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def said(self) -> str:
        return self.err.read_text()

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    """`watch("--json", feed)`: the command, started; it does not outlive the test."""
    started: list[Watch] = []

    def start(*arguments: str) -> Watch:
        started.append(Watch(tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def test_watching_from_the_log_to_the_terminal(receiver, tmp_path, watch, wait_until):
    """What happens in the log is on the screen; Ctrl-C ends it with 0 and a sum; notices of the receiver are among it."""
    watching = watch("--alerts", "--messages", receiver.feed)
    wait_until(lambda: receiver.metric("forwarder_feed_clients") == 2, "the watcher")
    receiver.append(LOG.read_bytes())
    wait_until(
        lambda: len([line for line in watching.lines() if "HIGH" in line or "MEDIUM" in line]) == ALERTS, "all alerts"
    )
    assert receiver.process is not None
    receiver.process.send_signal(signal.SIGHUP)
    wait_until(lambda: any("rules loaded again" in line for line in watching.lines()), "the notice")
    assert watching.end() == 0
    assert any("alice@corp.example" in line and "$ sh -c 'sleep 1'" in line for line in watching.lines())
    assert f"watching {receiver.feed}" in watching.said()
    assert watching.said().rstrip().endswith("lines shown")


def test_audit_events_pass_while_somebody_watches_them(receiver, tmp_path, watch, wait_until):
    """All lines, not only those that a rule might match; the ledger is the same as without a watcher."""
    events = LOG.read_bytes()
    watching = watch("--logs", "--json", "--limit", "687", receiver.feed)
    wait_until(lambda: receiver.metric("forwarder_feed_clients") == 1, "the watcher")
    receiver.append(events)
    assert watching.process.wait(60) == 0
    expected = [json.loads(line)["auditID"] for line in events.splitlines()]
    assert [event["EventData"]["auditID"] for event in watching.objects()] == expected
    ledger = read_ledger(tmp_path / "outbox.db")
    assert ledger.balanced() == []
    assert ledger.detected == ALERTS


def test_watchers_that_hang_slow_neither_the_receiver_nor_each_other(receiver, tmp_path, watch, wait_until):
    """Three clients of audit events that never read: all lines are accepted and every friction event is kept."""
    clients = [Client(receiver.feed) for _ in range(3)]
    try:
        hanging = [client.watch("WatchLogs").opened() for client in clients]
        fast = watch("--json", receiver.feed)
        wait_until(lambda: receiver.metric("forwarder_feed_clients") == 4, "the watchers")
        sample = SampleLog(seed=11, start_time=time.time() - 600)
        receiver.append(b"".join(line + b"\n" for line in sample.lines(15_000)))
        wait_until(lambda: receiver.metric("forwarder_lines_received_total") == 15_000, "every line", 120)
        ledger = read_ledger(tmp_path / "outbox.db")
        assert ledger.balanced() == []
        assert ledger.new == len({(action.audit_id, action.rule) for action in sample.actions})
        assert receiver.metric("forwarder_feed_dropped_total") > len(hanging) * 5000
        wait_until(lambda: len(fast.lines()) == ledger.detected, "every friction event at the one that reads")
        assert fast.end() == 0
    finally:
        for client in clients:
            client.close()
    assert receiver.stop() == 0


def test_it_outlives_a_receiver_and_says_what_it_missed(receiver, tmp_path, watch, wait_until):
    """Restarted, killed or upgraded: one line when it is gone, one when it is back."""
    watching = watch("--json", receiver.feed)
    wait_until(lambda: receiver.metric("forwarder_feed_clients") == 1, "the watcher")
    assert receiver.stop() == 0
    wait_until(lambda: [event["Stream"] for event in watching.objects()][:1] == ["lost"], "the loss")
    receiver.start()
    wait_until(lambda: receiver.metric("forwarder_feed_clients") == 1, "the watcher again")
    receiver.append(LOG.read_bytes())
    wait_until(
        lambda: len([event for event in watching.objects() if event["Stream"] == "alerts"]) == ALERTS, "the alerts"
    )
    assert watching.end(signal.SIGTERM) == 0
    (missed,) = [event for event in watching.objects() if event["Stream"] == "missed"]
    assert missed["Seconds"] > 0


def test_a_closed_pipe_is_no_fault(receiver, wait_until):
    """`forwarder watch | head -1` ends quietly."""
    command = f"{sys.executable} -m forwarder watch {receiver.feed} | head -1; echo ended ${{PIPESTATUS[0]}}"
    shell = subprocess.Popen(
        ["bash", "-c", command], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: receiver.metric("forwarder_feed_clients") == 1, "the watcher")
    receiver.append(LOG.read_bytes())
    out, err = shell.communicate(timeout=60)
    assert out.splitlines()[-1] == "ended 0"
    assert len(out.splitlines()) == 2
    assert "Traceback" not in err


def test_nobody_there_is_said_once(tmp_path, watch, wait_until):
    """And tried again, until Ctrl-C."""
    watching = watch(f"127.0.0.1:{free_port()}")
    wait_until(lambda: "nothing listens there; trying again" in watching.said(), "the words")
    time.sleep(1.5)
    assert watching.said().count("nothing listens there") == 1
    assert watching.end() == 0


@pytest.fixture
def karmor(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`karmor(*arguments)`: the command `karmor logs`, with its output in karmor.out and karmor.err."""
    program = shutil.which("karmor")
    if not program:
        pytest.skip("needs `karmor` on PATH: build github.com/kubearmor/kubearmor-client")
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with open(tmp_path / "karmor.out", "wb") as out, open(tmp_path / "karmor.err", "wb") as err:
            started.append(subprocess.Popen([program, "logs", *arguments], env=ENVIRONMENT, stdout=out, stderr=err))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def test_karmor_shows_it_all(receiver, karmor, tmp_path, wait_until):
    """KubeArmor's own client: every audit event and every friction event, as JSON, and it ends when we do."""
    program = karmor("--gRPC", receiver.feed, "--logFilter", "all", "--json")
    wait_until(lambda: receiver.metric("forwarder_feed_clients") == 2, "karmor")
    receiver.append(LOG.read_bytes())

    def shown() -> list[dict[str, Any]]:
        lines = (tmp_path / "karmor.out").read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    wait_until(lambda: len(shown()) == 687 + ALERTS, "everything")
    assert receiver.stop() == 0
    program.wait(30)
    assert len([one for one in shown() if one["Type"] == "MatchedPolicy"]) == ALERTS
    assert len([one for one in shown() if one["Type"] in ("ContainerLog", "HostLog")]) == 687
    said = (tmp_path / "karmor.err").read_text()
    assert "Checked the liveness of the gRPC server" in said
    assert "EOF" in said  # the stream ended, and was not cut


def test_karmors_own_filters_fit(receiver, karmor, tmp_path, wait_until):
    """Its default filter shows friction only; namespace and operation are regexes over our fields; text, not JSON."""
    program = karmor("--gRPC", receiver.feed, "--limit", str(ALERTS), "-n", "^shop$", "--operation", "kubernetes")
    wait_until(lambda: receiver.metric("forwarder_feed_clients") == 1, "karmor")
    receiver.append(LOG.read_bytes())
    assert program.wait(30) == 0
    text = (tmp_path / "karmor.out").read_text()
    assert text.count("== Alert / 2026-11-21 ") == ALERTS
    assert "PolicyName: kubectl-exec\nSeverity: 10\n" in text
