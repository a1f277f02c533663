"""A receiver process with a file to read and sinks to feed, and peers that record what they got."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from forwarder.errors import ConfigError
from forwarder.outbox import Ledger, read_ledger
from tests.e2e.product.conftest import Program, wait_until
from tests.ports import free_port

Answer = tuple[int, bytes, dict[str, str]]


class Recorder(ThreadingHTTPServer):
    """Answers each request with what `answer(path, body, headers)` gives, and records those that it took.

    It may be stopped and started again on the same port.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: Callable[[str, Any, Any], Answer] | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = answer or (lambda *_: (200, b"", {}))
        self.taken: list[Any] = []
        self.asked = 0
        self.lock = threading.Lock()
        self.threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw.strip() else None
        with self.server.lock:
            self.server.asked += 1
            status, reply, headers = self.server.answer(self.path, body, self.headers)
            if status == 200 and b'"ok": false' not in reply:
                self.server.taken.append(body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(reply))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: Recorder) -> Iterator[Recorder]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)


def exec_line(number: int, *, user: str = "", **fields: Any) -> bytes:
    """One audit line: somebody opens a shell in a pod of namespace shop, now."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    event = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
        "auditID": str(uuid.UUID(int=number)), "stage": "ResponseStarted",
        "requestURI": f"/api/v1/namespaces/shop/pods/cart-{number}/exec?command=id&container=app",
        "verb": "create", "user": {"username": user or f"user-{number}", "groups": ["system:authenticated"]},
        "sourceIPs": ["10.0.0.7"], "userAgent": "kubectl/v1.34",
        "objectRef": {"resource": "pods", "namespace": "shop", "name": f"cart-{number}", "apiVersion": "v1",
                      "subresource": "exec"},
        "responseStatus": {"metadata": {}, "code": 101},
        "requestReceivedTimestamp": stamp, "stageTimestamp": stamp,
    } | fields  # fmt: skip
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def ledger_of(folder: Path) -> Ledger | None:
    """Of the outbox there; None while there is none, or it is just being made."""
    try:
        return read_ledger(folder / "outbox.db")
    except ConfigError:
        return None


class Receiver:
    """`forwarder receive` over one audit log with the sinks that a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.audit_log = folder / "audit.log"
        self.audit_log.touch()
        self.telemetry_port = free_port()
        self._said = 0
        self.program = Program("receive", [sys.executable, "-m", "forwarder", "receive", "-c", "f.yaml"], folder, {})

    def configure(self, sinks: dict[str, Any], **sections: Any) -> None:
        settings = {
            "cluster": "e2e",
            "sources": {"file": {"path": "audit.log", "checkpoint": "position.json", "start": "beginning",
                                 "poll_interval_s": 0.05}},
            "sinks": sinks,
            "outbox": {"path": "outbox.db"},
            "telemetry": {"listen": f"127.0.0.1:{self.telemetry_port}"},
        } | sections  # fmt: skip
        (self.folder / "f.yaml").write_text(json.dumps(settings))

    def start(self) -> None:
        self._said = len(self.program.output())
        self.program.start()

    def kill(self) -> None:
        self.program.kill()

    def stop(self) -> None:
        """Orderly; it must be up for that."""
        wait_until(lambda: "receiving" in self.program.output()[self._said :], "the receiver to be up")
        assert self.program.stop(signal.SIGTERM) == 0, self.program.output()

    def write(self, lines: Sequence[bytes]) -> None:
        with open(self.audit_log, "ab") as log:
            log.write(b"".join(lines))

    @property
    def ledger(self) -> Ledger:
        return read_ledger(self.folder / "outbox.db")

    def settled(self, events: int) -> Ledger:
        """Wait until so many events are in and every sink is through with them; the ledger, which balances."""

        def done() -> bool:
            ledger = ledger_of(self.folder)
            return ledger is not None and ledger.new >= events and all(sink.waiting == 0 for sink in ledger.sinks)

        wait_until(done, f"{events} events to be delivered; the receiver says:\n{self.program.output()}")
        assert self.ledger.balanced() == []
        return self.ledger


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    one = Receiver(tmp_path)
    yield one
    one.program.kill()
    if (tmp_path / "outbox.db").exists():
        assert one.ledger.balanced() == []


@pytest.fixture
def flaky_proxy(tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """nginx in front of a port: most requests pass, others get 502, 503 or a closed connection; gives its own port."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("nginx is not on PATH: apt-get install nginx-light")
    folder = tmp_path / "nginx"
    folder.mkdir()
    started: list[subprocess.Popen[bytes]] = []

    def start(target: int) -> int:
        port = free_port()
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port, target=target))
        arguments = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        started.append(subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(0.3)
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


_NGINX = """
pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; master_process off;
events {{ worker_connections 100; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  split_clients "$request_id" $fate {{ 15% 502; 15% 503; 15% drop; * pass; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      if ($fate = 502) {{ return 502; }}
      if ($fate = 503) {{ return 503; }}
      if ($fate = drop) {{ return 444; }}
      proxy_pass http://127.0.0.1:{target}; proxy_http_version 1.1;
    }}
  }}
}}
"""
