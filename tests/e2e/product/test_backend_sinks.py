"""Sinks that hang off the backend: two receivers deliver the same events, and each is told once."""

import json
import time
from collections import Counter

import pytest
import requests

from forwarder.outbox import read_ledger
from tests.ports import free_port

pytestmark = pytest.mark.e2e

KILLS = 4


@pytest.fixture
def both(product):
    """The backend with a sink on its standard output, and two receivers that each read the whole log."""
    product.telemetry = free_port()
    settings = {
        "backend": {"listen": f"127.0.0.1:{product.ports['backend']}", "database": "backend.db"},
        "sinks": {"told": {"type": "stdout"}},
        "telemetry": {"listen": f"127.0.0.1:{product.telemetry}"},
    }
    (product.folder / "backend.yaml").write_text(json.dumps(settings))
    product.backend = product.program("backend", "backend", "--config", "backend.yaml")
    product.backend.out = product.folder / "told"
    source = {"type": "file", "path": str(product.audit_log), "start": "beginning"}
    product.configure(sources={"log": source | {"checkpoint": "1.json"}})
    settings = json.loads((product.folder / "forwarder.yaml").read_text())
    settings |= {"outbox": {"path": "outbox-2.db"}, "telemetry": {"listen": f"127.0.0.1:{free_port()}"}}
    settings["sources"] = {"log": source | {"checkpoint": "2.json"}}
    (product.folder / "forwarder-2.yaml").write_text(json.dumps(settings))
    product.audit_log.touch()
    second = product.program("receive-2", "receive", "--config", "forwarder-2.yaml")
    yield product, second
    if second.running:
        second.stop()


def told(product):
    """By id: how often; of whole lines, because a kill may cut one."""
    found = Counter()
    for line in (product.folder / "told").read_bytes().split(b"\n")[:-1]:
        try:
            found[json.loads(line)["id"]] += 1
        except (ValueError, KeyError):
            continue
    return found


def settled(product, second, until, expected):
    product.settled(expected)
    outboxes = (product.folder / "outbox-2.db", product.folder / "onward.db")
    until(lambda: all(sink.waiting == 0 for path in outboxes for sink in read_ledger(path).sinks), "empty outboxes")
    assert [read_ledger(path).balanced() for path in outboxes] == [[], []]


def test_each_event_is_told_once_whoever_delivers_it(both, sample, rows_of, until):
    """Not twice for two receivers, nor for the end of a session; after a restart of the backend nothing is repeated."""
    product, second = both
    product.start()
    second.start()
    lines = list(sample.lines(8000))
    expected = len(rows_of(sample))
    product.append(lines[:4000])
    until(lambda: told(product), "the first events")
    assert product.backend.stop() == 0
    product.append(lines[4000:])
    product.backend.start()
    settled(product, second, until, expected)
    assert set(told(product).values()) == {1}
    assert len(told(product)) == expected
    assert requests.get(f"http://127.0.0.1:{product.telemetry}/readyz", timeout=5).status_code == 200
    metrics = requests.get(f"http://127.0.0.1:{product.telemetry}/metrics", timeout=5).text
    assert f'forwarder_sink_delivered{{sink="told"}} {expected}.0' in metrics
    assert 'forwarder_onward_skipped_total{reason="known"}' in metrics
    for command, words in (("status", "balances"), ("drain", "nothing waits"), ("dead", "no dead letters")):
        arguments = (command, "list") if command == "dead" else (command,)
        asked = product.program(command, *arguments, "--config", "backend.yaml")
        asked.start()
        until(lambda asked=asked: not asked.running, command)
        assert words in asked.output()
        asked.stop()


def test_a_killed_backend_forgets_nobody(both, sample, rows_of, until):
    """kill -9 in the midst of deliveries: every event is told; what was on its way to the sink then, perhaps again."""
    product, second = both
    product.start()
    second.start()
    lines = list(sample.lines(12_000))
    expected = len(rows_of(sample))
    for part in range(KILLS):
        before = len(told(product))
        product.append(lines[part * 3000 : part * 3000 + 3000])
        until(lambda before=before: len(told(product)) > before, "some of them")
        product.backend.kill()
        time.sleep(0.2)
        product.backend.start()
    product.wait_backend()
    settled(product, second, until, expected)
    counts = told(product)
    stored = {row["id"] for row in product.get("/api/v1/events?limit=1000")}
    assert stored <= counts.keys()
    assert read_ledger(product.folder / "onward.db").new == expected
    lost = expected - len(counts)
    assert lost <= KILLS, "a line that a kill cut short counts as written, one a kill at most"
    assert sum(counts.values()) - len(counts) <= KILLS * 500  # at most the batch of each kill


def test_a_backend_without_sinks_is_watched_too(product, until):
    """Its port answers with the token alone, counts what is sent, opens no outbox, and ends with the backend."""
    port = free_port()
    settings = {
        "backend": {"listen": f"127.0.0.1:{product.ports['backend']}", "database": "backend.db"},
        "telemetry": {"listen": f"127.0.0.1:{port}", "token": "t0ken"},
    }
    (product.folder / "backend.yaml").write_text(json.dumps(settings))
    product.backend = product.program("backend", "backend", "--config", "backend.yaml")
    product.backend.start()
    product.wait_backend()
    event = {"entity_ref": "component:shop/web", "type": "kubectl-exec", "severity": "high", "id": "a"}
    for _ in range(2):
        requests.post(f"http://127.0.0.1:{product.ports['backend']}/events", json=[event], timeout=5).raise_for_status()
    assert requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).status_code == 401
    found = requests.get(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": "Bearer t0ken"}, timeout=5).text
    assert 'forwarder_backend_events_total{result="recorded"} 1.0' in found
    assert 'forwarder_backend_events_total{result="duplicate"} 1.0' in found
    until(lambda: f"metrics on http://127.0.0.1:{port}" in product.backend.output(), "the line that says where")
    assert not (product.folder / "onward.db").exists()
    assert product.backend.stop() == 0
