"""Frames built before, a sender on loopback, and what the process at the other end used."""

import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import trustme

from forwarder.events.sample import SampleLog
from forwarder.wire.forward_client import AckReader, entry, packed_forward
from tests.ports import free_port

FRAME_LINES = 730  # what a 2 MB chunk of Fluent Bit holds
ROOT = Path(__file__).parents[2]
SETTLE_S = 0.5  # the start-up report and the first look at the backend are no part of a line's cost

# The same receiver without its fast path.
REFERENCE = """
from forwarder.cli import main
from forwarder.detection.screen import Screen
Screen.candidates = lambda self, buffer, spans: range(len(spans))
Screen.__call__ = Screen.request = lambda self, *line: True
main()
"""


class Load(msgspec.Struct, frozen=True):
    """One case. rules: how many are loaded beside the five of friction.yaml. lines: canonical; `sorted` keys, which are not; or `hostile`:
    a person's requests, each for a namespace that nobody has heard of. reference: decode every line, screen none.
    """

    name: str
    connections: int = 16
    compress: str = ""
    parsed: bool = False
    tls: bool = False
    rules: int = 15
    lines: str = "canonical"
    friction_share: float = 0.0
    reference: bool = False
    workers: int = 1


HOSTILE = (
    b'{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"6a2becae-d9e6-43e4-879b-179b8f413699",'
    b'"stage":"ResponseComplete","requestURI":"/api/v1/namespaces/n%d/pods/x","verb":"get","user":{"username":"alice",'
    b'"groups":["dev","system:authenticated"]},"sourceIPs":["10.0.0.7"],"userAgent":"kubectl/v1.31.0 (linux/amd64)",'
    b'"objectRef":{"resource":"pods","namespace":"n%d","name":"x","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":403},'
    b'"requestReceivedTimestamp":"2026-03-02T10:15:01.000000Z","stageTimestamp":"2026-03-02T10:15:01.000000Z",'
    b'"annotations":{"authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":""}}'
)
HIT_SHARE = 0.0075  # of requests; counted in the outbox, 1.0 % of the lines then are events (and 1.7 % are candidates)


class Frames(msgspec.Struct, frozen=True):
    frames: list[bytes]
    lines: int
    mean_bytes: float


class Cost(msgspec.Struct, frozen=True):
    us_per_event: float
    peak_mib: float


def build(case: Load, count: int) -> Frames:
    """`count` different lines, as the frames that Fluent Bit 5.1 would send."""
    log = SampleLog(5, start_time=time.time() - 3600, friction_share=case.friction_share)
    lines = list(log.lines(count))
    if case.lines == "sorted":
        lines = [json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")).encode() for line in lines]
    elif case.lines == "hostile":
        lines = [HOSTILE % (number, number) for number in range(count)]
    frames = []
    for position in range(0, count, FRAME_LINES):
        some = lines[position : position + FRAME_LINES]
        packed = [entry(json.loads(line), time.time()) for line in some] if case.parsed else list(map(_entry, some))
        frames.append(packed_forward(b"audit", packed, chunk=b"%024d" % position, compress=case.compress))  # type: ignore[arg-type]
    return Frames(frames, count, sum(map(len, lines)) / count)


def _entry(line: bytes) -> bytes:
    """Byte for byte what Fluent Bit 5.1 makes of a line (tests/golden/forward.hex): the longest forms of its maps."""
    head = b"\x92\x92\xd7\x00" + struct.pack(">II", int(time.time()), 1) + b"\xdf\0\0\0\0\xdf\0\0\0\1\xa3log"
    return head + msgpack.packb(line.decode())


def send(frames: Frames, port: int, connections: int, context: ssl.SSLContext | None = None) -> None:
    """Every frame once, spread over the connections; each waits for its acknowledgement before its next frame."""

    def client(mine: list[bytes]) -> None:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            sock = context.wrap_socket(raw, server_hostname="localhost") if context else raw
            acks = AckReader()
            for frame in mine:
                sock.sendall(frame)
                while acks.next_ack() is None:
                    data = sock.recv(4096)
                    if not data:
                        raise ConnectionError("closed without an acknowledgement")
                    acks.receive_data(data)
            sock.close()

    threads = [
        threading.Thread(target=client, args=[frames.frames[number::connections]]) for number in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cpu_s(pid: int) -> float:
    """User and system seconds of all threads, nanosecond resolution."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def settings(case: Load, folder: Path, ports: tuple[int, int]) -> tuple[dict[str, Any], ssl.SSLContext | None]:
    forward: dict[str, Any] = {"listen": f"127.0.0.1:{ports[0]}", "ack_timeout_s": 60, "workers": case.workers}
    context = None
    if case.tls:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(folder / "tls.key")
        certificate.cert_chain_pems[0].write_to_path(folder / "tls.crt")
        forward["tls"] = {"cert_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")}
        context = ssl.create_default_context()
        authority.configure_trust(context)
    rules = ["rules/friction.yaml"]
    if case.rules:
        extra = [
            {
                "name": f"made-up-{number}",
                "description": "x",
                "severity": "low",
                "match": {"resource": f"things{number}", "verb": "create"},
            }
            for number in range(case.rules)
        ]
        (folder / "many.yaml").write_text(json.dumps({"rules": extra}))
        rules.append("many.yaml")
    # the backend is down, as it is when load is highest: what is found stays in the outbox
    document = {
        "sources": {"forward": forward},
        "sinks": {"backend": {"url": "http://127.0.0.1:9", "required": False}},
        "detection": {"rules": rules},
        "outbox": {"path": "outbox.db"},
        "telemetry": {"listen": f"127.0.0.1:{ports[1]}"},
        "log": {"level": "error"},
    }
    return document, context


def receiver_cost(case: Load, frames: Frames, folder: Path) -> Cost:
    """A fresh `forwarder receive`, fed once."""
    folder.mkdir()
    ports = free_port(), free_port()
    document, context = settings(case, folder, ports)
    (folder / "forwarder.yaml").write_text(json.dumps(document))
    start = ["-c", REFERENCE] if case.reference else ["-m", "forwarder"]
    command = [sys.executable, *start, "receive", "--config", str(folder / "forwarder.yaml")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    try:
        wait_ready(ports[1])
        time.sleep(SETTLE_S)
        warm = Frames(frames.frames[:2], 0, 0)
        send(warm, ports[0], 1, context)
        family = [process.pid, *children(process.pid)]
        before = sum(map(cpu_s, family))
        send(frames, ports[0], case.connections, context)
        used = sum(map(cpu_s, family)) - before
        return Cost(used / frames.lines * 1e6, sum(map(peak_mib, family)))
    finally:
        process.terminate()
        process.wait()


def wait_ready(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


FLOOR = """
import asyncio, sys
class Discard(asyncio.BufferedProtocol):
    def connection_made(self, transport):
        self.transport, self.buffer, self.seen, self.frames = transport, bytearray(524288), 0, iter(())
    def get_buffer(self, hint):
        return self.buffer
    def buffer_updated(self, size):
        self.seen += size
async def main():
    server = await asyncio.get_running_loop().create_server(Discard, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


def floor_cost(frames: Frames) -> Cost:
    """The same bytes into a server that reads and forgets them: no receiver on asyncio can cost less."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", FLOOR, str(port)])
    try:
        end = time.monotonic() + 10
        while True:
            try:
                sock = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        with sock:
            before = cpu_s(process.pid)
            for frame in frames.frames:
                sock.sendall(frame)
            time.sleep(0.2)
            used = cpu_s(process.pid) - before
        return Cost(used / frames.lines * 1e6, peak_mib(process.pid))
    finally:
        process.terminate()
        process.wait()
