"""The product as its users run it: `forwarder backend`, `forwarder receive` and Fluent Bit, each a process of its own."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder.events.sample import SampleLog
from forwarder.outbox import Ledger, read_ledger
from tests.ports import free_port

DEADLINE_S = 90.0  # for anything; a shared machine may be slow
ROOT = Path(__file__).parents[3]
# The kernel ends them with us, should we be killed before they are stopped (util-linux; without it they would stay).
LEASH = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `condition()` is true; its value. Fails naming `what`."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {deadline_s:.0f} s for {what}"
        time.sleep(0.05)
    return value


class Program:
    """One process with its output in a file; may be stopped or killed and started again.

    out: a file for standard output alone; None: it goes where standard error goes.
    """

    out: Path | None = None

    def __init__(self, name: str, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self._arguments, self._folder = [*LEASH, *arguments], folder
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.log, "ab") as errors, open(self.out or self.log, "ab") as output:
            self._process = subprocess.Popen(
                self._arguments,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, sign: int = signal.SIGTERM, deadline_s: float = 30.0) -> int:
        """Send a signal, wait until it is gone; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(sign)
        try:
            return process.wait(deadline_s)
        finally:
            process.kill()
            process.wait()

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def signal(self, sign: int) -> None:
        assert self._process is not None
        self._process.send_signal(sign)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Product:
    """Backend, receiver and Fluent Bit over one audit log. Ports are fixed for the life of the test, so all may restart."""

    def __init__(self, folder: Path, agent: str | None) -> None:
        self.folder, self.agent, self.root = folder, agent, ROOT
        self.audit_log = folder / "logs" / "audit.log"
        self.audit_log.parent.mkdir()
        self.outbox = folder / "outbox.db"
        self.ports = {name: free_port() for name in ("backend", "forward", "telemetry", "fluent-bit")}
        self.backend = self.program(
            "backend", "backend", "--listen", f"127.0.0.1:{self.ports['backend']}", "--database", "backend.db"
        )
        self.receiver = self.program("receive", "receive", "--config", "forwarder.yaml")
        self._fluent_bit: dict[str, Program] = {}
        self.configure()

    def program(self, name: str, *arguments: str, **environment: str) -> Program:
        return Program(name, [sys.executable, "-m", "forwarder", *arguments], self.folder, environment)

    def configure(self, forward: dict[str, Any] | None = None, **sections: Any) -> None:
        settings = {
            "cluster": "e2e",
            "sources": {"forward": {"listen": f"127.0.0.1:{self.ports['forward']}", **(forward or {})}},
            "sinks": {"backend": {"url": f"http://127.0.0.1:{self.ports['backend']}"}},
            "outbox": {"path": "outbox.db"},
            "telemetry": {"listen": f"127.0.0.1:{self.ports['telemetry']}"},
            **sections,
        }
        (self.folder / "forwarder.yaml").write_text(json.dumps(settings))

    def fluent_bit(
        self, config: str | Path = "fluent-bit/laptop.yaml", name: str = "fluent-bit", **environment: str
    ) -> Program:
        """The real one with one of our configurations; skips where there is none."""
        if not self.agent:
            pytest.skip("needs Fluent Bit 5.1: install it (docs.fluentbit.io) or name it in the variable FLUENT_BIT")
        if name not in self._fluent_bit:
            state = self.folder / name
            state.mkdir()
            self._fluent_bit[name] = Program(
                name,
                [self.agent, "-c", str(ROOT / config)],
                self.folder,
                {
                    "AUDIT_LOG_PATH": str(self.audit_log.with_name("audit*.log")),
                    "FLUENT_BIT_STATE": str(state),
                    "FLUENT_BIT_HTTP_PORT": str(free_port()),
                    "FORWARDER_PORT": str(self.ports["forward"]),
                    **environment,
                },
            )
        return self._fluent_bit[name]

    def start(self) -> None:
        """Backend and receiver, ready."""
        self.backend.start()
        self.wait_backend()
        self.receiver.start()
        self.wait_receiver()

    def wait_backend(self) -> None:
        self._wait_answer(self.backend, f"http://127.0.0.1:{self.ports['backend']}/health")

    def wait_receiver(self) -> None:
        self._wait_answer(self.receiver, f"http://127.0.0.1:{self.ports['telemetry']}/readyz")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['backend']}{path}", timeout=20) as answer:
            return json.load(answer)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['telemetry']}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    def ledger(self) -> Ledger:
        return read_ledger(self.outbox)

    def stored(self) -> list[tuple[Any, ...]]:
        """Every row of the backend, read from its database file: (type, actor, entity_ref, audit id, revision)."""
        with sqlite3.connect(f"file:{self.folder / 'backend.db'}?mode=ro", uri=True) as connection:
            rows = connection.execute("SELECT * FROM events")
            names = [column[0] for column in rows.description]
            found = [dict(zip(names, row, strict=True)) for row in rows]
        connection.close()
        return [
            (row["type"], row["actor"], row["entity_ref"], json.loads(row["details"])["audit_id"], row["revision"])
            for row in found
        ]

    def append(self, lines: list[bytes]) -> None:
        with open(self.audit_log, "ab") as log:
            log.write(b"".join(line + b"\n" for line in lines))

    def rotate(self) -> None:
        """As kube-apiserver does: rename, then a new file."""
        stamp = (
            time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime()) + f".{time.time_ns() % 1_000_000_000 // 1_000_000:03d}"
        )
        self.audit_log.rename(self.audit_log.with_name(f"audit-{stamp}.log"))
        self.audit_log.touch()

    def settled(self, expected: int) -> None:
        """Wait until the backend holds that many rows and nothing waits, then a little for what should not come."""
        try:
            wait_until(lambda: self.backend_rows() >= expected, f"{expected} rows in the backend")
            wait_until(lambda: all(sink.waiting == 0 for sink in self.ledger().sinks), "an empty outbox")
            time.sleep(1.0)
        except AssertionError:
            for program in (self.receiver, self.backend, *self._fluent_bit.values()):
                print(f"--- {program.name}\n{program.output()[-3000:]}")
            print(self.backend_rows(), self.ledger())
            raise

    def backend_rows(self) -> int:
        try:
            connection = sqlite3.connect(f"file:{self.folder / 'backend.db'}?mode=ro", uri=True)
            try:
                return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
            finally:
                connection.close()
        except sqlite3.OperationalError:
            return 0

    def stop(self) -> None:
        for program in (*self._fluent_bit.values(), self.receiver, self.backend):
            if program.running:
                program.stop()

    def _wait_answer(self, program: Program, url: str) -> None:
        """Fails at once when the program has ended, and in any case with what it said."""
        try:
            wait_until(lambda: self._answers(url) or not program.running, f"an answer of {program.name}")
            assert program.running, f"{program.name} has ended"
        except AssertionError:
            print(f"--- {program.name}\n{program.output()[-3000:]}")
            raise

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def expected_rows(log: SampleLog) -> list[tuple[Any, ...]]:
    """What the backend should hold in the end: one row per friction event, each at its last revision."""
    return sorted((a.rule, a.actor, a.entity_ref, a.audit_id, a.revision) for a in log.actions)


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """A product in an empty folder; whatever of it still runs at the end is stopped, and its ledger must balance."""
    whole = Product(tmp_path, os.environ.get("FLUENT_BIT") or shutil.which("fluent-bit"))
    yield whole
    whole.stop()
    if whole.outbox.exists():
        assert whole.ledger().balanced() == []


@pytest.fixture
def sample() -> SampleLog:
    """A log that began an hour ago."""
    return SampleLog(11, start_time=time.time() - 3600)


@pytest.fixture
def rows_of() -> Callable[[SampleLog], list[tuple[Any, ...]]]:
    return expected_rows


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until
