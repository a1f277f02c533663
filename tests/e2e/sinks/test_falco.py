"""The audit stream to a k8saudit endpoint: outages, kills, a flaky proxy; a dead Falco stops nothing."""

import json
import signal
import urllib.request
from collections import Counter
from typing import Any

import pytest

from tests.e2e.product.conftest import wait_until
from tests.e2e.sinks.conftest import Answer, Receiver, Recorder, exec_line, serving
from tests.ports import free_port

pytestmark = pytest.mark.e2e


def k8saudit(path: str, body: Any, headers: Any) -> Answer:
    """Its rules: the path, JSON, at most 12 MiB."""
    good = (
        path == "/k8s-audit"
        and "application/json" in headers["Content-Type"]
        and int(headers["Content-Length"]) <= 12 << 20
    )
    return (200, b"", {}) if good and body["kind"] == "EventList" else (400, b"bad request", {})


def falco(port: int, **more: Any) -> dict[str, Any]:
    return {"falco": {"url": f"http://127.0.0.1:{port}/k8s-audit", "retry_increment_s": 0.2, "timeout_s": 2, **more}}


def posted(server: Recorder) -> Counter[str]:
    return Counter(item["auditID"] for body in server.taken for item in body["items"])


def scraped(receiver: Receiver) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{receiver.telemetry_port}/metrics", timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def test_waiting_for_falco_loses_nothing_through_outages_and_kills(receiver: Receiver, flaky_proxy) -> None:
    """`when_down: block` behind an nginx that fails half of the posts, and a kill."""
    with serving(Recorder(k8saudit)) as server:
        receiver.configure(falco(flaky_proxy(server.port), when_down="block", batch_events=20), detection={"rules": []})
        receiver.start()
        receiver.write([exec_line(number) for number in range(300)])
        wait_until(lambda: len(posted(server)) >= 60, "some of them")
        receiver.kill()
        receiver.write([exec_line(number) for number in range(300, 400)])
        receiver.start()
        wait_until(lambda: len(posted(server)) == 400, "all of them")
        assert receiver.program.stop(signal.SIGTERM) == 0


def test_a_dead_falco_stops_nothing(receiver: Receiver) -> None:
    """Friction goes on; of the stream the oldest are dropped, counted and said; the rest arrives when it is back."""
    port = free_port()
    receiver.configure({**falco(port, queue_events=100), "copy": {"type": "file", "path": "friction.jsonl"}})
    receiver.start()
    receiver.write([exec_line(number) for number in range(500)])
    receiver.settled(500)
    wait_until(lambda: "audit events were dropped" in receiver.program.output(), "the loss to be said")
    with serving(Recorder(k8saudit, port)) as server:
        wait_until(lambda: len(posted(server)) >= 100, "what the queue held")
        metrics = scraped(receiver)
        delivered = metrics['forwarder_stream_events_total{result="delivered",sink="falco"}']
        dropped = metrics['forwarder_stream_events_total{result="dropped",sink="falco"}']
        assert delivered + dropped == 500
        assert metrics["falco_aks_audit_log_events_success"] == delivered
        assert metrics["falco_aks_audit_log_events_retry"] > 0
    assert len((receiver.folder / "friction.jsonl").read_text().splitlines()) == 500


def test_planted_secrets_reach_neither_falco_nor_anything_else(receiver: Receiver) -> None:
    """Bodies, commands, tokens, headers: not in sinks, logs, dead letters or the database."""
    planted = [
        "PlantedDataAAAA",
        "PlantedConfigBBBB",
        "PlantedEnvCCCC",
        "PlantedArgDDDD",
        "PlantedTokenEEEE",
        "PlantedAppliedFFFF",
    ]
    data, config, env, arg, token, applied = planted
    applied_object = json.dumps({"data": {"p": applied}})
    lines = [
        exec_line(1, stage="ResponseComplete", requestURI=f"/api/v1/namespaces/shop/pods/p/exec?command=mysql&command=-p{arg}"),
        audit(2, "secrets", {"kind": "Secret", "data": {"p": data}, "stringData": {"q": data}}),
        audit(3, "configmaps", {"kind": "ConfigMap", "data": {"p": config}}),
        audit(4, "deployments", {"kind": "Deployment", "metadata": {"annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": applied_object}},
            "spec": {"containers": [{"env": [{"name": "DB_PASSWORD", "value": env}], "args": [f"--password={arg}"]}]}}),
        audit(5, "serviceaccounts", {"kind": "TokenRequest", "status": {"token": token}}),
        b'{"kind":"Event","auditID":"cut","requestObject":{"data":{"p":"' + data.encode() + b"\n",
    ]  # fmt: skip
    with serving(Recorder(k8saudit)) as server:
        receiver.configure(
            {
                **falco(server.port, when_down="block"),
                "copy": {"type": "file", "path": "audit.jsonl", "stream": "audit", "when_down": "block"},
                "friction": {"type": "file", "path": "friction.jsonl"},
                "chat": {"type": "notify", "url": f"json://127.0.0.1:{server.port}/chat", "stream": "audit"},
            },
            log={"level": "debug"},
        )
        receiver.start()
        receiver.write(lines)
        wait_until(lambda: sum("items" in (body or {}) for body in server.taken), "Falco's events")
        wait_until(lambda: server.asked >= 2, "the chat to be asked")
        receiver.stop()
        everything = json.dumps(server.taken) + receiver.program.output()
    for path in receiver.folder.rglob("*"):
        if path.is_file() and path.name not in ("audit.log", "f.yaml"):
            everything += path.read_bytes().decode("utf-8", "replace")
    assert "audit.k8s.io" in everything
    assert [secret for secret in planted if secret in everything] == []


def audit(number: int, resource: str, body: Any) -> bytes:
    return exec_line(number, stage="ResponseComplete", level="RequestResponse", verb="create", requestURI="/apis/x",
                     objectRef={"resource": resource, "namespace": "shop", "name": "x"}, requestObject=body,
                     responseObject=body)  # fmt: skip
