"""From an audit line written to its event in the backend, at a steady rate, through a real Fluent Bit.

    python -m tests.bench.latency --rate 20000 --seconds 15

Log file, Fluent Bit with the shipped laptop settings (flush 0.2 s), `forwarder receive`, `forwarder backend` on SQLite, all
on this machine, which also makes the load. Measured: the time between the end of the write and the moment that the backend
records, for every friction event (its first revision seen).
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from forwarder.events.sample import SampleLog
from tests.bench.load import ROOT, wait_ready
from tests.ports import free_port

TICK_S = 0.01
SETTLE_S = 5.0  # after the last line, for the last event


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def written(log: Path, rate: int, seconds: float) -> dict[str, float]:
    """Write the log; when the first line of each request that is friction was written, Unix seconds."""
    sample = SampleLog(11, start_time=time.time(), lines_per_s=rate, friction_share=0.005)
    lines = list(sample.lines(int(rate * seconds)))
    friction = {action.audit_id.encode() for action in sample.actions}
    times: dict[str, float] = {}
    batch = max(1, int(rate * TICK_S))
    began = time.monotonic()
    with open(log, "ab", buffering=0) as file:
        for number, start in enumerate(range(0, len(lines), batch)):
            some = lines[start : start + batch]
            file.write(b"\n".join(some) + b"\n")
            now = time.time()
            for line in some:
                at = line.index(b'"auditID":"') + 11
                audit_id = line[at : line.index(b'"', at)]
                if audit_id in friction:
                    times.setdefault(audit_id.decode(), now)
            time.sleep(max(0.0, began + (number + 1) * TICK_S - time.monotonic()))
    print(f"{len(lines) / (time.monotonic() - began):,.0f} lines/s written")
    return times


def recorded(database: Path) -> dict[str, float]:
    """When each request's event was recorded, Unix seconds."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT json_extract(details, '$.audit_id'), recorded_us FROM events").fetchall()
    return {audit_id: recorded_us / 1e6 for audit_id, recorded_us in rows}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.latency", description=__doc__)
    parser.add_argument("--rate", type=int, default=20_000, help="lines a second")
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    program = shutil.which("fluent-bit")
    if not program:
        sys.exit("needs fluent-bit on PATH")
    with tempfile.TemporaryDirectory() as name:
        folder, processes = Path(name), []
        log, database = folder / "audit.log", folder / "backend.db"
        log.touch()
        forward, telemetry, backend = free_port(), free_port(), free_port()
        settings = {
            "sources": {"forward": {"listen": f"127.0.0.1:{forward}"}},
            "sinks": {"backend": {"url": f"http://127.0.0.1:{backend}"}},
            "outbox": {"path": "outbox.db"},
            "telemetry": {"listen": f"127.0.0.1:{telemetry}"},
            "log": {"level": "error"},
        }
        (folder / "forwarder.yaml").write_text(json.dumps(settings))
        environment = os.environ | {"PYTHONPATH": str(ROOT)}

        def start(*command: str, **more: str) -> None:
            processes.append(subprocess.Popen(command, cwd=folder, env=environment | more, stderr=subprocess.DEVNULL))

        try:
            start(
                sys.executable,
                "-m",
                "forwarder",
                "backend",
                "--listen",
                f"127.0.0.1:{backend}",
                "--database",
                f"sqlite:///{database}",
            )
            start(sys.executable, "-m", "forwarder", "receive", "--config", "forwarder.yaml")
            wait_ready(telemetry)
            start(
                program, "-q", "-c", str(ROOT / "fluent-bit" / "laptop.yaml"),
                AUDIT_LOG_PATH=str(log), FLUENT_BIT_STATE=str(folder), FLUENT_BIT_HTTP_PORT=str(free_port()), FORWARDER_PORT=str(forward),
            )  # fmt: skip
            time.sleep(3)
            times = written(log, options.rate, options.seconds)
            time.sleep(SETTLE_S)
            arrived = recorded(database)
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()
    delays = [arrived[audit_id] - at for audit_id, at in times.items() if audit_id in arrived]
    print(f"{len(delays)} of {len(times)} events arrived; load of the machine {os.getloadavg()[0]:.0f}")
    if delays:
        print(f"p50 {percentile(delays, 0.5):.2f} s, p99 {percentile(delays, 0.99):.2f} s, longest {max(delays):.2f} s")


if __name__ == "__main__":
    main()
