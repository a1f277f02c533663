"""The sidecar's relay on the loopback: MB/s of one connection, directly and through HTTP CONNECT over a Unix socket.

    python -m tests.bench.relay

Sender and receiver are processes and threads of their own; TLS, which Fluent Bit does, is not in it. One core is the relay's.
"""

import asyncio
import contextlib
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from forwarder.sidecar.metrics import SIDECAR_METRICS
from forwarder.sidecar.relay import Relay
from forwarder.sidecar.tunnel import Direct, Target, UnixProxy, Way
from forwarder.telemetry import Telemetry

TOTAL_BYTES = 2 << 30
SENDER = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    piece = bytes(1 << 20)
    for _ in range(int(sys.argv[2]) >> 20):
        s.sendall(piece)
"""
RECEIVER = """
import os, socket, sys
if sys.argv[1] == "tcp":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
else:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1]); listener.listen()
    print(0, flush=True)
connection, _ = listener.accept()
if sys.argv[1] != "tcp":
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += connection.recv(1)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
buffer = bytearray(1 << 20)
while connection.recv_into(buffer):
    pass
"""


async def measure(way: Way, where: str) -> float:
    """MB/s until the receiver has everything."""
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER, where], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert receiver.stdout
    port = int(receiver.stdout.readline())
    relay = Relay(way, Telemetry(SIDECAR_METRICS))
    relay.start()
    await relay.set_target(Target("127.0.0.1", port or 1))
    begin = time.perf_counter()
    sender = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, str(relay.port), str(TOTAL_BYTES))
    await sender.wait()
    await asyncio.to_thread(receiver.wait)
    seconds = time.perf_counter() - begin
    receiver.stdout.close()
    await relay.stop()
    return TOTAL_BYTES / seconds / 1e6


async def main() -> None:
    """Print a row for each way."""
    print(f"relay, one connection, {TOTAL_BYTES >> 20} MiB; Python {platform.python_version()}, {platform.machine()}")
    print(f"  directly                       {await measure(Direct(), 'tcp'):7.0f} MB/s")
    with contextlib.ExitStack() as stack:
        path = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "proxy")
        print(f"  by CONNECT over a Unix socket  {await measure(UnixProxy(path), path):7.0f} MB/s")


if __name__ == "__main__":
    asyncio.run(main())
