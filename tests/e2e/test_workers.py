"""More than one core: connections shared evenly, nothing lost with a worker, rules and counters as in one process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from forwarder.outbox import read_ledger
from forwarder.wire.forward_client import AckReader, entries, packed_forward
from tests.ports import free_port

pytestmark = pytest.mark.e2e

RULE = "rules:\n  - {name: %s, description: x, severity: high, match: {resource: %s, verb: get}}\n"


def line(number: int, resource: str = "secrets") -> bytes:
    event = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": f"id-{number}",
        "stage": "ResponseComplete", "requestURI": "/x", "verb": "get", "user": {"username": "alice"},
        "sourceIPs": ["10.0.0.7"], "objectRef": {"resource": resource, "namespace": "shop", "name": "db", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
    }  # fmt: skip
    return json.dumps(event, separators=(",", ":")).encode()


class Receiver:
    """A real `forwarder receive` with workers. pid: the parent's."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.port, self.telemetry = folder, free_port(), free_port()
        (folder / "rules.yaml").write_text(RULE % ("secret-read", "secrets"))
        settings = {
            "sources": {"forward": {"listen": f"127.0.0.1:{self.port}", "workers": workers}},
            "sinks": {"backend": {"url": "http://127.0.0.1:9", "required": False}},
            "detection": {"rules": ["rules.yaml"], "reload_interval_s": 0.1},
            "outbox": {"path": "outbox.db"},
            "telemetry": {"listen": f"127.0.0.1:{self.telemetry}"},
        }
        (folder / "forwarder.yaml").write_text(json.dumps(settings))
        self.log = open(folder / "log", "wb")  # noqa: SIM115 - closed by stop
        self.process = subprocess.Popen(
            [sys.executable, "-m", "forwarder", "receive", "--config", str(folder / "forwarder.yaml")],
            stderr=self.log, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, cwd=folder,
        )  # fmt: skip

    @property
    def workers(self) -> list[int]:
        """Their process ids."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]

    def metric(self, name: str) -> float:
        """The sum over all labels; 0 while it does not answer yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.telemetry}/metrics", timeout=5) as answer:
                rows = answer.read().decode().splitlines()
        except OSError:
            return 0.0
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows if row.startswith((name + "{", name + " ")))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.log.close()
        return code


class Client:
    """Sends chunks one by one, each until it is acknowledged, as Fluent Bit does: through refusals and lost connections."""

    def __init__(self, port: int, name: str) -> None:
        self.port, self.name, self.sock = port, name, None

    def send(self, lines: list[bytes], deadline_s: float = 60.0) -> None:
        data = packed_forward(b"audit", entries(lines, time.time()), chunk=self.name.encode())
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            try:
                if self.sock is None:
                    self.sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
                self.sock.sendall(data)
                acks = AckReader()
                while acks.next_ack() is None:
                    received = self.sock.recv(4096)
                    if not received:
                        raise ConnectionError
                    acks.receive_data(received)
                return
            except OSError:
                self.close()
                time.sleep(0.05)
        raise TimeoutError("never acknowledged")

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


@pytest.fixture
def receiver(tmp_path, wait_until):
    started = Receiver(tmp_path, workers=3)
    wait_until(lambda: started.metric("forwarder_workers") == 3, "three workers")
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.wait()
    started.log.close()


def sockets_of(pid: int, port: int) -> int:
    """How many established connections of the door a process holds."""
    inodes = set()
    for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "01":
            inodes.add(fields[9])
    held = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held += os.readlink(entry).removeprefix("socket:[").rstrip("]") in inodes
        except OSError:
            pass
    return held


def test_connections_are_shared_evenly_and_counted_together(receiver, wait_until) -> None:
    """Twelve that come at once are four for each of three workers; a 13th and 14th go to different ones."""
    clients = [Client(receiver.port, f"c{number}") for number in range(12)]
    for number, client in enumerate(clients):
        client.sock = socket.create_connection(("127.0.0.1", receiver.port))
        client.number = number
    wait_until(lambda: receiver.metric("forwarder_connections") == 12, "twelve connections")
    assert [sockets_of(pid, receiver.port) for pid in receiver.workers] == [4, 4, 4]
    more = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(2)]
    wait_until(lambda: receiver.metric("forwarder_connections") == 14, "fourteen connections")
    assert sorted(sockets_of(pid, receiver.port) for pid in receiver.workers) == [4, 5, 5]
    for client in clients:
        client.send([line(client.number), line(client.number, "pods")])
        client.close()
    for sock in more:
        sock.close()
    assert receiver.metric("forwarder_lines_received_total") == 24
    assert receiver.metric("forwarder_lines_matched_total") == 12
    wait_until(lambda: receiver.metric("forwarder_connections_closed_total") == 14, "the count of closed connections")
    assert receiver.metric("forwarder_source_bytes_total") > 24 * len(line(0))
    ledger = read_ledger(receiver.folder / "outbox.db")
    assert (ledger.new, ledger.balanced()) == (12, [])
    assert receiver.stop() == 0


def test_a_worker_that_dies_loses_nothing_and_is_replaced(receiver, wait_until) -> None:
    """Killed twice while eight clients send: each line that was acknowledged is an event, none is there twice."""
    total, errors = 8 * 25, []

    def work(number: int) -> None:
        client = Client(receiver.port, f"c{number}")
        try:
            for chunk in range(25):
                client.send([line(number * 25 + chunk), line(0, "pods")])
                time.sleep(0.02)
        except Exception as error:
            errors.append(error)
        client.close()

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.4)
        os.kill(receiver.workers[0], signal.SIGKILL)
    for thread in threads:
        thread.join(90)
    assert errors == []
    ledger = read_ledger(receiver.folder / "outbox.db")
    assert (ledger.new, ledger.balanced()) == (total, [])
    wait_until(lambda: receiver.metric("forwarder_workers") == 3, "a worker in place of the one that died")
    assert receiver.metric("forwarder_worker_restarts_total") == 2
    pids = receiver.workers
    assert receiver.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert b"a worker ended (signal 9)" in (receiver.folder / "log").read_bytes()


def test_changed_rules_reach_the_workers(receiver, wait_until) -> None:
    """What they dropped before, they let pass; also the ones that started before the change."""
    clients = [Client(receiver.port, f"c{number}") for number in range(3)]
    for number, client in enumerate(clients):
        client.send([line(number, "configmaps")])
    assert receiver.metric("forwarder_lines_matched_total") == 0
    (receiver.folder / "rules.yaml").write_text(RULE % ("map-read", "configmaps"))
    wait_until(lambda: receiver.metric("forwarder_rules_reloads_total") >= 1, "the new rules")
    time.sleep(0.2)
    for number, client in enumerate(clients):
        client.send([line(number, "configmaps")])
    assert receiver.metric("forwarder_lines_matched_total") == 3
    for client in clients:
        client.close()


def test_without_their_parent_workers_end(receiver, wait_until) -> None:
    """Nobody could acknowledge anything; they must not keep the connections open."""
    pids = receiver.workers
    receiver.process.kill()
    receiver.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in pids), "the end of the workers")
