"""The Forward sink against real servers: Fluent Bit's in_forward, and our own source; TLS, keys, acks, outages, kills."""

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from forwarder.errors import ForwardProtocolError
from forwarder.outbox import read_ledger
from forwarder.settings import Address
from forwarder.wire.deadline import Overdue
from forwarder.wire.forward_sender import ForwardSender
from tests.e2e.product.conftest import Program, wait_until
from tests.e2e.sinks.conftest import Receiver, exec_line, ledger_of
from tests.e2e.test_backend_sink import hang, peer
from tests.ports import free_port

pytestmark = pytest.mark.e2e

KEY = "k3y-of-the-e2e-test"


class Collector:
    """Fluent Bit with in_forward, writing each record to a file as a line of JSON; may be killed and started again."""

    def __init__(self, program: str, folder: Path, **properties: str) -> None:
        self.port = free_port()
        self.out = folder / "collected"
        settings = {"listen": "127.0.0.1", "port": str(self.port), **properties}
        lines = "".join(f"      {name}: {value}\n" for name, value in settings.items())
        (folder / "collector.yaml").write_text(
            f"service: {{flush: 0.2, log_level: info, grace: 1}}\npipeline:\n  inputs:\n    - name: forward\n{lines}"
            f"  outputs:\n    - {{name: file, match: '*', path: {folder}, file: collected, format: plain}}\n"
        )
        self.process = Program("collector", [program, "-c", str(folder / "collector.yaml")], folder, {})

    def ids(self) -> set[str]:
        """Of the friction events in its file."""
        lines = self.out.read_bytes().split(b"\n")[:-1] if self.out.exists() else []
        return {json.loads(json.loads(line)["log"])["id"] for line in lines if line.startswith(b"{")}


@pytest.fixture
def fluent_bit(tmp_path: Path) -> Iterator[Any]:
    program = os.environ.get("FLUENT_BIT") or shutil.which("fluent-bit")
    if program is None:
        pytest.skip("no fluent-bit on PATH or in FLUENT_BIT: install Fluent Bit 5")
    started: list[Collector] = []

    def start(**properties: str) -> Collector:
        started.append(Collector(program, tmp_path, **properties))
        started[-1].process.start()
        return started[-1]

    yield start
    for one in started:
        one.process.kill()


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    issued.cert_chain_pems[0].write_to_path(paths["cert"])
    issued.private_key_pem.write_to_path(paths["key"])
    return paths


def test_fluent_bit_takes_friction_over_tls_with_a_key_and_acknowledges(
    receiver: Receiver, fluent_bit, certificates
) -> None:
    """It is down at first, killed in the middle, and has every event in the end."""
    secure = {"tls": "on", "tls.crt_file": certificates["cert"], "tls.key_file": certificates["key"],
              "shared_key": KEY, "self_hostname": "localhost"}  # fmt: skip
    collector = fluent_bit(**secure)
    collector.process.kill()
    receiver.configure(
        {
            "collector": {
                "type": "forward",
                "address": f"localhost:{collector.port}",
                "tag": "kube.friction",
                "shared_key": KEY,
                "tls": {"ca_file": certificates["ca"]},
                "timeout_s": 3,
            }
        }
    )
    receiver.start()
    receiver.write([exec_line(number) for number in range(50)])
    wait_until(lambda: "puts events off" in receiver.program.output(), "the outage to be told")
    collector.process.start()
    receiver.settled(50)
    wait_until(
        lambda: len(collector.ids()) == 50, "the first 50 in its file"
    )  # it acknowledges what it holds in memory
    collector.process.kill()
    receiver.write([exec_line(number) for number in range(50, 80)])
    time.sleep(0.5)
    receiver.kill()
    collector.process.start()
    receiver.start()
    ledger = receiver.settled(80)
    wait_until(lambda: len(collector.ids()) == 80, "all of them")
    assert (ledger.sinks[0].delivered, ledger.sinks[0].dead) == (80, 0)
    assert KEY not in receiver.program.output()


def test_a_wrong_key_and_a_strange_certificate_are_told(receiver: Receiver, fluent_bit, certificates) -> None:
    """In words that name the cause; nothing is lost."""
    collector = fluent_bit(
        **{"tls": "on", "tls.crt_file": certificates["cert"], "tls.key_file": certificates["key"], "shared_key": KEY,
           "self_hostname": "localhost"}
    )  # fmt: skip
    wait_until(lambda: "listening" in collector.process.output(), "fluent-bit to listen")
    base = {"type": "forward", "address": f"localhost:{collector.port}", "timeout_s": 3}
    receiver.configure(
        {
            "wrong-key": {**base, "shared_key": "wr0ng", "tls": {"ca_file": certificates["ca"]}},
            "wrong-authority": {**base, "shared_key": KEY, "tls": {}},
        }
    )
    receiver.start()
    receiver.write([exec_line(1)])
    wait_until(lambda: receiver.program.output().count("puts events off") == 2, "both to be told")
    said = receiver.program.output()
    assert "certificate is not trusted" in said
    assert [line for line in said.splitlines() if "wrong-key puts events off" in line and "localhost" in line]
    assert "wr0ng" not in said
    assert [sink.waiting for sink in receiver.ledger.sinks] == [1, 1]


def test_audit_events_reach_another_receiver_whatever_is_killed(receiver: Receiver, tmp_path: Path) -> None:
    """Ours to ours: `block` keeps the checkpoint until the next one has it, and there each event counts once."""
    folder = tmp_path / "second"
    folder.mkdir()
    port = free_port()
    (folder / "f.yaml").write_text(
        json.dumps(
            {
                "sources": {"forward": {"listen": f"127.0.0.1:{port}", "shared_key": KEY}},
                "sinks": {"copy": {"type": "file", "path": "friction.jsonl"}},
                "outbox": {"path": "outbox.db"},
                "telemetry": {"listen": ""},
            }
        )
    )
    second = Program("second", [sys.executable, "-m", "forwarder", "receive", "-c", "f.yaml"], folder, {})
    receiver.configure(
        {
            "next": {"type": "forward", "stream": "audit", "address": f"127.0.0.1:{port}", "shared_key": KEY,
                     "compress": "gzip", "when_down": "block", "batch_events": 50, "timeout_s": 3}
        },
        detection={"rules": []},
    )  # fmt: skip
    try:
        receiver.start()
        second.start()
        for step in range(6):
            receiver.write([exec_line(step * 200 + number) for number in range(200)])
            time.sleep(0.4)
            if step == 2:
                second.kill()
                time.sleep(0.3)
                second.start()
            if step == 4:
                receiver.kill()
                receiver.start()

        def all_there() -> bool:
            ledger = ledger_of(folder)
            return ledger is not None and ledger.new == 1200

        wait_until(all_there, "1200 events at the second receiver")
        wait_until(lambda: len((folder / "friction.jsonl").read_bytes().splitlines()) >= 1200, "them in its file")
    finally:
        second.stop(signal.SIGTERM)
    ids = Counter(json.loads(line)["id"] for line in (folder / "friction.jsonl").read_bytes().splitlines())
    assert len(ids) == 1200
    assert read_ledger(folder / "outbox.db").balanced() == []


# --- the connection --------------------------------------------------------------------------------------------------


def test_a_server_that_never_acknowledges_is_given_up_in_time() -> None:
    """The next call is free to go, on a connection of its own."""
    with peer(hang) as (port, connections):
        sender = ForwardSender(Address(host="127.0.0.1", port=port))
        for calls in (1, 2):
            began = time.monotonic()
            with pytest.raises((Overdue, OSError)):
                sender.send(b"\x90", chunk=b"x", deadline_s=0.4)
            assert time.monotonic() - began < 2
            assert len(connections) == calls


def test_an_acknowledgement_for_something_else_is_none() -> None:
    """Nor is the end of the connection."""

    def wrong(connection) -> None:
        connection.recv(100)
        connection.sendall(b"\x81\xa3ack\xa1y")

    def close(connection) -> None:
        connection.recv(100)

    for behave, words in ((wrong, "for something else"), (close, "closed the connection")):
        with peer(behave) as (port, _):
            sender = ForwardSender(Address(host="127.0.0.1", port=port))
            with pytest.raises(ForwardProtocolError, match=words):
                sender.send(b"\x90", chunk=b"x", deadline_s=5.0)
