"""Secrets that stand in the audit log in clear are nowhere else: not in what is kept, sent, logged, counted or shown."""

import base64
import json
import time

import pytest

pytestmark = pytest.mark.e2e

PLANTED = "Winter2024-hunter2"  # looks like words: only its place tells that it is a secret
ENCODED = base64.b64encode(PLANTED.encode()).decode()
SECRET = {"kind": "Secret", "metadata": {"name": "db"}, "data": {"password": ENCODED}, "stringData": {"p": PLANTED}}
DEPLOYMENT = {"kind": "Deployment", "spec": {"env": [{"name": "DB_PASSWORD", "value": PLANTED}]}}
APPLIED = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(SECRET)}


def requests() -> list[dict[str, object]]:
    """One request for each place in which a secret stands in an audit log at level RequestResponse."""
    exec_uri = "/api/v1/namespaces/shop/pods/web-0/exec?container=app"
    for word in ("mysql", f"--password={PLANTED}", "-h", "db"):
        exec_uri += f"&command={word}"
    pod = {"resource": "pods", "namespace": "shop", "name": "web-0", "apiVersion": "v1"}
    secret = {"resource": "secrets", "namespace": "shop", "name": "db", "apiVersion": "v1"}
    account = {"resource": "serviceaccounts", "namespace": "shop", "name": "ci", "subresource": "token"}
    deployment = {"resource": "deployments", "namespace": "shop", "name": "web", "apiGroup": "apps"}
    token = {"kind": "TokenRequest", "status": {"token": PLANTED}}
    return [
        {"verb": "get", "requestURI": exec_uri, "objectRef": pod | {"subresource": "exec"}},
        {"verb": "get", "objectRef": secret, "responseObject": SECRET},
        {"verb": "create", "objectRef": secret, "requestObject": SECRET, "responseObject": SECRET},
        {"verb": "patch", "objectRef": secret, "requestObject": {"metadata": {"annotations": APPLIED}}},
        {"verb": "create", "objectRef": account, "responseObject": token},
        {"verb": "patch", "objectRef": deployment, "requestObject": DEPLOYMENT, "responseObject": DEPLOYMENT},
        {"verb": "delete", "objectRef": secret, "userAgent": f"tool --token={PLANTED}"},
    ]


def lines() -> list[bytes]:
    """Each request whole, then cut off, then as the piece that a hole in the file leaves."""
    whole = []
    for number, request in enumerate(requests()):
        fields = {
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": f"audit-{number}",
            "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/shop/things", "verb": "",
            "user": {"username": "mallory", "extra": {"example.com/session": [PLANTED]}}, "sourceIPs": ["10.0.0.9"],
            "userAgent": "kubectl", "objectRef": None, "responseStatus": {"code": 200},
            "requestObject": None, "responseObject": None,
            "requestReceivedTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
            "annotations": {"note": f"password={PLANTED}"},
        }  # fmt: skip
        event = {key: value for key, value in (fields | request).items() if value is not None}
        whole.append(json.dumps(event, separators=(",", ":")).encode())
    marks = (PLANTED.encode(), ENCODED.encode())
    spots = [(line, line.find(mark)) for line in whole for mark in marks if mark in line]
    cut = [line[: at + len(PLANTED) + 3] for line, at in spots]
    pieces = [line[at - back :] for line, at in spots for back in (0, 12, 60)]
    return [*whole, *cut, *pieces]


@pytest.mark.parametrize("door", ["fluent-bit", "file"])
def test_planted_secrets_appear_nowhere(product, until, door):
    """Outbox, backend, their logs at level debug, metrics, and what every command prints."""
    file = {"path": str(product.audit_log), "start": "beginning", "checkpoint": str(product.folder / "position.json")}
    sections = {"sources": {"file": file}} if door == "file" else {}
    rules = [str(product.root / "rules" / name) for name in ("friction.yaml", "extended.yaml")]
    product.configure(detection={"rules": rules}, log={"level": "debug", "format": "json"}, **sections)
    product.start()
    if door == "fluent-bit":
        product.fluent_bit().start()
    planted = lines()
    product.append(planted)
    until(lambda: product.ledger().dead_letters > len(requests()), "the dead letters")
    until(lambda: product.backend_rows() >= len(requests()), "the events")
    product.settled(len(requests()))

    shown = [product.metrics(), product.receiver.output(), product.backend.output()]
    shown += [json.dumps(product.get(path)) for path in ("/api/v1/events?limit=500", "/events?limit=500")]
    for name, *arguments in (
        ("dead-list", "dead", "list", "--output", "ndjson", "--config", "forwarder.yaml"),
        ("dead-show", "dead", "show", "1", "--config", "forwarder.yaml"),
        ("status", "status", "--config", "forwarder.yaml"),
        ("replay", "replay", str(product.audit_log), "--output", "ndjson", "--rules", *rules[:1]),
    ):
        command = product.program(name, *arguments)
        command.start()
        until(lambda command=command: not command.running, name)
        assert command.stop() == 0, command.output()
        shown.append(command.output())
    product.receiver.stop()
    product.backend.stop()
    files = [*product.folder.glob("*.db*"), *product.folder.glob("position.json*")]
    assert len(files) >= 2
    for kept in [*(text.encode() for text in shown), *(file.read_bytes() for file in files)]:
        assert PLANTED.encode() not in kept
        assert ENCODED.encode() not in kept
    assert any("--password" in text for text in shown)  # the command itself stays readable
