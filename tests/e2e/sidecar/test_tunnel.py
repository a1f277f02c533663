"""The ways to the receiver: directly, and by HTTP CONNECT through proxies that are not ours: tinyproxy behind socat, squid
behind nginx.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import trustme

from forwarder.sidecar.metrics import SIDECAR_METRICS
from forwarder.sidecar.relay import Relay
from forwarder.sidecar.tunnel import Direct, Target, TlsProxy, TunnelError, UnixProxy, dial
from forwarder.telemetry import Telemetry
from tests.ports import free_port

pytestmark = pytest.mark.e2e


@pytest.fixture
def program(tmp_path, wait_until):
    """A function that starts a program of the system and waits for its port or socket; skips where it is missing."""
    started = []

    def start(name, *arguments, port=0, path=None):
        found = shutil.which(name)
        if not found:
            pytest.skip(f"needs {name}: apt-get install {name}")
        started.append(subprocess.Popen([found, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def up():
            if path:
                return os.path.exists(path)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_until(up, name)

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def tinyproxy(tmp_path, program):
    """Its port."""
    port = free_port()
    config = tmp_path / "tinyproxy.conf"
    config.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 200\nAllow 127.0.0.1\nLogLevel Critical\n"
    )
    program("tinyproxy", "-d", "-c", str(config), port=port)
    return port


@pytest.fixture
def squid(tmp_path, program):
    """Its port."""
    port = free_port()
    config = tmp_path / "squid.conf"
    config.write_text(
        f"http_port 127.0.0.1:{port}\nhttp_access allow localhost\nhttp_access deny all\ncache deny all\n"
        "access_log none\ncache_log /dev/null\ncache_store_log none\npid_filename none\nnetdb_filename none\n"
        "pinger_enable off\nshutdown_lifetime 0 seconds\nvisible_hostname squid.test\n"
    )
    program("squid", "-N", "-f", str(config), port=port)
    return port


@pytest.fixture
def nginx(tmp_path, program):
    """`nginx(listen, to, …)`: a stream server in front of the loopback port `to`."""

    def start(listen, to, *directives, **where):
        folders = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))
        module = next((path for folder in folders for path in folder.glob("ngx_stream_module.so")), None)
        if module is None:
            pytest.skip("needs nginx with its stream module: apt-get install nginx libnginx-mod-stream")
        config = tmp_path / "nginx.conf"
        inside = " ".join(
            f"{directive};" for directive in (f"listen {listen}", f"proxy_pass 127.0.0.1:{to}", *directives)
        )
        config.write_text(
            f"load_module {module};\ndaemon off;\nmaster_process off;\npid {tmp_path}/nginx.pid;\n"
            f"error_log /dev/null;\nevents {{ worker_connections 1024; }}\nstream {{ server {{ {inside} }} }}\n"
        )
        program("nginx", "-e", "/dev/null", "-p", str(tmp_path), "-c", str(config), **where)

    return start


@pytest.fixture
def unix_way(tmp_path, program, nginx, request):
    """`unix_way(proxy)`: HTTP CONNECT spoken behind a Unix socket."""

    def start(proxy):
        path = tmp_path / "konnectivity.socket"
        port = request.getfixturevalue(proxy)
        if proxy == "squid":
            nginx(f"unix:{path}", port, path=path)
        else:
            program("socat", f"UNIX-LISTEN:{path},fork", f"TCP:127.0.0.1:{port}", path=path)
        return UnixProxy(str(path))

    return start


@pytest.fixture
def tls_way(tmp_path, program, nginx, authority, request):
    """`tls_way(proxy)`: the same behind a TLS port that asks for a client certificate."""

    def start(proxy):
        files = authority.files(tmp_path / "proxy", "127.0.0.1")
        port, behind = free_port(), request.getfixturevalue(proxy)
        if proxy == "squid":
            certificates = (f"ssl_certificate {files}/tls.crt", f"ssl_certificate_key {files}/tls.key")
            clients = (f"ssl_client_certificate {files}/ca.crt", "ssl_verify_client on")
            nginx(f"127.0.0.1:{port} ssl", behind, *certificates, *clients, port=port)
        else:
            options = f"cert={files}/tls.crt,key={files}/tls.key,cafile={files}/ca.crt,verify=1"
            listen = f"OPENSSL-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=100,{options}"
            program("socat", listen, f"TCP:127.0.0.1:{behind}", port=port)
        return TlsProxy("127.0.0.1", port, f"{files}/ca.crt", f"{files}/tls.crt", f"{files}/tls.key")

    return start


PROXIES = ["tinyproxy", "squid"]


@pytest.fixture(params=["direct", *(f"{way}-{proxy}" for way in ("unix", "tls") for proxy in PROXIES)])
def way(request):
    kind, _, proxy = request.param.partition("-")
    return request.getfixturevalue(f"{kind}_way")(proxy) if proxy else Direct()


@pytest.fixture
async def relay(way):
    made = Relay(way, Telemetry(SIDECAR_METRICS))
    made.start()
    yield made
    await made.stop()


class Echo:
    """A TLS server in a thread that sends back what it gets, in capitals, and closes at the end of the stream."""

    def __init__(self, name):
        authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(self.context)
        self.client = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self):
        threads = []
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                break
            threads.append(threading.Thread(target=self._serve, args=[raw]))
            threads[-1].start()
        for thread in threads:
            thread.join(10)

    def _serve(self, raw):
        with contextlib.suppress(OSError), self.context.wrap_socket(raw, server_side=True) as connection:
            while data := connection.recv(65536):
                connection.sendall(data.upper())

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def echo():
    server = Echo("kubernetes-audit-tailer")
    yield server
    server.close()


async def test_tls_runs_inside_end_to_end_with_the_receivers_name(relay, echo):
    """Fifty connections at once over each way; the name in the certificate is the receiver's, not that of any hop."""
    await relay.set_target(Target("127.0.0.1", echo.port))

    async def talk(number):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", relay.port, ssl=echo.client, server_hostname="kubernetes-audit-tailer"
        )
        text = b"line %d " % number * 20_000
        writer.write(text)
        assert await asyncio.wait_for(reader.readexactly(len(text)), 20) == text.upper()
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(talk(number) for number in range(50)))


async def test_another_name_is_refused_through_every_way(relay, echo):
    """A way cannot put another receiver in place of ours."""
    await relay.set_target(Target("127.0.0.1", echo.port))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await asyncio.open_connection("127.0.0.1", relay.port, ssl=echo.client, server_hostname="somebody-else")


async def test_a_target_that_nobody_serves_closes_the_connection(relay):
    """So that Fluent Bit keeps its chunk and tries again."""
    await relay.set_target(Target("127.0.0.1", free_port()))
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_refusal_is_reported_with_the_proxys_status(unix_way, proxy):
    """An operator reads what the proxy said, not only that something failed."""
    way = unix_way(proxy)
    with pytest.raises(TunnelError, match=r"the proxy answers 5[0-9][0-9]") as refused:
        await dial(way, Target("127.0.0.1", free_port()), asyncio.Protocol)
    assert refused.value.cause.startswith("proxy_5")


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_proxy_that_does_not_know_us_lets_nobody_through(tls_way, proxy, echo, authority, tmp_path):
    """The other half of mutual TLS: a certificate of a stranger's authority is refused."""
    known = tls_way(proxy)
    stranger = type(authority)().files(tmp_path / "stranger", "someone")
    way = TlsProxy("127.0.0.1", known.port, known.ca_file, f"{stranger}/tls.crt", f"{stranger}/tls.key")
    with pytest.raises(TunnelError):
        await dial(way, Target("127.0.0.1", echo.port), asyncio.Protocol)


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_proxy_with_another_name_is_not_believed(tls_way, proxy):
    """Its certificate is for 127.0.0.1: whoever answers for another name is not the proxy that was meant."""
    known = tls_way(proxy)
    way = TlsProxy("localhost", known.port, known.ca_file, known.crt_file, known.key_file)
    with pytest.raises(TunnelError, match="cannot be verified: Hostname mismatch"):
        await dial(way, Target("127.0.0.1", 1), asyncio.Protocol)


@pytest.mark.parametrize("kind", ["unix", "tls"])
@pytest.mark.parametrize("proxy", PROXIES)
def test_the_whole_sidecar_through_a_proxy(
    request, kind, proxy, apiserver, kubeconfig, sidecar, ack_server, authority, wait_until
):
    """Fluent Bit's own TLS runs inside the tunnel; tunnels that are cut are dug anew, and no line is lost."""
    way = request.getfixturevalue(f"{kind}_way")(proxy)
    receiver = ack_server(context=authority.server_context())
    apiserver.put_secret(authority.secret())
    apiserver.put_service(receiver.port)
    if isinstance(way, UnixProxy):
        options = {"konnectivity-uds-socket": way.path}
    else:
        files = {"ca": way.ca_file, "client-crt": way.crt_file, "client-key": way.key_file}
        options = {f"proxy-{name}-file": path for name, path in files.items()}
        options |= {"proxy-host": way.host, "proxy-port": way.port}
    running = sidecar(kubeconfig(apiserver.url), **options)
    lines = [b'{"n":%d}' % number for number in range(400)]
    running.write(lines[:200])
    wait_until(lambda: len(set(receiver.lines)) >= 200, "the first half")
    receiver.disconnect()
    running.write(lines[200:])
    wait_until(lambda: set(receiver.lines) == set(lines), "the rest, over new tunnels")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param(("none", "tls.crt", "tls.key"), "cannot use .*none: No such file", id="ca"),
        pytest.param(("ca.crt", "none", "tls.key"), "cannot use .*none with .*: No such file", id="certificate"),
        pytest.param(("ca.crt", "ca.crt", "tls.key"), "key values mismatch", id="pair"),
    ],
)
async def test_files_for_the_proxy_that_cannot_be_used_are_named(authority, tmp_path, files, said):
    """Which file, and what is wrong with it."""
    folder = authority.files(tmp_path / "proxy", "127.0.0.1")
    way = TlsProxy("127.0.0.1", 1, *(f"{folder}/{name}" for name in files))
    with pytest.raises(TunnelError, match=said):
        await dial(way, Target("127.0.0.1", 1), asyncio.Protocol)


@pytest.fixture
async def speak(tmp_path):
    """A function that opens a Unix socket which answers every CONNECT with these pieces, or with nothing; as a way."""
    servers, tasks, done = [], set(), asyncio.Event()

    async def start(answer, *, close=True):
        async def serve(reader, writer):
            tasks.add(asyncio.current_task())
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                for piece in answer:
                    writer.write(piece)
                    await asyncio.sleep(0.01)
                if not close:
                    await done.wait()
            writer.close()

        servers.append(await asyncio.start_unix_server(serve, tmp_path / "proxy"))
        return UnixProxy(str(tmp_path / "proxy"))

    yield start
    done.set()
    await asyncio.gather(*tasks)
    for server in servers:
        server.close()
    await asyncio.sleep(0.05)


class Collect(asyncio.Protocol):
    def __init__(self):
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.data += data

    def connection_lost(self, error):
        self.lost.set_result(None)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nfirst", b" second"], id="with-the-200"),
        pytest.param([b"HTTP/1.0 200", b" Connection established\r", b"\n\r\nfirst second"], id="in-pieces"),
        pytest.param([b"HTTP/1.1 204 No Content\r\n\r\n", b"first", b" second"], id="after-it"),
    ],
)
async def test_what_comes_with_the_proxys_answer_belongs_to_the_tunnel(speak, answer):
    """A receiver that speaks first (HELO) may be quicker than the proxy."""
    made = await dial(await speak(answer), Target("10.0.0.1", 24224), Collect)
    await asyncio.wait_for(made.lost, 5)
    assert made.data == b"first second"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        pytest.param([b"HTTP/1.1 403 Forbidden\r\n\r\nsecret"], "proxy_403", id="403"),
        pytest.param([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], "proxy_answer", id="no-http"),
        pytest.param([b"x" * 20_000], "proxy_answer", id="endless"),
        pytest.param([], "proxy_closed", id="closed"),
    ],
)
async def test_an_answer_that_is_no_yes_is_an_error_with_its_cause(speak, answer, cause):
    """The cause is a metric label; the body of the answer is not repeated."""
    with pytest.raises(TunnelError) as failed:
        await dial(await speak(answer), Target("10.0.0.1", 24224), Collect)
    assert failed.value.cause == cause
    assert "secret" not in str(failed.value)


async def test_a_proxy_that_says_nothing_is_given_up(speak):
    """A hung proxy holds no connection for ever."""
    silent = await speak([], close=False)
    with pytest.raises(TunnelError, match=r"no answer within 0\.2 s") as failed:
        await dial(silent, Target("10.0.0.1", 24224), Collect, timeout_s=0.2)
    assert failed.value.cause == "timeout"
