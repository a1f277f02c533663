"""Frames built before, a sender on loopback, and what the process at the other end used."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import trustme

from forwarder.events.sample import SampleLog
from forwarder.wire.forward_client import AckReader, entries, entry, packed_forward
from tests.ports import free_port

FRAME_LINES = 730  # what a 2 MB chunk of Fluent Bit holds
ROOT = Path(__file__).parents[2]


class Load(msgspec.Struct, frozen=True):
    """One case. rules: how many are loaded; 0 is the shipped friction.yaml."""

    name: str
    connections: int = 1
    compress: str = ""
    parsed: bool = False
    tls: bool = False
    rules: int = 0
    friction_share: float = 0.005  # of requests; about 1 % of the lines then are events, as sessions have two


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
    frames = []
    for position in range(0, count, FRAME_LINES):
        some = lines[position : position + FRAME_LINES]
        packed = [entry(json.loads(line), time.time()) for line in some] if case.parsed else entries(some, time.time())
        frames.append(packed_forward(b"audit", packed, chunk=b"%024d" % position, compress=case.compress))  # type: ignore[arg-type]
    return Frames(frames, count, sum(map(len, lines)) / count)


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


def settings(case: Load, folder: Path, ports: tuple[int, int]) -> tuple[dict[str, Any], ssl.SSLContext | None]:
    forward: dict[str, Any] = {"listen": f"127.0.0.1:{ports[0]}", "ack_timeout_s": 60}
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
    command = [sys.executable, "-m", "forwarder", "receive", "--config", str(folder / "forwarder.yaml")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    try:
        wait_ready(ports[1])
        warm = Frames(frames.frames[:2], 0, 0)
        send(warm, ports[0], 1, context)
        before = cpu_s(process.pid)
        send(frames, ports[0], case.connections, context)
        return Cost((cpu_s(process.pid) - before) / frames.lines * 1e6, peak_mib(process.pid))
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


def floor_us(frames: Frames) -> Cost:
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
