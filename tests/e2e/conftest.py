"""Real programs for the end-to-end tests: Fluent Bit, and a Forward server that shares no code with ours."""

import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from tests.e2e.kafka.broker import Broker, missing
from tests.ports import free_port

DEADLINE_S = 30.0  # for anything that should take a second or two; a shared machine may be slow


@pytest.fixture
def wait_until():
    """A function that polls until `condition()` is true and fails naming `what`."""

    def wait(condition, what, deadline_s=DEADLINE_S):
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end, f"waited {deadline_s:.0f} s for {what}"
            time.sleep(0.02)

    return wait


class AckServer:
    """Takes Forward messages on loopback, remembers the lines, acknowledges; written from the protocol's text alone.

    lines: every `log` in order of arrival. silent: nothing is acknowledged and nothing remembered while it is set.
    shared_key: with one, clients go through HELO, PING and PONG first. context: with one, TLS.
    """

    def __init__(self, *, shared_key=None, context=None):
        self.lines = []
        self.tags = set()
        self.client_names = set()
        self.failures = []
        self.silent = False
        self._key = shared_key
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = set()
        self._threads = [threading.Thread(target=self._accept, name="ack-server")]
        self._threads[0].start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.disconnect()
        for thread in list(self._threads):
            thread.join(10)

    def disconnect(self):
        """Cut every connection."""
        for connection in list(self._open):
            try:
                # Not its own `shutdown`: a TLS socket would forget TLS first, and its thread would read what is encrypted.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=[connection], name="ack-connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw):
        connection = raw
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(raw, server_side=True)
            self._open.add(connection)
            unpacker = msgpack.Unpacker(raw=True, max_buffer_size=64 << 20)
            if self._key is not None and not self._handshake(connection, unpacker):
                return
            while data := connection.recv(1 << 18):
                unpacker.feed(data)
                for message in unpacker:
                    self._take(connection, message)
        except OSError as error:
            if isinstance(error, ssl.SSLError):
                self.failures.append(str(error))
        finally:
            self._open.discard(connection)
            connection.close()

    def _handshake(self, connection, unpacker):
        nonce = secrets.token_bytes(16)
        connection.sendall(msgpack.packb(["HELO", {"nonce": nonce, "auth": b"", "keepalive": True}]))
        while True:
            data = connection.recv(4096)
            if not data:
                return False
            unpacker.feed(data)
            for message in unpacker:
                _, name, salt, digest, _, _ = message
                key = self._key.encode()
                valid = hashlib.sha512(salt + name + nonce + key).hexdigest().encode() == digest
                answer = hashlib.sha512(salt + b"server" + nonce + key).hexdigest()
                connection.sendall(msgpack.packb(["PONG", valid, "" if valid else "wrong key", "server", answer]))
                self.client_names.add(name.decode())
                return valid

    def _take(self, connection, message):
        if self.silent:
            return
        tag, entries, *rest = message
        if isinstance(entries, bytes):
            packed = msgpack.Unpacker(raw=True, max_buffer_size=64 << 20)
            packed.feed(entries)
            entries = list(packed)
        self.tags.add(tag.decode())
        self.lines += [record[b"log"] for _, record in entries]
        chunk = rest[0].get(b"chunk") if rest else None
        if chunk is not None:
            connection.sendall(msgpack.packb({"ack": chunk.decode()}))


@pytest.fixture
def ack_server():
    """A function that starts an AckServer; all of them are stopped at the end."""
    servers = []

    def start(**settings):
        servers.append(AckServer(**settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class FluentBit:
    """One Fluent Bit with one of our configurations; what it says is kept in a file."""

    def __init__(self, program, config, folder, environment):
        self._arguments = [program, "-c", str(config)]
        self._environment = {"PATH": os.environ["PATH"], "FLUENT_BIT_STATE": str(folder), **environment}
        self._port = environment["FLUENT_BIT_HTTP_PORT"]
        self.log = Path(folder) / "fluent-bit.log"
        self._process = None
        self.start()

    def start(self):
        with open(self.log, "ab") as output:
            self._process = subprocess.Popen(self._arguments, env=self._environment, stdout=output, stderr=output)

    def stop(self, sign=signal.SIGTERM):
        """Send a signal and wait until it is gone."""
        if self._process is None:
            return
        self._process.send_signal(sign)
        try:
            self._process.wait(15)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def kill(self):
        self.stop(signal.SIGKILL)

    def records_read(self):
        """How many lines it has read since it was started, by its own metrics; 0 while it does not answer yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/metrics", timeout=5) as answer:
                return json.load(answer)["input"]["tail.0"]["records"]
        except OSError:
            return 0


@pytest.fixture
def fluent_bit(tmp_path):
    """A function that starts the real Fluent Bit; skips where there is none."""
    program = os.environ.get("FLUENT_BIT") or shutil.which("fluent-bit")
    if not program:
        pytest.skip("needs Fluent Bit 5.1: install it (docs.fluentbit.io) or name it in the variable FLUENT_BIT")
    started = []

    def start(config, environment):
        folder = tmp_path / "fluent-bit"
        folder.mkdir(exist_ok=True)
        port = str(free_port())
        started.append(FluentBit(program, config, folder, {"FLUENT_BIT_HTTP_PORT": port, **environment}))
        return started[-1]

    yield start
    for agent in started:
        agent.kill()


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all tests; each has topics of its own."""
    if why := missing():
        pytest.skip(why)
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()
