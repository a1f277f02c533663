"""Real clients at a real Forward door: Fluent Bit, Python's fluent-logger, npm's @fluent-org/logger, and raw sockets."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
import trustme
from fluent import sender

from forwarder.errors import ConfigError, Overloaded
from forwarder.sources import forward
from forwarder.sources.forward import ForwardSettings, ForwardSource
from forwarder.telemetry import Telemetry
from forwarder.wire.forward_client import AckReader, entries, packed_forward
from forwarder.wire.forward_handshake import ClientHandshake
from forwarder.wire.listen import TlsSettings

pytestmark = pytest.mark.e2e

LINES = [json.dumps({"kind": "Event", "auditID": f"id-{n}", "pad": "x" * (n % 7 * 500)}) for n in range(300)]
NPM_CLIENT = "@fluent-org/logger@1.0.10"


class RunningDoor:
    """A Forward source in a thread. batches: what it submitted; `errors` are raised before."""

    def __init__(self, **settings):
        self.batches, self.errors, self.telemetry = [], [], Telemetry()
        self._opened, self._failure = threading.Event(), None
        settings = {"listen": "127.0.0.1:0", **settings}
        self.source = ForwardSource("forward", ForwardSettings(**settings), lambda *_: True, self.telemetry, "test")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="door")
        self._thread.start()
        assert self._opened.wait(10)
        if self._failure:
            self._thread.join()
            raise self._failure

    async def _run(self):
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self.source.run(self._submit, self._stopping, self._opened.set)
        except ConfigError as error:
            self._failure = error
            self._opened.set()

    async def _submit(self, batch):
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(batch)

    def stop(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(15)
        assert not self._thread.is_alive()

    @property
    def port(self):
        return self.source.addresses[0].port

    @property
    def lines(self):
        return [line.data.decode("utf-8", "surrogateescape") for batch in self.batches for line in batch.lines]

    @property
    def received(self):
        return sum(batch.received for batch in self.batches)

    def closed(self, cause):
        return self.telemetry.value("forwarder_connections_closed", source="forward", cause=cause)


@pytest.fixture
def door():
    """A function that opens a door; all of them are closed at the end."""
    doors = []

    def start(**settings):
        doors.append(RunningDoor(**settings))
        return doors[-1]

    yield start
    for running in doors:
        running.stop()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """tls.server(mutual=…) -> settings; tls.files: paths of CA and client certificate; tls.context(…) -> a client's."""
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    files = {"ca": str(folder / "ca.crt")}
    authority.cert_pem.write_to_path(files["ca"])
    for name, issuer in (("server", authority), ("client", authority), ("stranger", stranger)):
        certificate = issuer.issue_cert("localhost", "127.0.0.1", common_name=f"{name}-name")
        files[name], files[f"{name}-key"] = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
        (folder / f"{name}.crt").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(files[f"{name}-key"])

    class Tls:
        def server(self, *, mutual=False):
            settings = {"cert_file": files["server"], "key_file": files["server-key"]}
            return TlsSettings(**settings, client_ca_file=files["ca"] if mutual else None)

        def context(self, client=None):
            context = ssl.create_default_context(cafile=files["ca"])
            if client:
                context.load_cert_chain(files[client], files[f"{client}-key"])
            return context

    Tls.files = files
    return Tls()


# --- raw sockets: what no polite client does -------------------------------------------------------------------------------


class Peer:
    """A client that says and hears single things."""

    def __init__(self, port, context=None):
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket = context.wrap_socket(plain, server_hostname="localhost") if context else plain
        self.reader = AckReader()

    def send(self, data):
        self.socket.sendall(data)

    def next(self, how):
        while (found := how()) is None:
            data = self.socket.recv(4096)
            assert data, "the door closed"
            self.reader.receive_data(data)
        return found

    def ack(self):
        return self.next(self.reader.next_ack)

    def is_closed(self):
        """Whether the door closes it, within the time-out."""
        try:
            return self.socket.recv(4096) == b""
        except ConnectionError:
            return True

    def close(self):
        self.socket.close()


@pytest.fixture
def peer():
    """A function that connects; all are closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(port, context=None):
            made = Peer(port, context)
            stack.callback(made.close)
            return made

        yield connect


def _frame(lines=LINES[:5], **options):
    return packed_forward(b"audit", entries([line.encode() for line in lines], 1.0), **options)


@pytest.mark.parametrize("compress", ["", "gzip", "zstd"])
def test_a_message_is_acknowledged_with_its_chunk_id(compress, door, peer):
    """Over a real socket, in three dribs, several on one connection."""
    running = door()
    client = peer(running.port)
    for chunk in (b"one", b"two\n"):
        data = _frame(chunk=chunk, compress=compress)
        for piece in (data[:3], data[3:200], data[200:]):
            client.send(piece)
        assert client.ack() == chunk
    assert running.lines == LINES[:5] * 2


def test_the_acknowledgement_waits_for_an_overloaded_pipeline_and_gives_up_in_time(door, peer):
    """Late is better than twice; silence is worse than closing."""
    running = door(ack_timeout_s=0.6)
    running.errors = [Overloaded("full", retry_after_s=0.05)] * 3
    client = peer(running.port)
    client.send(_frame(chunk=b"late"))
    assert client.ack() == b"late"
    running.errors = [Overloaded("full", retry_after_s=5)] * 1000
    began = time.monotonic()
    client.send(_frame(chunk=b"never"))
    assert client.is_closed()
    assert 0.4 < time.monotonic() - began < 3
    assert len(running.batches) == 1


def test_stopping_acknowledges_what_has_come_completely(door, peer, monkeypatch):
    """And closes; a door that is stopped takes nobody."""
    running = door()
    running.errors = [Overloaded("full", retry_after_s=0.3)]
    busy, cut = peer(running.port), peer(running.port)
    busy.send(_frame(chunk=b"c"))
    cut.send(_frame(chunk=b"d")[:-3])
    while running.errors:
        time.sleep(0.01)
    running.stop()
    assert busy.ack() == b"c"
    assert busy.is_closed()
    assert cut.is_closed()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), timeout=5)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x16\x03\x01\x00\x05hello", "TLS"),
        (b"GET / HTTP/1.0\r\n\r\n", "HTTP"),
        (b'{"a":1}\n', "JSON"),
        (b"\xc1", "0xc1"),
    ],
    ids=["tls", "http", "json", "junk"],
)
def test_whoever_comes_to_the_wrong_door_is_told_apart_in_the_log(data, words, door, peer, caplog, wait_until):
    """And disconnected."""
    running = door()
    client = peer(running.port)
    client.send(data)
    assert client.is_closed()
    wait_until(lambda: running.closed("protocol") == 1, "the connection to be counted")
    assert any(words in record.getMessage() for record in caplog.records)


def test_users_and_a_shared_key_over_tls(door, peer, tls, wait_until, caplog):
    """Who knows all of it gets in; a wrong password is refused, counted, logged once, and nothing is accepted after it."""
    running = door(shared_key="a secret key", users={"node": "a password"}, tls=tls.server())
    for password, works in (("a password", True), ("wrong", False)):
        client = peer(running.port, tls.context())
        me = ClientHandshake("a secret key", user="node", password=password)
        client.send(me.answer(client.next(client.reader.next_message)) + _frame(chunk=b"c"))
        pong = client.next(client.reader.next_message)
        if works:
            me.check(pong)
            assert client.ack() == b"c"
        else:
            assert b"user name or password is wrong" in pong
            assert client.is_closed()
    wait_until(lambda: running.closed("auth") == 1, "the refusal to be counted")
    assert running.lines == LINES[:5]
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert "password is wrong" in logged
    assert "a secret key" not in logged
    assert "id-0" not in logged


def test_mutual_tls_says_which_cluster_it_is(door, peer, tls, wait_until, caplog):
    """By the certificate's common name; without a certificate, or with a stranger's, nobody gets in."""
    running = door(tls=tls.server(mutual=True), cluster_from_certificate=True)
    client = peer(running.port, tls.context("client"))
    client.send(_frame(chunk=b"c"))
    assert client.ack() == b"c"
    assert running.batches[0].cluster == "client-name"
    for who in (None, "stranger"):
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            refused = peer(running.port, tls.context(who))
            refused.send(_frame(chunk=b"c"))
            refused.socket.recv(1)  # TLS 1.3 tells a client only after its own handshake is over
    wait_until(lambda: running.closed("tls") == 2, "both refusals to be counted")
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert "the client showed no certificate" in logged
    assert len(running.batches) == 1


def test_plain_bytes_at_a_tls_door(door, peer, tls, wait_until, caplog):
    """The log says that it is TLS that is missing."""
    running = door(tls=tls.server())
    client = peer(running.port)
    client.send(_frame(chunk=b"c"))
    wait_until(lambda: running.closed("tls") == 1, "the failure to be counted")
    assert any("turn `tls` on at the client" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_connecting_and_leaving_is_no_trouble(secure, door, peer, tls, wait_until, caplog):
    """Fluentd does it every second, load balancers too."""
    caplog.set_level(logging.WARNING)
    running = door(tls=tls.server() if secure else None)
    peer(running.port).close()
    if secure:
        peer(running.port, tls.context()).close()
    wait_until(lambda: running.closed("empty") == (2 if secure else 1), "them to be counted")
    assert caplog.records == []


def test_a_client_that_sends_and_leaves_is_heard(door, peer, wait_until, tls):
    """Without acknowledgement, also over TLS, where its bytes may come with the end of the handshake."""
    for context in (None, tls.context()):
        running = door(tls=tls.server() if context else None)
        for _ in range(20):
            client = peer(running.port, context)
            client.send(_frame())
            client.close()
        wait_until(lambda running=running: running.received == 100, "all lines")


def test_a_unix_socket_is_bound_for_owner_and_group_and_removed(door, tmp_path, monkeypatch):
    """A file left behind by a process that was killed is no obstacle; a living one, or another file, is."""
    path = tmp_path / "forward.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    running = door(listen=f"unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(_frame(chunk=b"c"))
        assert b"ack" in client.recv(100)
    assert running.batches[0].origin == "forward unix"
    with pytest.raises(ConfigError, match="another process listens"):
        RunningDoor(listen=f"unix:{path}")
    running.stop()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"):
        RunningDoor(listen=f"unix:{path}")
    assert path.read_text() == "precious"
    with pytest.raises(ConfigError, match=r"folder of .* does not exist"):
        RunningDoor(listen=f"unix:{tmp_path}/nowhere/x.sock")


def test_a_door_that_cannot_be_opened_says_why(door, tls):
    """Port in use, an address of another machine, a host that is none."""
    running = door()
    with pytest.raises(ConfigError, match="in use by another process"):
        RunningDoor(listen=f"127.0.0.1:{running.port}")
    with pytest.raises(ConfigError, match=r"this machine has no address 192\.0\.2\.1"):
        RunningDoor(listen="192.0.2.1:0", shared_key="k")
    with pytest.raises(ConfigError, match="no such host"):
        RunningDoor(listen="no.such.host.invalid:0", shared_key="k")
    with pytest.raises(ConfigError, match="cannot read"):
        RunningDoor(tls=TlsSettings(cert_file="/nowhere", key_file="/nowhere"))


def test_localhost_is_every_loopback_address(door):
    """IPv4 and, where there is one, IPv6, on the same port."""
    running = door(listen="localhost:0")
    ports = {address.port for address in running.source.addresses}
    assert len(ports) == 1
    for address in running.source.addresses:
        socket.create_connection((address.host, address.port), timeout=5).close()


def test_silent_connections_are_swept(door, peer, monkeypatch, wait_until):
    """A handshake that does not come, after its deadline."""
    monkeypatch.setattr(forward, "SWEEP_INTERVAL_S", 0.05)
    monkeypatch.setattr("forwarder.wire.forward_connection.HANDSHAKE_DEADLINE_S", 0.5)
    running = door(shared_key="key")
    client = peer(running.port)
    client.next(client.reader.next_message)
    assert client.is_closed()
    wait_until(lambda: running.closed("handshake") == 1, "it to be counted")


# --- Python's fluent-logger -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nanoseconds", [False, True], ids=["integer time", "event time"])
def test_fluent_logger_for_python(nanoseconds, door, wait_until):
    """Message mode, raw lines under `log` or `message`, or the event as a map; no acknowledgement."""
    running = door()
    client = sender.FluentSender("audit", host="127.0.0.1", port=running.port, nanosecond_precision=nanoseconds)
    for n, line in enumerate(LINES):
        record = ({"log": line}, {"message": line}, json.loads(line))[n % 3]
        assert client.emit("k8s", record)
    client.close()
    wait_until(lambda: running.received == len(LINES), "all lines")
    assert [json.loads(line) for line in running.lines] == [json.loads(line) for line in LINES]
    assert all(line.time_s > 1.7e9 for batch in running.batches for line in batch.lines)


# --- npm's @fluent-org/logger -----------------------------------------------------------------------------------------------

SCRIPT = """
const { FluentClient } = require("@fluent-org/logger");
const { lines, options } = JSON.parse(require("fs").readFileSync(0));
const client = new FluentClient("audit", options);
Promise.all(lines.map(line => client.emit("k8s", { log: line })))
  .then(() => client.shutdown()).then(() => process.exit(0))
  .catch(error => { console.error(String(error)); process.exit(1); });
"""


@pytest.fixture(scope="module")
def npm_client(tmp_path_factory):
    """A function that sends lines with the npm client and returns its exit code; skips where it cannot be installed."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), NPM_CLIENT]
    if subprocess.run(command, check=False, capture_output=True, timeout=120, cwd=folder).returncode:
        pytest.skip(f"npm cannot install {NPM_CLIENT} here")
    (folder / "send.js").write_text(SCRIPT)

    def send(lines, options, deadline_s=60):
        text = json.dumps({"lines": lines, "options": options})
        command = ["timeout", str(deadline_s), "node", "send.js"]
        done = subprocess.run(command, check=False, input=text, capture_output=True, text=True, cwd=folder)
        return done.returncode, done.stderr

    return send


@pytest.mark.parametrize("mode", ["Message", "Forward", "PackedForward", "CompressedPackedForward"])
@pytest.mark.parametrize("how", ["plain", "shared key", "user over TLS"])
def test_the_npm_client_gets_its_acknowledgements(mode, how, door, npm_client, tls):
    """In every mode; many messages in flight on one connection, each acknowledgement within its 500 ms."""
    settings, options = {}, {"eventMode": mode, "ack": {}, "socket": {"host": "localhost", "timeout": 3000}}
    if how != "plain":
        settings["shared_key"] = "key"
        options["security"] = {"clientHostname": "here", "sharedKey": "key"}
    if how == "user over TLS":
        settings |= {"users": {"node": "pass"}, "tls": tls.server()}
        options["security"] |= {"username": "node", "password": "pass"}
        options["socket"]["tls"] = {"ca": Path(tls.files["ca"]).read_text()}
    running = door(listen="localhost:0", **settings)
    options["socket"]["port"] = running.port
    assert npm_client(LINES, options) == (0, "")
    assert sorted(running.lines) == sorted(LINES)


def test_the_npm_client_with_a_wrong_key_is_refused(door, npm_client, wait_until):
    """Nothing arrives."""
    running = door(shared_key="key")
    options = {"ack": {}, "security": {"clientHostname": "here", "sharedKey": "wrong"}}
    options["socket"] = {"host": "127.0.0.1", "port": running.port, "timeout": 1000}
    npm_client(LINES[:1], options, deadline_s=2)
    wait_until(lambda: running.closed("auth") >= 1, "the refusal")
    assert running.batches == []


# --- Fluent Bit -------------------------------------------------------------------------------------------------------------

PARSERS = "[PARSER]\n    name json\n    format json\n"
UPSTREAM = """[UPSTREAM]
    name receivers
[NODE]
    name one
    host 127.0.0.1
    port {port}
    require_ack_response on
"""


@pytest.fixture
def tail(tmp_path):
    """A function that lets Fluent Bit send LINES with some output options; it is stopped at the end."""
    program = os.environ.get("FLUENT_BIT") or shutil.which("fluent-bit")
    if not program:
        pytest.skip("needs Fluent Bit 5.1: install it (docs.fluentbit.io) or name it in the variable FLUENT_BIT")
    started = []

    def start(*output, parser=""):
        (tmp_path / "audit.log").write_text("".join(line + "\n" for line in LINES))
        (tmp_path / "parsers.conf").write_text(PARSERS)
        source = ["path=" + str(tmp_path / "audit.log"), "tag=audit", "read_from_head=on", "buffer_max_size=9000000"]
        source += [f"parser={parser}"] if parser else []
        sink = ["require_ack_response=on", "net.io_timeout=5s", "retry_limit=no_limits", *output]
        command = [program, "-q", "-f", "0.2", "-R", str(tmp_path / "parsers.conf")]
        command += ["-i", "tail", *(part for option in source for part in ("-p", option))]
        command += ["-o", "forward", *(part for option in sink for part in ("-p", option)), "-m", "*"]
        with open(tmp_path / "fluent-bit.log", "wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "options",
    [(), ("compress=gzip",), ("retain_metadata_in_forward_mode=false",), ("time_as_integer=true",)],
    ids=["raw", "gzip", "no metadata", "integer time"],
)
def test_fluent_bit_sends_every_line_once(options, door, tail, wait_until):
    """Byte for byte, in order, acknowledged: nothing comes twice."""
    running = door()
    tail("host=127.0.0.1", f"port={running.port}", *options)
    wait_until(lambda: running.received >= len(LINES), "all lines")
    assert running.lines == LINES
    assert all(line.time_s > 1.7e9 for batch in running.batches for line in batch.lines)


def test_fluent_bit_with_a_parser_sends_maps(door, tail, wait_until):
    """They become the same events as JSON again."""
    running = door()
    tail("host=127.0.0.1", f"port={running.port}", parser="json")
    wait_until(lambda: running.received >= len(LINES), "all lines")
    assert [json.loads(line) for line in running.lines] == [json.loads(line) for line in LINES]


def test_fluent_bit_with_an_upstream_file(door, tail, tmp_path, wait_until):
    """The HA form sends entries without metadata."""
    running = door()
    (tmp_path / "upstream.conf").write_text(UPSTREAM.format(port=running.port))
    tail(f"upstream={tmp_path / 'upstream.conf'}")
    wait_until(lambda: running.received >= len(LINES), "all lines")
    assert running.lines == LINES


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual tls"])
def test_fluent_bit_with_tls_shared_key_user_and_ack(mutual, door, tail, tls, wait_until):
    """Everything at once, the server's certificate verified."""
    running = door(shared_key="key", users={"node": "pass"}, tls=tls.server(mutual=mutual))
    secure = [
        "tls=on",
        "tls.verify=on",
        "tls.verify_hostname=on",
        "tls.vhost=localhost",
        f"tls.ca_file={tls.files['ca']}",
    ]
    if mutual:
        secure += [f"tls.crt_file={tls.files['client']}", f"tls.key_file={tls.files['client-key']}"]
    tail("host=127.0.0.1", f"port={running.port}", *secure, "shared_key=key", "username=node", "password=pass")
    wait_until(lambda: running.received >= len(LINES), "all lines")
    assert running.lines == LINES


def test_fluent_bit_over_a_unix_socket(door, tail, tmp_path, wait_until):
    """With acknowledgement; a shared key would abort the agent there."""
    running = door(listen=f"unix:{tmp_path}/forward.sock")
    tail(f"unix_path={tmp_path}/forward.sock")
    wait_until(lambda: running.received >= len(LINES), "all lines")
    assert running.lines == LINES


def test_fluent_bit_with_the_wrong_key_delivers_nothing(door, tail, wait_until, caplog):
    """It would use an open connection for data; ours is closed, and the log says what is wrong."""
    running = door(shared_key="key")
    tail("host=127.0.0.1", f"port={running.port}", "shared_key=wrong")
    wait_until(lambda: running.closed("auth") >= 1, "the refusal")
    assert running.batches == []
    assert any("the shared key is wrong" in record.getMessage() for record in caplog.records)


def test_fluent_bit_sends_again_what_was_not_acknowledged(door, tail, wait_until):
    """Refused once, delivered then: all of it, and nothing that was acknowledged a second time."""
    running = door(ack_timeout_s=0.2)
    running.errors = [Overloaded("full", retry_after_s=9)] * 1
    tail("host=127.0.0.1", f"port={running.port}")
    wait_until(lambda: running.received >= len(LINES), "the second attempt")
    assert running.lines == LINES
    assert running.closed("overloaded") == 1


@pytest.mark.parametrize(("datagram", "answer"), [(b"\0", b"\0"), (b"\0\0", None), (b"x", None)])
def test_a_udp_heartbeat_of_fluentd_is_answered_where_it_was_asked_for(door, datagram, answer):
    """One zero byte there and back on the same port; anything else gets no answer."""
    running = door(udp_heartbeat=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        client.sendto(datagram, ("127.0.0.1", running.port))
        if answer is None:
            with pytest.raises(TimeoutError):
                client.recv(10)
        else:
            assert client.recv(10) == answer


def test_no_udp_port_is_open_by_default(door):
    """Nobody asked for one."""
    running = door()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", running.port))


def test_a_udp_heartbeat_on_a_unix_socket_is_refused(door, tmp_path):
    """There is no such port."""
    with pytest.raises(ConfigError, match="a Unix socket has no UDP port"):
        door(listen=f"unix:{tmp_path}/f.sock", udp_heartbeat=True)
