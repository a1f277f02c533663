"""A cluster for the sidecar: an apiserver over real HTTP that lists and watches two kinds, and the sidecar as a process."""

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from tests.ports import free_port

NAME = "kubernetes-audit-tailer"
SECRET = "audittailer-client"
ROOT = Path(__file__).parents[3]


class FakeApiserver:
    """Services and Secrets of kube-system with list, watch, resume and 410; written from the API's documentation.

    status: when not 0, every request is answered with it. token: when set, requests need it. requests: (path, parameters).
    """

    def __init__(self, context=None):
        self.status = 0
        self.token = ""
        self.requests = []
        self.oldest = 0  # versions below it are gone
        self.bookmark = False
        self._objects = {}
        self._events = []
        self._version = 100
        self._change = threading.Condition()
        self._open = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def setup(self):
                super().setup()
                outer._open.add(self.connection)

            def finish(self):
                outer._open.discard(self.connection)
                try:
                    super().finish()
                except OSError:
                    pass

            def do_GET(self):
                try:
                    outer._answer(self)
                except OSError:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments):
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fake apiserver")
        self._thread.start()

    def close(self):
        self._closed = True
        self._server.shutdown()
        self._server.server_close()
        self.disconnect()
        self._thread.join()

    def disconnect(self):
        """Cut every connection in the middle."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def forget(self):
        """As after a compaction of etcd: every version seen so far is too old."""
        with self._change:
            self._version += 10
            self.oldest = self._version
        self.disconnect()

    def put_service(self, port, host="127.0.0.1", ports=None, name=NAME):
        ports = ports or [{"name": "forward", "port": port, "protocol": "TCP"}]
        self._put("services", {"metadata": {"name": name}, "spec": {"clusterIP": host, "ports": ports}})

    def put_secret(self, data, name=SECRET):
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        self._put("secrets", {"metadata": {"name": name}, "data": encoded})

    def delete(self, kind, name):
        with self._change:
            self._version += 1
            gone = self._objects.pop((kind, name))
            gone["metadata"]["resourceVersion"] = str(self._version)
            self._events.append((self._version, kind, "DELETED", gone))
            self._change.notify_all()

    def _put(self, kind, thing):
        with self._change:
            self._version += 1
            name = thing["metadata"]["name"]
            thing["metadata"]["resourceVersion"] = str(self._version)
            event = "MODIFIED" if (kind, name) in self._objects else "ADDED"
            self._objects[kind, name] = thing
            self._events.append((self._version, kind, event, thing))
            self._change.notify_all()

    def _answer(self, handler):
        path, _, query = handler.path.partition("?")
        parameters = dict(urllib.parse.parse_qsl(query))
        self.requests.append((path, parameters))
        if self.status:
            return self._reply(handler, self.status, {"kind": "Status", "code": self.status, "message": "hunter2"})
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return self._reply(handler, 401, {"kind": "Status", "code": 401})
        *_, namespace, kind = path.split("/")
        name = parameters.get("fieldSelector", "").removeprefix("metadata.name=")
        if namespace != "kube-system" or kind not in ("services", "secrets"):
            return self._reply(handler, 404, {"kind": "Status", "code": 404})
        if parameters.get("watch") == "true":
            return self._watch(handler, kind, name, int(parameters.get("resourceVersion") or 0))
        with self._change:
            items = [thing for key, thing in self._objects.items() if key == (kind, name)]
            return self._reply(handler, 200, {"metadata": {"resourceVersion": str(self._version)}, "items": items})

    def _reply(self, handler, status, body):
        content = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _watch(self, handler, kind, name, version):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()

        def send(event, thing):
            line = json.dumps({"type": event, "object": thing}).encode() + b"\n"
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            handler.wfile.flush()

        while not getattr(self, "_closed", False):
            with self._change:
                if version < self.oldest:
                    send("ERROR", {"kind": "Status", "code": 410, "message": "too old"})
                    break
                due = [event for event in self._events if event[0] > version and event[1] == kind]
                if not due and not self._change.wait(0.2):
                    handler.connection.settimeout(0.001)
                    try:
                        if handler.connection.recv(1) == b"":
                            break
                    except TimeoutError:
                        pass
                    finally:
                        handler.connection.settimeout(None)
                if self.bookmark:
                    version = self._version
                    send("BOOKMARK", {"kind": "Service", "metadata": {"resourceVersion": str(version)}})
                    self.bookmark = False
            for number, _, event, thing in due:
                version = number
                if thing["metadata"]["name"] == name:
                    send(event, thing)
        handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True


@pytest.fixture
def apiserver():
    server = FakeApiserver()
    yield server
    server.close()


@pytest.fixture
def secure_apiserver():
    """One behind TLS, and the authority of its certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = FakeApiserver(context)
    yield server, authority
    server.close()


@pytest.fixture
def kubeconfig(tmp_path):
    """A function that writes a kubeconfig, whole, and returns its path."""

    def write(url, *, token="", ca=None, name="kubeconfig"):
        user = {"token": token} if token else {}
        cluster = {"server": url}
        if ca:
            cluster["certificate-authority-data"] = base64.b64encode(ca).decode()
        path = tmp_path / name
        temporary = path.with_suffix(".new")
        temporary.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": user}],
                }
            )
        )
        temporary.replace(path)
        return path

    return write


class Authority:
    """One CA for receivers and clients."""

    def __init__(self):
        self._ca = trustme.CA()

    @property
    def ca(self):
        return self._ca.cert_pem.bytes()

    def secret(self, **options):
        """The data of a client's Secret."""
        issued = self._ca.issue_cert("audittailer-client", **options)
        return {
            "ca.crt": self.ca,
            "audittailer-client.crt": issued.cert_chain_pems[0].bytes(),
            "audittailer-client.key": issued.private_key_pem.bytes(),
        }

    def server_context(self, name=NAME):
        """TLS of a receiver that asks for a client certificate of ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(context)
        self._ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def files(self, folder, name):
        """ca.crt, tls.crt and tls.key in `folder`."""
        folder.mkdir(exist_ok=True)
        issued = self._ca.issue_cert(name)
        (folder / "ca.crt").write_bytes(self.ca)
        (folder / "tls.crt").write_bytes(issued.cert_chain_pems[0].bytes())
        (folder / "tls.key").write_bytes(issued.private_key_pem.bytes())
        (folder / "tls.key").chmod(0o600)
        return folder


@pytest.fixture
def authority():
    return Authority()


class Running:
    """`forwarder sidecar` as a process; its output, and Fluent Bit's, in a file."""

    def __init__(self, folder, kubecfg, options):
        self.folder = folder
        self.log = folder / "sidecar.log"
        self.audit_log = folder / "auditlog" / "audit.log"
        self.added = folder / "added"
        for path in (self.audit_log.parent, self.added):
            path.mkdir(exist_ok=True)
        self.port = free_port()
        self.options = {
            "kubecfg": str(kubecfg),
            "audit-log-path": str(self.audit_log),
            "state-dir": str(folder / "state"),
            "run-dir": str(folder / "run"),
            "tls-basedir": str(folder / "ssl"),
            "additional-dir": str(self.added),
            "telemetry-listen": f"127.0.0.1:{self.port}",
            "backoff-timer": "2s",
            **options,
        }
        self.process = None

    def arguments(self):
        given = [part for name, value in self.options.items() for part in (f"--{name}", str(value))]
        return [sys.executable, "-m", "forwarder", "sidecar", *given]

    def start(self):
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                self.arguments(),
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )
        return self

    def stop(self, sign=signal.SIGTERM):
        if self.process is None:
            return 0
        self.process.send_signal(sign)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    def output(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def metric(self, name, default=None):
        """The sum over the labels of a metric; `name` may end in `{label="…"`."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return default
        found = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]
        return sum(found) if found else default

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def agents(self):
        """Process ids of Fluent Bits with this run folder's configuration."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if str(self.folder / "run" / "fluent-bit.yaml").encode() in words and b"fluent-bit" in words[0]:
                found.append(int(entry.name))
        return found

    def write(self, lines):
        with open(self.audit_log, "ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))

    def rotate(self):
        stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03d}"
        self.audit_log.rename(self.audit_log.with_name(f"audit-{stamp}.log"))


@pytest.fixture
def sidecar(tmp_path, request):
    """A function that starts a sidecar; skips without Fluent Bit. What it said is shown when the test fails."""
    program = os.environ.get("FLUENT_BIT") or shutil.which("fluent-bit")
    if not program:
        pytest.skip("needs Fluent Bit 5.1: install it (docs.fluentbit.io) or name it in the variable FLUENT_BIT")
    started = []

    def start(kubecfg, **options):
        options = {name.replace("_", "-"): value for name, value in options.items()}
        started.append(Running(tmp_path, kubecfg, {"fluent-bit": program, **options}))
        return started[-1].start()

    yield start
    for one in started:
        one.stop()
        print(one.output()[-12000:])
        for agent in one.agents():
            os.kill(agent, signal.SIGKILL)
