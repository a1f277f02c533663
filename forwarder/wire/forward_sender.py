"""Sends Fluent Forward messages over one connection, and waits for their acknowledgements. Blocking, with a deadline.

    sender = ForwardSender(address, shared_key="…", tls=context, server_name="collector")
    sender.send(frame, chunk=b"…", deadline_s=10.0)      # raises OSError, ForwardProtocolError, Overdue

The connection is kept. One that the server has closed meanwhile is replaced before anything is sent on it. After an
exception the connection is gone, and whether the server has the message is not known: who must not lose it sends again.
"""

import contextlib
import select
import socket
import ssl
import time

from forwarder.errors import ForwardProtocolError
from forwarder.settings import Address
from forwarder.wire.deadline import Deadline, Overdue
from forwarder.wire.forward_client import AckReader
from forwarder.wire.forward_handshake import ClientHandshake

READ_BYTES = 4096


class ForwardSender:
    """One connection at a time, opened when something is sent. For one thread."""

    def __init__(
        self,
        address: Address,
        *,
        shared_key: str = "",
        user: str = "",
        password: str = "",
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        """server_name: whose certificate is asked for; the address's host where empty."""
        self._address = address
        self._shared_key, self._user, self._password = shared_key, user, password
        self._tls = tls
        self._server_name = server_name or address.host
        self._socket: socket.socket | None = None
        self._acks = AckReader()
        self._deadline = Deadline(f"forward to {address}")

    def send(self, frame: bytes, *, chunk: bytes | None, deadline_s: float) -> None:
        """The frame is out, and acknowledged where `chunk` is given, which then stands in its options."""
        ends = time.monotonic() + deadline_s
        try:
            # In a thread: a name server that never answers is bounded by no socket's timeout.
            self._deadline.run(lambda: self._exchange(frame, chunk, ends), deadline_s, abort=self.close)
        except (OSError, ForwardProtocolError, Overdue):
            self.close()
            raise

    def probe(self, deadline_s: float) -> None:
        """Connect, with TLS and handshake where they are set, and send nothing. Raises as `send` does."""
        ends = time.monotonic() + deadline_s
        try:
            self._deadline.run(lambda: self._connect(ends), deadline_s, abort=self.close)
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection, which also ends a call that hangs on it."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None

    # --- private -----------------------------------------------------------------------------------------------------

    def _exchange(self, frame: bytes, chunk: bytes | None, ends: float) -> None:
        if self._socket is not None and self._closed_by_peer(self._socket):
            self.close()
        connection = self._socket or self._connect(ends)
        _limit(connection, ends)
        connection.sendall(frame)
        if chunk is None:
            return
        while (answer := self._acks.next_ack()) is None:
            self._acks.receive_data(_read(connection, ends))
        if answer != chunk:
            raise ForwardProtocolError("an acknowledgement for something else")

    @staticmethod
    def _closed_by_peer(connection: socket.socket) -> bool:
        """Nothing is to be read now: if there is, it is the end, or nothing that we asked for."""
        return bool(select.select([connection], [], [], 0)[0])

    def _connect(self, ends: float) -> socket.socket:
        left_s = max(0.001, ends - time.monotonic())
        if self._address.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(left_s)
            connection.connect(self._address.path)
        else:
            connection = socket.create_connection((self._address.host, self._address.port), left_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        if self._tls is not None:
            self._socket = connection = self._tls.wrap_socket(connection, server_hostname=self._server_name)
        self._acks = AckReader()
        if self._shared_key or self._user:
            self._shake_hands(connection, ends)
        return connection

    def _shake_hands(self, connection: socket.socket, ends: float) -> None:
        handshake = ClientHandshake(
            self._shared_key, user=self._user, password=self._password, host=socket.gethostname()
        )
        ping = handshake.answer(self._message(connection, ends))
        _limit(connection, ends)
        connection.sendall(ping)
        handshake.check(self._message(connection, ends))

    def _message(self, connection: socket.socket, ends: float) -> bytes:
        while (message := self._acks.next_message()) is None:
            self._acks.receive_data(_read(connection, ends))
        return message


def _limit(connection: socket.socket, ends: float) -> None:
    connection.settimeout(max(0.001, ends - time.monotonic()))


def _read(connection: socket.socket, ends: float) -> bytes:
    _limit(connection, ends)
    data = connection.recv(READ_BYTES)
    if not data:
        raise ForwardProtocolError("the server closed the connection")
    return data
