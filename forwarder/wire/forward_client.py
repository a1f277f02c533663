"""The sending side of the Fluent Forward protocol: frames out, acknowledgements in. Sans-IO.

    frame = packed_forward(b"audit", entries(lines, time_s), chunk=b"1", compress="gzip")
    acks = AckReader(); acks.receive_data(sock.recv(1024)); acks.next_ack() == b"1"

For `doctor`, the benchmark and the tests; the handshake's client side is `forward_handshake.ClientHandshake`. A frame
is acknowledged only if it carries a chunk id, so a sender that must not lose anything gives one and waits.
"""

import gzip
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgpack
import zstandard

from forwarder.errors import ForwardProtocolError
from forwarder.wire.msgpack_spans import walk

Compression = Literal["", "gzip", "zstd"]

MAX_ACK_BYTES = 4 << 10  # an ack is an echo of our own chunk id; more is not a Forward server


def event_time(time_s: float) -> msgpack.ExtType:
    """`time_s` (Unix seconds) as EventTime: ext type 0, seconds and nanoseconds, 32 bits each."""
    seconds = int(time_s)
    return msgpack.ExtType(0, struct.pack(">II", seconds, int((time_s - seconds) * 1e9)))


def entry(record: Mapping[str, Any], time_s: float, *, metadata: bool = True) -> bytes:
    """One entry, `[[time, {}], record]` as Fluent Bit sends it since 5.0.5, or `[time, record]`."""
    time = event_time(time_s)
    return _pack([[time, {}] if metadata else time, record])


def entries(lines: Iterable[bytes], time_s: float, *, key: str = "log", metadata: bool = True) -> list[bytes]:
    """Each raw line as an entry with one key; bytes that are not UTF-8 pass unchanged, as they do in Fluent Bit."""
    return [entry({key: line.decode("utf-8", "surrogateescape")}, time_s, metadata=metadata) for line in lines]


def packed_forward(
    tag: bytes, packed: Iterable[bytes], *, chunk: bytes | None = None, compress: Compression = ""
) -> bytes:
    """A PackedForward (or CompressedPackedForward) message of entries that are packed already."""
    parts = list(packed)
    blob = b"".join(parts)
    options: dict[str, Any] = {} if chunk is None else {"chunk": _text(chunk)}
    options["size"] = len(parts)
    if compress:
        blob = gzip.compress(blob, 6) if compress == "gzip" else zstandard.compress(blob)
        options["compressed"] = compress
    return _pack([_text(tag), blob, options])


def message(tag: bytes, record: Mapping[str, Any], time_s: float, *, chunk: bytes | None = None) -> bytes:
    """A Message: one record, as the logging libraries send it."""
    options = {} if chunk is None else {"chunk": _text(chunk)}
    return _pack([_text(tag), int(time_s), record, options])


class AckReader:
    """Finds acknowledgements, and in front of them the handshake's messages, in what a server sends."""

    def __init__(self) -> None:
        self._data = b""

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the server. Raises ForwardProtocolError where they are more than a server ever sends."""
        self._data += data
        if len(self._data) > MAX_ACK_BYTES:
            raise ForwardProtocolError("the server sends something else than acknowledgements")

    def next_message(self) -> bytes | None:
        """The next whole message (HELO, PONG or an ack), still packed; None when more bytes are needed."""
        stop, missing = walk(self._data, 0, len(self._data), 1)
        if missing or stop > len(self._data):
            return None
        found, self._data = self._data[:stop], self._data[stop:]
        return found

    def next_ack(self) -> bytes | None:
        """The chunk id of the next acknowledgement; None when more bytes are needed."""
        packed = self.next_message()
        if packed is None:
            return None
        try:
            answer = msgpack.unpackb(packed, raw=True, strict_map_key=False)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
            answer = None
        chunk = answer.get(b"ack") if isinstance(answer, dict) else None
        if not isinstance(chunk, bytes):
            raise ForwardProtocolError("expected an acknowledgement")
        return chunk


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape"))
