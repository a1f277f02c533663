"""`forwarder backend` as a process: killed while it takes events, out of disk, and a live feed through it all."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from forwarder.backend.store import Store
from tests.backend.store.test_rolling import check_buckets
from tests.ports import free_port

pytestmark = pytest.mark.e2e

DEADLINE_S = 30.0
FILE_LIMIT_BYTES = 3 << 20


def event(number: int) -> dict[str, Any]:
    return {
        "id": f"id-{number}",
        "entity_ref": f"component:shop/service-{number % 17}",
        "type": "kubectl-exec",
        "severity": "high",
        "actor": f"user-{number % 5}",
        "command": "cat /etc/resolv.conf",
    }


@contextlib.contextmanager
def running(
    database: Path, prepare: Callable[[], None] | None = None, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A backend process and its URL; it is gone in the end."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "forwarder",
        "backend",
        "--listen",
        f"127.0.0.1:{port}",
        "--database",
        str(database),
    ]
    process = subprocess.Popen(
        command,
        preexec_fn=prepare,  # noqa: PLW1509 - one limit of the child alone
        env=os.environ | environment,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{url}/health", timeout=5)
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url, process
    finally:
        process.kill()
        process.wait()


def check(database: Path, number: int) -> None:
    """Every event is there once, and every sum is that of the events."""
    store = Store.open(str(database))
    try:
        assert store.count() == number
        check_buckets(store, time.time_ns() // 1000)
    finally:
        store.close()


def test_killed_while_it_takes_events(tmp_path: Path) -> None:
    """What was acknowledged is there after kill -9; sent again, every event is counted once."""
    database = tmp_path / "backend.db"
    batches = [[event(start + n) for n in range(50)] for start in range(0, 2000, 50)]
    acknowledged: list[str] = []

    def send(url: str) -> None:
        with contextlib.suppress(requests.RequestException):
            for batch in batches:
                if requests.post(f"{url}/events", json=batch, timeout=DEADLINE_S).status_code == 200:
                    acknowledged.extend(item["id"] for item in batch)

    with running(database) as (url, process):
        sender = threading.Thread(target=send, args=(url,))
        sender.start()
        while len(acknowledged) < 300 and sender.is_alive():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        sender.join()
    assert 300 <= len(acknowledged) <= 2000
    with running(database) as (url, _):
        store = Store.open(str(database))
        assert store.known(acknowledged) == set(acknowledged)
        store.close()
        for batch in batches:
            assert requests.post(f"{url}/events", json=batch, timeout=DEADLINE_S).status_code == 200
    check(database, 2000)


def test_a_disk_that_fills(tmp_path: Path) -> None:
    """It says 503 and when to come back, goes on answering, and loses nothing that it took."""
    database = tmp_path / "backend.db"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES))

    taken = 0
    with running(database, limit) as (url, _):
        for start in range(0, 20_000, 200):
            answer = requests.post(f"{url}/events", json=[event(start + n) for n in range(200)], timeout=DEADLINE_S)
            if answer.status_code != 200:
                break
            taken += 200
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert requests.get(f"{url}/friction/component:shop/service-1", timeout=DEADLINE_S).status_code == 200
    assert taken
    check(database, taken)
    with running(database) as (url, _):
        assert requests.post(f"{url}/events", json=[event(taken)], timeout=DEADLINE_S).status_code == 200


def test_retention_by_environment_by_command_and_by_call(tmp_path: Path) -> None:
    """All three say how long events are kept; the last two while it runs, without a restart."""
    database = tmp_path / "backend.db"
    now_s = time.time()

    def old(days: int) -> dict[str, Any]:
        return {**event(days), "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s - days * 86_400))}

    def kept(url: str) -> list[str]:
        return sorted(found["id"] for found in requests.get(f"{url}/events", timeout=DEADLINE_S).json())

    def until(url: str, *days: int) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while kept(url) != sorted(f"id-{n}" for n in days):
            assert time.monotonic() < deadline, f"kept {kept(url)}, not {days}"
            time.sleep(0.1)

    with running(database, HEALERT_RETENTION_DAYS="100") as (url, _):
        requests.post(f"{url}/events", json=[old(days) for days in (1, 15, 50, 95, 120)], timeout=DEADLINE_S)
        until(url, 1, 15, 50, 95)
        command = [sys.executable, "-m", "forwarder", "backend", "settings", "--event-retention", "60"]
        said = subprocess.run([*command, "--database", str(database)], check=True, capture_output=True, text=True)
        assert "older events than are to be kept are deleted" in said.stderr
        until(url, 1, 15, 50)
        told = requests.put(f"{url}/api/v1/settings", json={"retention_days": 7}, timeout=DEADLINE_S).json()
        assert [item["started_with"] for item in told if item["name"] == "retention_days"] == [100]
        until(url, 1)
    check(database, 1)


def test_live(tmp_path: Path) -> None:
    """An event is told while the connection is open; a client that comes back misses nothing; SIGTERM ends the stream."""
    with running(tmp_path / "backend.db") as (url, process):
        first = requests.get(f"{url}/api/v1/live", stream=True, timeout=DEADLINE_S)
        lines = first.iter_lines(chunk_size=1)
        assert next(lines).startswith(b"retry:")
        requests.post(f"{url}/events", json=event(1), timeout=DEADLINE_S)
        while not (line := next(lines)).startswith(b"id: 1"):
            pass
        assert next(lines) == b"event: recorded"
        assert b'"id":"id-1"' in next(lines)
        first.close()
        requests.post(f"{url}/events", json=[event(2), event(3)], timeout=DEADLINE_S)
        again = requests.get(f"{url}/api/v1/live", stream=True, timeout=DEADLINE_S, headers={"Last-Event-ID": "1"})
        lines = again.iter_lines(chunk_size=1)
        told = []
        while len(told) < 2:
            line = next(lines)
            if line.startswith(b"data: "):
                told.append(line)
        assert [f'"id":"id-{n}"'.encode() in line for n, line in zip((2, 3), told, strict=True)] == [True, True]
        process.send_signal(signal.SIGTERM)
        assert b"event: end" in list(lines)
        assert process.wait(DEADLINE_S) == 0
