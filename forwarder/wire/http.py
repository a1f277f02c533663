"""The telemetry port: /metrics for Prometheus, /healthz (alive) and /readyz (accepting) for probes.

    telemetry: {listen: 127.0.0.1:9000, token: ${METRICS_TOKEN}}

It answers from a daemon thread of its own, so that a busy event loop still answers its probes. The two probes say one
word and need no token. Off loopback /metrics needs `Authorization: Bearer <token>`: without a token, and without
`allow_anonymous: true`, such a listener refuses to start.
"""

import hmac
import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from forwarder.errors import ConfigError
from forwarder.settings import Address

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16  # a probe, a second probe and a few Prometheus replicas; more is somebody holding threads
MAX_HEAD_BYTES = 16 << 10  # what h11 and nginx allow for a whole request head
REQUEST_DEADLINE_S = 5.0  # for the head as a whole: a client that drips bytes cannot hold a thread longer
BACKLOG = 16
STOP_POLL_S = 0.2


class TelemetryServer:
    """One HTTP listener in a thread; `start` binds it, `stop` closes it. Makes no sound until `start`.

    metrics: the exposition text. ready: whether the process accepts now. Both are called from the server's threads.
    """

    def __init__(
        self,
        listen: Address,
        *,
        metrics: Callable[[], bytes],
        ready: Callable[[], bool],
        token: str = "",
        allow_anonymous: bool = False,
    ) -> None:
        """Raises ConfigError for an address that must not be listened on; opens nothing."""
        if listen.path:
            raise ConfigError(f"{listen} is a Unix socket; telemetry needs HOST:PORT", where="telemetry.listen")
        if not listen.local and not token and not allow_anonymous:
            raise ConfigError(
                f"{listen} can be reached from other machines, so `telemetry.token` is needed; set it, listen on "
                "127.0.0.1, or write `allow_anonymous: true`",
                where="telemetry.listen",
            )
        self._listen = listen
        self._token = token
        self._metrics = metrics
        self._ready = ready
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Address:
        """Bind and answer; the address with the real port. Raises ConfigError when it cannot bind."""
        listen = self._listen
        handler = type("Handler", (_Handler,), {"respond": self._respond})
        try:
            self._server = _Server(listen, handler)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "no such host"
            message = f"cannot listen on {listen}: {reason}; choose another address"
            raise ConfigError(message, where="telemetry.listen") from None
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(STOP_POLL_S,), name="telemetry", daemon=True)
        self._thread.start()
        return Address(host=listen.host, port=int(self._server.server_address[1]))

    def stop(self) -> None:
        """Close the listener; open requests end within their deadline. May be called twice, or before `start`."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=REQUEST_DEADLINE_S)
        self._server = self._thread = None

    def _respond(self, path: str, authorization: str) -> tuple[int, str, bytes]:
        """Status, content type and body of one GET."""
        if path == "/healthz":
            return 200, _TEXT, b"ok\n"
        if path == "/readyz":
            return (200, _TEXT, b"ready\n") if self._ready() else (503, _TEXT, b"waiting\n")
        if not self._authorized(authorization):
            return 401, _TEXT, b"a bearer token is needed\n"
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", self._metrics()
        return 404, _TEXT, b"here are /metrics, /healthz and /readyz\n"

    def _authorized(self, authorization: str) -> bool:
        if not self._token:
            return True
        scheme, _, given = authorization.partition(" ")
        # as bytes: compare_digest refuses text beyond ASCII, and a header may hold any
        same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token.encode())
        return scheme.lower() == "bearer" and same


_TEXT = "text/plain; charset=utf-8"


class _Server(HTTPServer):
    request_queue_size = BACKLOG
    allow_reuse_address = True

    def __init__(self, listen: Address, handler: type[BaseHTTPRequestHandler]) -> None:
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        super().__init__((listen.host, listen.port), handler)

    def server_bind(self) -> None:
        # HTTPServer would look its own name up in the DNS here, which can hang for seconds
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)  # closed unanswered: refusing politely would need a thread too
            return
        arguments = (request, client_address)
        threading.Thread(target=self._serve, args=arguments, name="telemetry-request", daemon=True).start()

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except (OSError, ValueError):
            pass  # the client went away or sent no HTTP: its affair
        except Exception:  # a fault in one answer must not end the listener
            log.exception("a telemetry request failed")
        finally:
            self.shutdown_request(request)
            self._slots.release()


class _Handler(BaseHTTPRequestHandler):
    """One request per connection. The head is read whole, under one deadline, before http.server parses it."""

    protocol_version = "HTTP/1.0"
    server_version = "forwarder"
    sys_version = ""
    respond: Callable[[str, str], tuple[int, str, bytes]]

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(io.BytesIO(read_head(self.connection)))
        self.connection.settimeout(REQUEST_DEADLINE_S)

    def do_GET(self) -> None:
        authorization = str(self.headers.get("Authorization", ""))
        status, kind, body = self.respond(self.path.partition("?")[0], authorization)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *arguments: Any) -> None:
        """No log line per request."""


def read_head(connection: socket.socket, clock: Callable[[], float] = time.monotonic) -> bytes:
    """The bytes up to the empty line that ends a request head, or what came before the cap or the end of the stream.

    Raises TimeoutError when the whole head has not come within REQUEST_DEADLINE_S.
    """
    deadline = clock() + REQUEST_DEADLINE_S
    head = bytearray()
    while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) < MAX_HEAD_BYTES:
        left = deadline - clock()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(4096)
        if not piece:
            break
        head += piece
    return bytes(head)
