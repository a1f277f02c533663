"""The whole product under everything that goes wrong: the backend ends with exactly the expected events."""

import json
import time
from pathlib import Path

import pytest
import trustme

pytestmark = pytest.mark.e2e


def settled_exactly(product, sample, rows_of) -> None:
    expected = rows_of(sample)
    product.settled(len(expected))
    assert sorted(product.stored()) == expected
    ledger = product.ledger()
    assert ledger.balanced() == []
    assert ledger.new == len(expected)


def test_100_000_lines_through_rotations_and_kills(product, sample, rows_of, until):
    """Rotation while running; Fluent Bit killed, the log rotated twice meanwhile, and restarted; the receiver killed -9 and
    restarted; the backend down and back."""
    product.start()
    agent = product.fluent_bit()
    agent.start()
    lines = sample.lines(101_000)
    for step in range(40):
        product.append([next(lines) for _ in range(2500)])
        if step % 6 == 4:
            product.rotate()
            until(product.audit_log.exists, "the new log")
        if step in (8, 24):
            agent.kill()
            product.rotate()  # so a file ends that the agent has not read to its end, or not at all
            product.append([next(lines) for _ in range(500)])
            product.rotate()
            time.sleep(0.3)
            agent.start()
        if step in (12, 28, 33):
            product.receiver.kill()
            time.sleep(0.5)
            product.receiver.start()
        if step == 16:
            product.backend.stop()
        if step == 22:
            product.backend.start()
        time.sleep(0.15)
    product.wait_receiver()
    settled_exactly(product, sample, rows_of)
    status = product.program("status", "status", "--config", "forwarder.yaml")
    status.start()
    until(lambda: not status.running, "forwarder status")
    assert status.stop() == 0, status.output()


def test_the_lines_ledger_balances(product, sample, rows_of, until):
    """Lines received = unmatched + matched + rejected, and none is missing."""
    product.start()
    product.fluent_bit().start()
    lines = list(sample.lines(20_000))
    product.append([*lines[:100], b"this is no audit event", *lines[100:]])

    def values() -> dict[str, float]:
        found: dict[str, float] = {}
        for line in product.metrics().splitlines():
            for name in ("received", "unmatched", "matched", "rejected"):
                if line.startswith(f"forwarder_lines_{name}_total"):
                    found[name] = found.get(name, 0) + float(line.rsplit(" ", 1)[1])
        return found

    until(lambda: values().get("received", 0) >= 20_001, "all lines")
    settled_exactly(product, sample, rows_of)
    seen = values()
    assert seen["received"] == 20_001
    assert seen["received"] == seen["unmatched"] + seen["matched"] + seen["rejected"]
    assert seen["rejected"] == 1
    assert product.ledger().dead_letters == 1


def certificates(folder: Path) -> dict[str, str]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    server = authority.issue_cert("receiver.test")
    server.private_key_pem.write_to_path(folder / "tls.key")
    for position, pem in enumerate(server.cert_chain_pems):
        pem.write_to_path(folder / "tls.crt", append=position > 0)
    return {"cert_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")}


def agent_config(product, **output) -> Path:
    """A Fluent Bit configuration written here: one tail, one forward output with the given settings."""
    parsers = output.pop("parsers", None)
    tail = output.pop("tail", {})
    config = {
        "service": {"flush": 0.2, "log_level": "warning", "storage.path": str(product.folder / "storage"), "scheduler.base": 1, "scheduler.cap": 2},
        "pipeline": {
            "inputs": [
                {"name": "tail", "tag": "audit", "path": str(product.audit_log), "db": str(product.folder / "tail.db"), "read_from_head": True,
                 "refresh_interval": 1, "rotate_wait": 3600, "buffer_chunk_size": "256k", "buffer_max_size": 9_000_000,
                 "truncate_long_lines": True, "storage.type": "filesystem", **tail},
            ],
            "outputs": [
                {"name": "forward", "match": "*", "host": "127.0.0.1", "port": product.ports["forward"], "require_ack_response": True,
                 "retry_limit": "no_limits", "net.io_timeout": "5s", **output},
            ],
        },
    }  # fmt: skip
    if parsers:
        config["parsers"] = parsers
    path = product.folder / "agent.yaml"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("form", ["raw", "gzip", "parser", "plain-entries", "tls-and-shared-key", "ha-upstream"])
def test_every_form_of_fluent_bit(product, sample, rows_of, form):
    """Each gives exactly the same events."""
    settings, forward = {}, {}
    if form == "gzip":
        settings = {"compress": "gzip"}
    elif form == "parser":
        settings = {"tail": {"parser": "audit"}, "parsers": [{"name": "audit", "format": "json"}]}
    elif form == "plain-entries":
        settings = {"retain_metadata_in_forward_mode": False, "time_as_integer": True}
    elif form == "tls-and-shared-key":
        forward = {
            "shared_key": "0123456789abcdef",
            "users": {"node": "correct horse"},
            "tls": certificates(product.folder),
        }
        settings = {
            "tls": True, "tls.verify": True, "tls.verify_hostname": True, "tls.vhost": "receiver.test", "tls.ca_file": str(product.folder / "ca.crt"),
            "shared_key": "0123456789abcdef", "username": "node", "password": "correct horse", "self_hostname": "node-1",
        }  # fmt: skip
    elif form == "ha-upstream":
        upstream = product.folder / "upstream.conf"
        upstream.write_text(
            f"[UPSTREAM]\n    name pair\n\n[NODE]\n    name one\n    host 127.0.0.1\n    port {product.ports['forward']}\n    require_ack_response true\n\n"
            f"[NODE]\n    name two\n    host 127.0.0.1\n    port {product.ports['forward']}\n    require_ack_response true\n"
        )
        settings = {"upstream": str(upstream)}
    product.configure(forward)
    product.start()
    product.append(list(sample.lines(8000)))
    product.fluent_bit(agent_config(product, **settings)).start()
    settled_exactly(product, sample, rows_of)


def pod_by_hand(name: str, size: int) -> bytes:
    """A line of about `size` bytes: mallory makes a pod with a big annotation."""
    line = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": f"11111111-2222-4333-8444-{name:0>12}",
        "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/shop/pods", "verb": "create", "user": {"username": "mallory"},
        "sourceIPs": ["10.0.0.9"], "userAgent": "kubectl", "objectRef": {"resource": "pods", "namespace": "shop", "name": name, "apiVersion": "v1"},
        "responseStatus": {"code": 201}, "requestObject": {"metadata": {"name": name, "annotations": {"blob": "x" * size}}},
        "requestReceivedTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
    }  # fmt: skip
    return json.dumps(line, separators=(",", ":")).encode()


def test_long_lines_arrive_whole_up_to_8_mib_and_beyond_as_their_head(product, sample, rows_of):
    """600 kB, 2 MB and 8 MiB are whole; of 10 MB who, what and where are kept; and what follows is read."""
    product.start()
    before, after = list(sample.lines(2000)), list(sample.lines(2000))
    sizes = {"aa": 600_000, "bb": 2_000_000, "cc": (8 << 20) - 1000, "dd": 10_000_000}
    product.append([*before, *(pod_by_hand(name, size) for name, size in sizes.items()), *after])
    product.fluent_bit().start()
    mallory = [
        ("config-drift", "mallory", f"component:shop/{name}", f"11111111-2222-4333-8444-{name:0>12}", 1)
        for name in sizes
    ]
    expected = sorted([*rows_of(sample), *mallory])
    product.settled(len(expected))
    assert sorted(product.stored()) == expected
    partial = {
        event["name"]: event.get("partial", False)
        for event in product.get("/api/v1/events?limit=500")
        if event["actor"] == "mallory"
    }
    assert partial == {"aa": False, "bb": False, "cc": False, "dd": True}


def test_a_first_start_on_an_old_log_with_the_file_source(product, sample, rows_of):
    """No Fluent Bit needed: rotated and live files, receiver killed -9 in the middle."""
    product.configure(
        sources={
            "file": {
                "path": str(product.audit_log),
                "start": "beginning",
                "checkpoint": str(product.folder / "position.json"),
            }
        }
    )
    product.start()
    lines = sample.lines(40_000)
    for step in range(16):
        product.append([next(lines) for _ in range(2500)])
        if step in (3, 7, 11):
            product.rotate()
        if step in (5, 10):
            product.receiver.kill()
            product.receiver.start()
        time.sleep(0.2)
    product.wait_receiver()
    settled_exactly(product, sample, rows_of)


def test_an_update_completes_the_row_of_an_open_session(product, until):
    """A shell is reported while it is open, then completed in the same row with its duration."""
    product.start()
    product.fluent_bit().start()
    base = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
        "requestURI": "/api/v1/namespaces/shop/pods/web-0/exec?command=sh&container=app&tty=true", "verb": "get", "user": {"username": "alice"},
        "sourceIPs": ["10.0.0.9"], "userAgent": "kubectl", "objectRef": {"resource": "pods", "namespace": "shop", "name": "web-0", "apiVersion": "v1", "subresource": "exec"},
        "responseStatus": {"code": 101}, "requestReceivedTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
    }  # fmt: skip
    product.append([json.dumps(base | {"stage": "ResponseStarted"}).encode()])
    until(lambda: [row[4] for row in product.stored()] == [0], "the open session")
    ended = base | {
        "stage": "ResponseComplete",
        "stageTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.900000Z", time.gmtime()),
    }
    product.append([json.dumps(ended).encode()])
    until(lambda: [row[4] for row in product.stored()] == [1], "its end")
    assert product.get("/friction/component%3Ashop%2Fweb")["frictionScore"]["bypassCount"] == 1


def test_a_receiver_killed_at_any_instant_loses_nothing(product, sample, rows_of):
    """Killed every half second while the log streams in."""
    product.start()
    product.fluent_bit().start()
    lines = sample.lines(30_000)
    for _ in range(12):
        product.append([next(lines) for _ in range(2500)])
        time.sleep(0.5)
        product.receiver.kill()
        product.receiver.start()
    product.wait_receiver()
    settled_exactly(product, sample, rows_of)
