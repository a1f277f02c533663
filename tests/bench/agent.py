"""How fast a real Fluent Bit drains a log: into a server that discards and acknowledges, and into the receiver."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import msgspec

from forwarder.events.sample import SampleLog
from tests.bench.load import ROOT, Load, settings, wait_ready
from tests.ports import free_port

DEADLINE_S = 300.0


class Pair(msgspec.Struct, frozen=True):
    """events/s of the same Fluent Bit, one after the other."""

    discard_rate: float
    receiver_rate: float

    @property
    def ratio(self) -> float:
        return self.receiver_rate / self.discard_rate


def drain_rate(program: str, folder: Path, count: int) -> Pair:
    """The same log twice, once into each server, by a fresh agent with the shipped laptop settings."""
    folder.mkdir()
    log = folder / "audit.log"
    with open(log, "wb") as file:
        file.writelines(
            line + b"\n" for line in SampleLog(9, start_time=time.time() - 3600, friction_share=0.005).lines(count)
        )
    rates = []
    for name, server in (("discard", _discard), ("receiver", _receiver)):
        place = folder / name
        place.mkdir()
        rates.append(_run(program, place, log, count, server))
    return Pair(*rates)


def _run(program, folder, log, count, server) -> float:
    port = free_port()
    stop, seen = server(folder, port)
    environment = {
        "PATH": os.environ["PATH"],
        "AUDIT_LOG_PATH": str(log),
        "FLUENT_BIT_STATE": str(folder),
        "FLUENT_BIT_HTTP_PORT": str(free_port()),
        "FORWARDER_PORT": str(port),
        "FLUENT_BIT_LOG_LEVEL": "error",
    }
    began = time.monotonic()
    agent = subprocess.Popen(
        [program, "-q", "-c", str(ROOT / "fluent-bit" / "laptop.yaml")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        first = None
        while (arrived := seen()) < count:
            if time.monotonic() - began > DEADLINE_S:
                raise TimeoutError(f"{arrived} of {count} lines arrived")
            if arrived and first is None:
                first = time.monotonic()  # the agent's own start does not count
            time.sleep(0.01)
        return count / (time.monotonic() - (first or began))
    finally:
        agent.kill()
        agent.wait()
        stop()


DISCARD = """
import re, socket, struct, sys, threading
import msgpack
port, shown = int(sys.argv[1]), sys.argv[2]
total, lock = 0, threading.Lock()
def serve(connection):
    global total
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=64 << 20)
    while data := connection.recv(1 << 19):
        unpacker.feed(data)
        for tag, blob, options in unpacker:
            connection.sendall(msgpack.packb({"ack": options[b"chunk"].decode()}))
            with lock:
                total += options[b"size"]
                open(shown, "w").write(str(total))
listener = socket.create_server(("127.0.0.1", port))
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
"""


def _discard(folder, port):
    shown = folder / "total"
    process = subprocess.Popen([sys.executable, "-c", DISCARD, str(port), str(shown)])
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)

    def seen() -> int:
        try:
            return int(shown.read_text() or 0)
        except OSError:
            return 0

    def stop() -> None:
        process.kill()
        process.wait()

    return stop, seen


def _receiver(folder, port):
    telemetry = free_port()
    document, _ = settings(Load(""), folder, (port, telemetry))
    (folder / "forwarder.yaml").write_text(json.dumps(document))
    command = [sys.executable, "-m", "forwarder", "receive", "--config", str(folder / "forwarder.yaml")]
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )
    wait_ready(telemetry)

    def seen() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{telemetry}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("forwarder_lines_received_total"):
                    time.sleep(0.05)  # a scrape costs the receiver about 2 ms
                    return int(float(line.rsplit(" ", 1)[1]))
        return 0

    def stop() -> None:
        process.kill()
        process.wait()

    return stop, seen
