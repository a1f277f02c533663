"""What kube-proxy is to the receivers in a cluster: one address, and every new connection goes to one that accepts."""

import itertools
import socket
import threading
from collections.abc import Sequence

CONNECT_S = 2.0
CHUNK_BYTES = 1 << 16


class Service:
    """Listens on a loopback port of its own until `close`. A port that refuses is passed over, as one that is not ready."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._turns = itertools.cycle(ports)
        self._tries = len(ports)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="service")]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            _cut(one)
        for thread in list(self._threads):
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            target = self._connect()
            if target is None:
                client.close()
                continue
            self._open |= {client, target}
            for source, sink in ((client, target), (target, client)):
                thread = threading.Thread(target=self._pass_on, args=[source, sink], name="service-connection")
                self._threads.append(thread)
                thread.start()

    def _connect(self) -> socket.socket | None:
        for _ in range(self._tries):
            try:
                return socket.create_connection(("127.0.0.1", next(self._turns)), CONNECT_S)
            except OSError:
                continue
        return None

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        source.settimeout(None)
        try:
            while data := source.recv(CHUNK_BYTES):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for one in (source, sink):
                _cut(one)
                self._open.discard(one)
                one.close()


def _cut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
