"""What the other doors cost: the same lines over the webhook, out of a file, and from a real Kafka broker.

Measured: CPU per audit event of a whole `forwarder receive` process with 1 % hits into the outbox, from the first event to
the last accepted one. The sender's and the broker's own cost is not in it.
"""

import gzip
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from forwarder.events.sample import SampleLog
from tests.bench.load import HIT_SHARE, ROOT, Cost, Load, cpu_s, peak_mib, settings, wait_ready
from tests.e2e.kafka.broker import Broker, missing
from tests.ports import free_port

BATCH_EVENTS = 400  # kube-apiserver's webhook sends so many at most
CLIENTS = 4
DEADLINE_S = 120.0
_IN_A_LIST = len(b'{"kind":"Event","apiVersion":"audit.k8s.io/v1",')


def lines_of(count: int) -> list[bytes]:
    return list(SampleLog(5, start_time=time.time() - 3600, friction_share=HIT_SHARE).lines(count))


def door_costs(count: int, folder: Path) -> Iterator[tuple[str, Cost]]:
    """(name, cost) of each door that can be measured here."""
    lines = lines_of(count)
    yield "webhook, EventLists of 400", _webhook(lines, folder / "webhook", zipped=False)
    yield "webhook, gzip", _webhook(lines, folder / "webhook-gzip", zipped=True)
    yield "file", _file(lines, folder / "file")
    yield "file, gzip", _file(lines, folder / "file-gzip", zipped=True)
    if not missing():
        yield "Kafka, a message each", _kafka(lines, folder / "kafka")


def _webhook(lines: list[bytes], folder: Path, *, zipped: bool) -> Cost:
    port = free_port()
    bodies = []
    for at in range(0, len(lines), BATCH_EVENTS):
        items = b",".join(b"{" + line[_IN_A_LIST:] for line in lines[at : at + BATCH_EVENTS])
        body = b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[' + items + b"]}"
        bodies.append(gzip.compress(body, 1) if zipped else body)
    headers = {"Content-Type": "application/json"} | ({"Content-Encoding": "gzip"} if zipped else {})

    def client(mine: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for body in mine:
            connection.request("POST", "/audit", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
        connection.close()

    def feed() -> None:
        threads = [threading.Thread(target=client, args=[bodies[number::CLIENTS]]) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return _measured({"webhook": {"listen": f"127.0.0.1:{port}", "ack_timeout_s": 60}}, feed, len(lines), folder)


def _file(lines: list[bytes], folder: Path, *, zipped: bool = False) -> Cost:
    folder.mkdir(parents=True)
    log = folder / ("audit.log.1.gz" if zipped else "audit.log")
    content = b"".join(line + b"\n" for line in lines)
    (folder / "made").write_bytes(gzip.compress(content, 6) if zipped else content)
    source = {"path": str(folder / "audit.log"), "checkpoint": str(folder / "position.json"), "start": "beginning"}
    return _measured({"file": source}, lambda: (folder / "made").rename(log), len(lines), folder)


def _kafka(lines: list[bytes], folder: Path) -> Cost:
    folder.mkdir(parents=True)
    broker = Broker(folder)
    broker.start()
    try:
        broker.topic("audit", partitions=4)
        source = {"brokers": [broker.address], "topics": ["audit"]}
        return _measured({"kafka": source}, lambda: broker.produce("audit", lines), len(lines), folder)
    finally:
        broker.stop()


def _measured(sources: dict[str, Any], feed: Callable[[], Any], count: int, folder: Path) -> Cost:
    """A fresh `forwarder receive` with that source; from before `feed` until all lines are accepted."""
    folder.mkdir(parents=True, exist_ok=True)
    telemetry = free_port()
    document, _ = settings(Load(""), folder, (0, telemetry))
    (folder / "forwarder.yaml").write_text(json.dumps(document | {"sources": sources}))
    command = [sys.executable, "-m", "forwarder", "receive", "--config", str(folder / "forwarder.yaml")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    try:
        wait_ready(telemetry)
        time.sleep(1.0)
        before = cpu_s(process.pid)
        feed()
        end = time.monotonic() + DEADLINE_S
        while _received(telemetry) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{_received(telemetry)} of {count} lines, see {folder / 'log'}")
            time.sleep(0.1)
        return Cost((cpu_s(process.pid) - before) / count * 1e6, peak_mib(process.pid))
    finally:
        process.terminate()
        process.wait()


def _received(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("forwarder_lines_received_total"):
                return int(float(line.rsplit(" ", 1)[1]))
    return 0
