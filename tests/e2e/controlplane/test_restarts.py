"""Everything is restarted while a real apiserver logs and rotates: each request is one event, none is lost, none twice."""

import http.client
import json
import threading
import time
import urllib.request

import pytest

from forwarder.outbox import read_ledger
from tests.e2e.controlplane.plane import lines_of
from tests.e2e.controlplane.service import Service
from tests.e2e.product.conftest import wait_until
from tests.ports import free_port

pytestmark = pytest.mark.e2e

REQUESTS_PER_S = 150  # of one person; a third of what a receiver is made for, so that a shared machine keeps up
ROUNDS = 3  # in each, both receivers are restarted
KILLS = 4  # of Fluent Bit after each restart of a receiver: 24 in all
ENTITY = "/friction/component%3A{}%2Fwatched"


class Reader:
    """Alice, who reads one secret again and again until `stop`; each answer is one audit event that is friction."""

    def __init__(self, plane, namespace):
        self.path = f"/api/v1/namespaces/{namespace}/secrets/watched"
        self._plane = plane
        self._stopping = threading.Event()
        self.done = 0
        self._thread = threading.Thread(target=self._run, name="reader")
        self._thread.start()

    def stop(self):
        self._stopping.set()
        self._thread.join(30)

    def _run(self):
        connection = http.client.HTTPSConnection("127.0.0.1", self._plane.port, context=self._plane.trust(), timeout=30)
        headers = {"Authorization": f"Bearer {self._plane.token('alice')}"}
        began = time.monotonic()
        while not self._stopping.is_set():
            connection.request("GET", self.path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            self.done += 1
            self._stopping.wait(max(0.0, began + self.done / REQUESTS_PER_S - time.monotonic()))
        connection.close()


@pytest.fixture
def namespace(plane):
    """With one secret, and alice may read it."""
    name = f"load-{time.time_ns()}"
    plane.kubectl("create", "namespace", name)
    plane.kubectl("create", "secret", "generic", "watched", "-n", name, "--from-literal=value=x")
    plane.kubectl("create", "role", "reader", "-n", name, "--verb=get", "--resource=secrets")
    plane.kubectl("create", "rolebinding", "reader", "-n", name, "--role=reader", "--group=platform")
    return name


class Replica:
    """A receiver with an outbox and ports of its own, settings as the first one's."""

    def __init__(self, cluster):
        self.port, self._telemetry = free_port(), free_port()
        self.outbox = cluster.folder / "outbox-2.db"
        settings = json.loads((cluster.folder / "forwarder.yaml").read_text())
        settings["sources"]["forward"]["listen"] = f"127.0.0.1:{self.port}"
        settings["outbox"] = {"path": self.outbox.name}
        settings["telemetry"] = {"listen": f"127.0.0.1:{self._telemetry}"}
        (cluster.folder / "forwarder-2.yaml").write_text(json.dumps(settings))
        self.program = cluster.program("receive-2", "receive", "--config", "forwarder-2.yaml")

    def wait(self):
        wait_until(self._ready, "the second receiver")

    def _ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._telemetry}/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture
def replica(cluster):
    second = Replica(cluster)
    yield second
    if second.program.running:
        second.program.stop()


@pytest.fixture
def service(cluster, replica):
    whole = Service([cluster.ports["forward"], replica.port])
    yield whole
    whole.close()


@pytest.fixture
def reader(plane, namespace):
    one = Reader(plane, namespace)
    yield one
    one.stop()


def test_rolling_restarts_and_killed_agents_lose_nothing(cluster, replica, service, plane, namespace, reader):
    """Two receivers behind one service restart in turn, Fluent Bit is killed in between, the log rotates all the while."""
    rotated = len(plane.audit_files())
    cluster.start()
    replica.program.start()
    replica.wait()
    agent = cluster.node_agent(port=service.port, from_head=True)
    agent.start()

    def counted():
        return cluster.get(ENTITY.format(namespace))["frictionScore"]["bypassCount"]

    wait_until(counted, "the first event")
    for _ in range(ROUNDS):
        for receiver, wait in ((cluster.receiver, cluster.wait_receiver), (replica.program, replica.wait)):
            assert receiver.stop() == 0
            time.sleep(0.5)  # as long as a pod takes to come back, at the very least
            receiver.start()
            wait()
            for _ in range(KILLS):
                agent.kill()
                agent.start()
                time.sleep(0.5)
    agent.kill()
    before = len(plane.audit_files())
    wait_until(lambda: len(plane.audit_files()) > before, "a rotation that no agent sees")
    agent.start()
    reader.stop()
    wait_until(lambda: counted() >= reader.done, f"{reader.done} events")
    outboxes = [cluster.outbox, replica.outbox]
    wait_until(lambda: all(one.waiting == 0 for path in outboxes for one in read_ledger(path).sinks), "empty outboxes")
    time.sleep(2.0)  # for what should not come
    logged = sorted(line["auditID"] for line in lines_of(plane.audit_files()) if line["requestURI"] == reader.path)
    stored = sorted(row[3] for row in cluster.stored() if row[2] == f"component:{namespace}/watched")
    assert len(logged) == reader.done
    assert stored == logged
    assert counted() == reader.done
    ledgers = [read_ledger(path) for path in outboxes]
    assert [ledger.balanced() for ledger in ledgers] == [[], []]
    assert [ledger for ledger in ledgers if ledger.new == 0] == [], "both receivers had work"
    assert len(plane.audit_files()) - rotated >= 2, "the apiserver rotated its log meanwhile"
    again = sum(ledger.duplicate for ledger in ledgers)
    print(f"\n{reader.done} requests, {len(stored)} events; {again} were received again and recognised")
