"""The backend sink on real sockets: peers that hang, drip, reset, lie and recover; our backend; a plain Healert one."""

import asyncio
import json
import logging
import socket
import sqlite3
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import trustme

from forwarder.backend.server import BackendServer
from forwarder.backend.settings import BackendSettings
from forwarder.contracts import Done, Later
from forwarder.delivery import Delivery
from forwarder.events.friction import FrictionEvent
from forwarder.outbox import Outbox, SinkInfo, dead_letters, read_ledger
from forwarder.sinks.backend import BackendSink, BackendSinkSettings
from forwarder.tasks import spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.http_client import MAX_REPLY_BYTES, Fault, HttpClient, Reply

pytestmark = pytest.mark.e2e

DEADLINE_S = 0.6  # of a call in these tests
WAIT_S = 20.0
HEALTH = {"status": "ok", "version": "0.1.0", "auth": "enabled", "capabilities": ["batch", "ids", "updates"]}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch) -> None:
    """Loopback is reached directly, whatever the machine's environment says."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


# --- single calls to peers that misbehave below HTTP -----------------------------------------------------------------


@contextmanager
def peer(behave: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[int]]]:
    """A listener whose connections each get `behave` in a thread; gives its port and the connections so far."""
    connections: list[int] = []
    open_sockets: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        try:
            if tls is None:
                return behave(connection)
            with tls.wrap_socket(connection, server_side=True) as wrapped:
                behave(wrapped)
        except OSError:
            pass  # the client hung up, as it should
        finally:
            connection.close()

    def accept() -> None:
        while True:
            try:
                connection, (_, port) = listener.accept()
            except OSError:
                return
            connections.append(port)
            open_sockets.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], connections
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_sockets:
            connection.close()
        thread.join(WAIT_S)


def read_request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            raise OSError
        received += piece
    return received


def drip(connection: socket.socket, first: bytes, endless: bytes) -> None:
    """Something now and then: never silent for as long as a read may take."""
    read_request(connection)
    connection.sendall(first)
    while True:
        connection.sendall(endless)
        time.sleep(0.02)


def hang(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    time.sleep(WAIT_S)


def never_read(connection: socket.socket) -> None:
    time.sleep(WAIT_S)


def reset(connection: socket.socket) -> None:
    read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


def cut(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"status":"ok"}')


def endless(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    while True:
        connection.sendall(chunk)


def babble(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        pytest.param(hang, "no answer within", id="silence"),
        pytest.param(never_read, "no answer within", id="reads-nothing"),
        pytest.param(lambda c: drip(c, b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), "no answer within", id="drips-headers"),
        pytest.param(lambda c: drip(c, b"HTTP/1.1 2", b"0"), "no answer within", id="drips-a-status-line"),
        pytest.param(
            lambda c: drip(c, b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b" "),
            "no answer within",
            id="drips-a-body",
        ),
        pytest.param(
            lambda c: drip(c, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
            "no answer within",
            id="drips-chunks",
        ),
        pytest.param(
            lambda c: drip(c, b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
            "no answer within",
            id="always-to-be-continued",
        ),
        pytest.param(reset, "Connection reset", id="reset"),
        pytest.param(cut, "closed early", id="cut-short"),
        pytest.param(endless, f"longer than {MAX_REPLY_BYTES >> 20} MiB", id="without-end"),
        pytest.param(babble, "closed early", id="another-protocol"),
    ],
)
def test_a_call_ends_in_time_whatever_the_peer_does(behave, words) -> None:
    """Within its deadline and a little, with the reason, and the next call is free to go."""
    client = HttpClient()
    body = b"x" * (8 << 20) if behave is never_read else b""
    with peer(behave) as (port, connections):
        for calls in (1, 2):
            began = time.monotonic()
            fault = client.call("POST", f"http://127.0.0.1:{port}/", body=body, deadline_s=DEADLINE_S)
            assert time.monotonic() - began < DEADLINE_S + 1.0
            assert isinstance(fault, Fault)
            assert words in fault.reason
            assert len(connections) == calls
    client.close()


def test_nobody_listens() -> None:
    """Refused is told at once."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    fault = HttpClient().call("GET", f"http://127.0.0.1:{port}/", deadline_s=DEADLINE_S)
    assert fault == Fault("Connection refused")


def answer_all(connection: socket.socket) -> None:
    while True:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def answer_one(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize(
    ("behave", "connections"), [(answer_all, 1), (answer_one, 5)], ids=["kept", "closed-when-idle"]
)
def test_connections_are_kept_and_replaced(behave, connections) -> None:
    """Five calls over one connection; a peer that closes idle ones costs no call."""
    client = HttpClient()
    with peer(behave) as (port, seen):
        for _ in range(5):
            reply = client.call("GET", f"http://127.0.0.1:{port}/", deadline_s=DEADLINE_S)
            assert isinstance(reply, Reply)
            assert reply.body == b"ok"
            if behave is answer_one:
                time.sleep(0.05)  # until its FIN is here: a call that crosses it is lost, and tried again by the sink
        assert len(seen) == connections
    client.close()


def test_tls_is_verified_and_its_handshake_bounded(tmp_path: Path) -> None:
    """Against the authority from the settings, by name; a peer that never finishes the handshake is given up."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    with peer(answer_all, tls) as (port, _):
        trusting = HttpClient(ca_file=str(ca_file))
        reply = trusting.call("GET", f"https://localhost:{port}/", deadline_s=5.0)
        assert isinstance(reply, Reply)
        wrong_name = trusting.call("GET", f"https://127.0.0.1:{port}/", deadline_s=5.0)
        stranger = HttpClient().call("GET", f"https://localhost:{port}/", deadline_s=5.0)
        trusting.close()
    for fault in (wrong_name, stranger):
        assert isinstance(fault, Fault)
        assert "certificate is not trusted" in fault.reason
    with peer(hang) as (port, _):
        began = time.monotonic()
        fault = HttpClient(ca_file=str(ca_file)).call("GET", f"https://localhost:{port}/", deadline_s=DEADLINE_S)
        assert time.monotonic() - began < DEADLINE_S + 1.0
        assert fault == Fault(f"no answer within {DEADLINE_S:g} s")


def test_a_hanging_tls_reply_is_ended(tmp_path: Path) -> None:
    """The socket is shut down below TLS: the reading thread ends, and takes no ciphertext for an answer."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    client = HttpClient(ca_file=str(ca_file))
    with peer(lambda c: drip(c, b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), tls) as (port, _):
        fault = client.call("GET", f"https://localhost:{port}/", deadline_s=DEADLINE_S)
        assert fault == Fault(f"no answer within {DEADLINE_S:g} s")
        assert client._last is not None
        client._last.join(WAIT_S)
        assert not client._last.is_alive()


# --- a sink and its delivery against backends that misbehave in HTTP -------------------------------------------------


class Scripted(ThreadingHTTPServer):
    """A backend that follows `script` for POST /events, one entry per request, and records everything after its end."""

    daemon_threads = True

    def __init__(self, *script: Any, health: dict[str, Any] = HEALTH, key: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Scripted)
        self.script = list(script)
        self.health = health
        self.key = key
        self.recorded: list[dict[str, Any]] = []
        self.posts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Scripted(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_GET(self) -> None:
        self.answer(200, self.server.health)

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            return self.answer(401, {"detail": "Invalid API key"}, {"WWW-Authenticate": "Bearer"})
        if sent == {}:
            return self.answer(422, {"detail": [{"loc": ["body", "entity_ref"], "msg": "Field required"}]})
        self.server.posts += 1
        step = self.server.script.pop(0) if self.server.script else None
        if callable(step):
            return step(self, sent)
        if step is not None:
            return self.answer(*step)
        return self.record(sent)

    def record(self, sent: Any) -> None:
        items = sent if isinstance(sent, list) else [sent]
        self.server.recorded += items
        reply: dict[str, Any] = {"status": "ok", "message": "Event recorded"}
        if isinstance(sent, list):
            reply["results"] = [{"status": "recorded"} for _ in items]
        self.answer(200, reply)

    def answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(raw))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(server: Scripted) -> Iterator[Scripted]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT_S)


def event(number: int, revision: int = 0, **fields: Any) -> FrictionEvent:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    known = {"entity_ref": "component:shop/cart", "type": "kubectl-exec", "severity": "high", "actor": "jane",
             "workflow": "debug", "description": f"event {number}", "timestamp": stamp, "points": 10,
             "id": str(uuid.UUID(int=number)), "revision": revision, "audit_id": "a", "verb": "create",
             "resource": "pods"}  # fmt: skip
    return FrictionEvent(**(known | fields))


class Relay:
    """An outbox with a delivery to a backend."""

    def __init__(self, path: Path, url: str, **settings: Any) -> None:
        self.path = path
        self.sink = BackendSink("backend", BackendSinkSettings(**({"url": url, "timeout_s": DEADLINE_S} | settings)))
        self.telemetry = Telemetry()
        self.outbox = Outbox(path, [SinkInfo("backend", required=True)], telemetry=self.telemetry)
        self.delivery = Delivery(self.outbox, self.sink, self.telemetry)

    def __enter__(self) -> Self:
        self.outbox.open()
        self.delivery.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.delivery.stop(WAIT_S)
        self.outbox.close()
        assert read_ledger(self.path).balanced() == []

    def commit(self, *events: FrictionEvent) -> None:
        self.outbox.commit(events).result(WAIT_S)

    def until_settled(self) -> None:
        until(lambda: self.outbox.ledger().sinks[0].waiting == 0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def hang_up(handler: _Scripted, sent: Any) -> None:
    handler.close_connection = True


def record_and_hang_up(handler: _Scripted, sent: Any) -> None:
    """The worst moment to die: recorded, and nobody was told."""
    handler.server.recorded += sent
    handler.close_connection = True


def sleep_over(handler: _Scripted, sent: Any) -> None:
    time.sleep(DEADLINE_S * 2)
    hang_up(handler, sent)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param((500, {"detail": "Internal Server Error"}), id="500"),
        pytest.param((503, {}, {"Retry-After": "1"}), id="503-with-retry-after"),
        pytest.param((429, {"error": "Rate limit exceeded: 60 per 1 minute"}, {"Retry-After": "1"}), id="429"),
        pytest.param((413, {"detail": "too large"}), id="413"),
        pytest.param(hang_up, id="hangs-up"),
        pytest.param(sleep_over, id="hangs"),
    ],
)
def test_trouble_that_passes_costs_nothing(tmp_path: Path, trouble) -> None:
    """Each event is recorded once, in order, and the ledger balances."""
    with running(Scripted(trouble)) as server, Relay(tmp_path / "outbox.db", server.url) as relay:
        relay.commit(*(event(number) for number in range(10)))
        relay.until_settled()
        assert [item["description"] for item in server.recorded] == [f"event {number}" for number in range(10)]


def test_refused_events_become_dead_letters_with_the_backends_words(tmp_path: Path) -> None:
    """Per event; the others are delivered."""

    def picky(handler: _Scripted, sent: Any) -> None:
        results = [
            {"status": "refused", "detail": "actor: at most 200 characters"}
            if item["actor"] == "bad"
            else {"status": "recorded"}
            for item in sent
        ]
        handler.answer(200, {"status": "ok", "results": results})

    with running(Scripted(picky)) as server, Relay(tmp_path / "outbox.db", server.url) as relay:
        relay.commit(event(1), event(2, actor="bad"), event(3))
        relay.until_settled()
    (kept,) = dead_letters(tmp_path / "outbox.db")
    assert (kept.event_id, kept.reason) == (event(2).id, "actor: at most 200 characters")
    assert read_ledger(tmp_path / "outbox.db").sinks[0].delivered == 2


@pytest.mark.parametrize("key", ["", "wrong"], ids=["no-key", "a-wrong-key"])
def test_a_wrong_key_is_loud_and_loses_nothing(tmp_path: Path, caplog, key) -> None:
    """One error that names the setting; the events wait; the key stands nowhere. With the right one they go out."""
    path = tmp_path / "outbox.db"
    with running(Scripted(key="r1ght")) as server:
        with caplog.at_level(logging.DEBUG), Relay(path, server.url, api_key=key) as relay:
            relay.commit(event(1), event(2))
            until(lambda: relay.sink.state.key_accepted is False)
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert "`sinks.backend.api_key`" in errors[0]
        assert "wrong" not in caplog.text
        assert server.recorded == []
        assert read_ledger(path).sinks[0].waiting == 2
        with Relay(path, server.url, api_key="r1ght") as relay:
            relay.until_settled()
        assert len(server.recorded) == 2


def test_a_dead_backend_delays_no_other_sink(tmp_path: Path) -> None:
    """One hangs on every call; the other has everything at once."""
    with running(Scripted()) as good, peer(hang) as (port, _):
        telemetry = Telemetry()
        sinks = [
            BackendSink("good", BackendSinkSettings(url=good.url)),
            BackendSink("dead", BackendSinkSettings(url=f"http://127.0.0.1:{port}", timeout_s=2.0)),
        ]
        outbox = Outbox(tmp_path / "outbox.db", [SinkInfo(sink.name) for sink in sinks], telemetry=telemetry)
        outbox.open()
        deliveries = [Delivery(outbox, sink, telemetry) for sink in sinks]
        for delivery in deliveries:
            delivery.start()
        began = time.monotonic()
        outbox.commit([event(number) for number in range(50)]).result(WAIT_S)
        until(lambda: len(good.recorded) == 50)
        assert time.monotonic() - began < 1.5
        assert deliveries[0].stop(WAIT_S)
        assert deliveries[1].stop(WAIT_S)
        ledger = outbox.ledger()
        assert [(sink.delivered, sink.waiting) for sink in ledger.sinks] == [(50, 0), (0, 50)]
        assert ledger.balanced() == []
        outbox.close()


def test_a_plain_healert_backend_gets_first_revisions_one_by_one(tmp_path: Path) -> None:
    """No lists, no updates, none of our fields; an event whose only revision is the final one is not lost."""
    health = {"status": "ok", "version": "v0.1.0", "auth": "disabled (set HEALERT_API_KEY)"}
    with running(Scripted(health=health)) as server, Relay(tmp_path / "outbox.db", server.url) as relay:
        relay.commit(event(1), event(2, revision=1))
        relay.commit(event(1, revision=1))
        relay.commit(event(3))
        relay.until_settled()
    assert [item["description"].split(" [")[0] for item in server.recorded] == ["event 1", "event 2", "event 3"]
    assert all("id" not in item and "command" not in item for item in server.recorded)
    assert server.posts == 3


# --- our backend, going away and coming back -------------------------------------------------------------------------


class OurBackend:
    """The real backend on a fixed port, in a thread with a loop of its own."""

    def __init__(self, database: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._settings = BackendSettings(listen=f"127.0.0.1:{port}", database=str(database), api_key="k3y")
        self._pool = ThreadPoolExecutor(1)

    def start(self) -> None:
        self._started = threading.Event()
        self._future = self._pool.submit(asyncio.run, self._serve())
        assert self._started.wait(WAIT_S)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._future.result(WAIT_S)

    async def _serve(self) -> None:
        self._loop, self._stopping, opened = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        serving = spawn(
            BackendServer(self._settings).serve(self._stopping, opened.set), name="backend", failed=lambda _: None
        )
        await opened.wait()
        self._started.set()
        await serving


def test_our_backend_counts_each_event_once_through_outages(tmp_path: Path) -> None:
    """It goes away and comes back while events and their updates keep coming; each id is one row in the end."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    backend = OurBackend(tmp_path / "backend.db", port)
    with Relay(tmp_path / "outbox.db", backend.url, api_key="k3y", timeout_s=5.0) as relay:
        relay.commit(*(event(number) for number in range(300)))
        for round_ in range(2):
            backend.start()
            until(lambda: relay.outbox.ledger().sinks[0].delivered > 0)
            relay.commit(*(event(number, revision=1) for number in range(round_ * 100, round_ * 100 + 100)))
            backend.stop()
            start = 1000 * (round_ + 1)
            relay.commit(*(event(number) for number in range(start, start + 100)))
        backend.start()
        relay.until_settled()
        backend.stop()
    with closing(sqlite3.connect(tmp_path / "backend.db")) as connection:
        rows = connection.execute("SELECT count(*), count(DISTINCT id), sum(revision) FROM events").fetchone()
    assert rows == (500, 500, 200)


def test_an_event_that_was_recorded_before_the_answer_was_lost_is_one_row(tmp_path: Path) -> None:
    """Sent again, because nobody said that it had arrived: our backend knows the id."""
    with running(Scripted(record_and_hang_up)) as server, Relay(tmp_path / "outbox.db", server.url) as relay:
        relay.commit(event(1), event(2))
        relay.until_settled()
        assert sorted(item["id"] for item in server.recorded) == sorted([event(1).id, event(2).id] * 2)


def test_the_sink_answers_at_once_while_it_backs_off() -> None:
    """No call is made before its time, so a delivery that stops need not wait for one."""
    with peer(hang) as (port, connections):
        sink = BackendSink("backend", BackendSinkSettings(url=f"http://127.0.0.1:{port}", timeout_s=DEADLINE_S))
        first = sink.deliver([event(1)])
        seen = len(connections)
        began = time.monotonic()
        second = sink.deliver([event(1)])
        assert time.monotonic() - began < DEADLINE_S / 2
        assert len(connections) == seen
        sink.close()
    assert all(isinstance(outcome, Later) and outcome != Done() for outcome in (*first, *second))
