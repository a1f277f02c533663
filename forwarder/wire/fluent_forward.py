"""The receiving side of the Fluent Forward protocol (v1, with v1.5's metadata). Sans-IO: no socket, clock or logger.

    receiver = ForwardReceiver()
    receiver.receive_data(data)                    # or, without a copy: n = sock.recv_into(receiver.room()); wrote(n)
    while (event := receiver.next_event()) is not NEED_DATA:
        match event:
            case MessageStart(): ...
            case Entries(): screen each event.buffer[start:end] of event.spans in place
            case MessageEnd() if event.chunk is not None: sock.send(ack(event.chunk)), once all of it is durable

A message is one msgpack array, `[tag, entries, options]` or `[tag, time, record, options]`. Which of the four modes it
is, the type of the second element tells, never the array's length. Entries leave as they come in, so no message is ever
held whole; what is held is one entry that is cut, of at most MAX_ENTRY_BYTES. Strings are bytes throughout: "str" on
this wire carries salts, gzip and broken UTF-8.

What is no entry of audit data but leaves the message readable is an event (`Entries.others`, `Unreadable`), because bad
input is counted and kept; what leaves the stream unreadable is a ForwardProtocolError: never acknowledge, close. Bytes
that end early inside a blob which is whole are such an error, not a wait for more. The contract ends here: any
exception other than ForwardProtocolError is a bug.
"""

import hashlib
from collections.abc import Generator
from typing import Any

import msgpack

from forwarder.errors import ForwardProtocolError
from forwarder.wire import forward_inflate
from forwarder.wire.forward_entries import MAX_ENTRIES_PER_SCAN, MAX_ENTRY_BYTES, EntryScanner, Scan
from forwarder.wire.forward_events import (
    NEED_DATA,
    Entries,
    Event,
    Heartbeat,
    MessageEnd,
    MessageStart,
    Unreadable,
    ack,
)
from forwarder.wire.forward_handshake import MAX_HANDSHAKE_BYTES, ServerHandshake
from forwarder.wire.msgpack_spans import NIL, Buffer, Header, header, walk
from forwarder.wire.receive_buffer import BufferPool, ReceiveBuffer

__all__ = [
    "NEED_DATA",
    "Entries",
    "Event",
    "ForwardReceiver",
    "Heartbeat",
    "MessageEnd",
    "MessageStart",
    "Unreadable",
    "ack",
]

MAX_MESSAGE_BYTES = 256 << 20  # as sent; Fluentd's chunks are 8 MB by default, Fluent Bit's 2 MB
MAX_TAG_BYTES = 16 << 10  # Fluent Bit stops at 4 KiB
MAX_OPTION_BYTES = 64 << 10  # an agent may add options of its own; those known take below 200 bytes
MAX_CHUNK_BYTES = 512  # ids seen have 24 to 32 characters; Fluent Bit reads no more than 511 bytes of our echo

_Steps = Generator[Event, None, Any]


class ForwardReceiver:
    """One connection's incoming bytes. With a handshake, nothing is accepted before the peer has passed it.

    The owner sends `handshake.hello()` first, sends the reply of the Verdict that comes as an event, and closes at once
    where it is not ok; after such a verdict no other event ever comes.
    """

    def __init__(
        self, *, log_key: str = "log", handshake: ServerHandshake | None = None, pool: BufferPool | None = None
    ) -> None:
        self._log_key = log_key.encode()
        self._handshake = handshake
        self._buffer = ReceiveBuffer(pool)
        self._inflating_bytes = 0  # what is inflated and not consumed, and the decompressor's own memory
        self._entries = 0  # of the present message
        self._steps = self._run()
        self._error: ForwardProtocolError | None = None

    @property
    def held_bytes(self) -> int:
        """The memory that this receiver keeps from others."""
        return self._buffer.held_bytes + self._inflating_bytes

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that were received, in order. They are copied."""
        self._buffer.append(data)

    def room(self) -> memoryview:
        """Memory to receive into; `wrote(size)` says how much it was. Raises ForwardProtocolError when nothing fits."""
        return self._buffer.room()

    def wrote(self, size: int) -> None:
        """`size` bytes were received into what `room` gave."""
        self._buffer.wrote(size)

    def close(self) -> None:
        """Let go of all memory at once, what was received and not told included; after this only an error comes."""
        self._steps.close()
        self._buffer.release()
        self._inflating_bytes = 0
        self._error = ForwardProtocolError("the connection is closed")

    def next_event(self) -> Event:
        """The next thing that the received bytes say. Raises ForwardProtocolError, and from then on always."""
        if self._error is not None:
            raise self._error
        try:
            event = next(self._steps)
        except ForwardProtocolError as error:
            self._error = error
            raise
        if event is NEED_DATA:
            self._buffer.rest()
        return event

    # --- the grammar, top down; a step that lacks bytes yields NEED_DATA and looks again ---

    def _run(self) -> _Steps:
        yield from self._sniff()
        if self._handshake is not None:
            verdict = self._handshake.judge((yield from self._object(MAX_HANDSHAKE_BYTES, "a handshake message")))
            yield verdict
            if not verdict.ok:
                raise ForwardProtocolError(f"the peer is not who it should be: {verdict.reason}")
        while True:
            yield from self._message()

    def _sniff(self) -> _Steps:
        while not len(self._buffer):
            yield NEED_DATA
        first = self._buffer.data[self._buffer.start]
        if self._handshake is None and first != NIL and not 0x92 <= first <= 0x94 and first not in (0xDC, 0xDD):
            raise ForwardProtocolError(_stranger(first))
        if self._handshake is not None and first not in (0x96, 0xDC, 0xDD):
            if 0x92 <= first <= 0x94 or first == NIL:
                raise ForwardProtocolError(
                    "data without the handshake that is required here; give the sender this door's shared_key"
                )
            raise ForwardProtocolError(_stranger(first))

    def _message(self) -> _Steps:
        head = yield from self._head()
        if head.kind == "nil":
            yield Heartbeat()
            return
        if head.kind != "array" or not 2 <= head.size <= 4:
            raise ForwardProtocolError("no Forward message: expected an array of two to four elements")
        elements = head.size
        tag = yield from self._tag()
        yield MessageStart(tag)
        self._entries = 0
        body = yield from self._head(consume=False)
        if body.kind == "array":
            yield from self._head()
            yield from self._forward(body.size)
        elif body.kind in ("bin", "str"):
            yield from self._head()
            yield from self._blob(body.size)
        elif body.kind in ("int", "ext"):
            elements -= 1  # time and record are two elements
            yield from self._single()
        else:
            raise ForwardProtocolError(f"no Forward message: its second element is a {body.kind}")
        if elements not in (2, 3):
            raise ForwardProtocolError("no Forward message: wrong number of elements for its mode")
        yield (yield from self._options()) if elements == 3 else MessageEnd(None, None, self._entries)

    def _tag(self) -> Generator[Event, None, bytes]:
        head = yield from self._head()
        if head.kind not in ("str", "bin"):
            raise ForwardProtocolError(f"no Forward message: its tag is a {head.kind}")
        if head.size > MAX_TAG_BYTES:
            raise ForwardProtocolError(f"a tag larger than {MAX_TAG_BYTES} bytes")
        while len(self._buffer) < head.size:
            yield NEED_DATA
        return self._take(head.size)

    def _single(self) -> _Steps:
        """Message mode: time and record stand in the message itself."""
        size = yield from self._whole(2, MAX_ENTRY_BYTES, "an entry")
        start = self._buffer.start
        found = EntryScanner(self._log_key, in_blob=False).single(self._buffer.data, start, start + size)
        self._buffer.start += size
        yield self._found(self._buffer.data, found, -start)

    def _forward(self, entries: int) -> _Steps:
        """Forward mode: an array of entries."""
        scanner, done = EntryScanner(self._log_key, in_blob=False), 0
        while entries:
            buffer = self._buffer
            start = buffer.start
            found = scanner.scan(buffer.data, start, buffer.end, min(entries, MAX_ENTRIES_PER_SCAN))
            buffer.start = found.stop
            if len(found):
                entries -= len(found)
                yield self._found(buffer.data, found, done - start)
                done += found.stop - start
                if done > MAX_MESSAGE_BYTES:
                    raise ForwardProtocolError(f"a message larger than {MAX_MESSAGE_BYTES >> 20} MiB")
            elif found.broken:
                raise ForwardProtocolError("a byte that msgpack never uses (0xc1) in an entry")
            else:
                yield NEED_DATA

    def _blob(self, size: int) -> _Steps:
        """PackedForward and CompressedPackedForward: one bin or str, entries behind entries inside."""
        if size > MAX_MESSAGE_BYTES:
            raise ForwardProtocolError(f"a message larger than {MAX_MESSAGE_BYTES >> 20} MiB")
        sniffed = min(size, forward_inflate.SNIFF_BYTES)
        while len(self._buffer) < sniffed:
            yield NEED_DATA
        start = self._buffer.start
        inflater = forward_inflate.for_blob(bytes(self._buffer.data[start : start + sniffed]))
        yield from self._plain(size) if inflater is None else self._inflated(inflater, size)

    def _plain(self, size: int) -> _Steps:
        scanner, left = EntryScanner(self._log_key, in_blob=True), size
        while left:
            buffer = self._buffer
            start = buffer.start
            whole = len(buffer) >= left
            found = scanner.scan(buffer.data, start, min(buffer.end, start + left))
            buffer.start = found.stop
            if len(found):
                yield self._found(buffer.data, found, size - left - start)
                left -= found.stop - start
            elif found.broken:
                rest = _Rest(size - left)
                while left:
                    left -= rest.add(self._take(min(left, len(self._buffer))))
                    if left:
                        yield NEED_DATA
                self._entries += 1
                yield rest.event()
            elif whole:
                raise ForwardProtocolError("a blob that ends in the middle of an entry")
            else:
                yield NEED_DATA

    def _inflated(self, inflater: forward_inflate.Inflater, left: int) -> _Steps:
        scanner, rest = EntryScanner(self._log_key, in_blob=True), None
        window = bytearray()
        offset = inflated = 0  # of window[0], of the end of the window, in the inflated blob
        while True:
            piece = inflater.read()
            self._inflating_bytes = len(window) + len(piece) + inflater.held_bytes
            if not piece:
                if not left:
                    break
                fed = min(left, len(self._buffer), forward_inflate.FEED_BYTES)
                if fed:
                    inflater.feed(self._take(fed))
                    left -= fed
                    yield Entries(window, [], [], [], offset)  # so that nobody waits for thousands of empty members
                else:
                    yield NEED_DATA
                continue
            inflated += len(piece)
            if inflated > forward_inflate.MAX_INFLATED_BYTES:
                raise ForwardProtocolError(
                    f"a message that inflates to more than {forward_inflate.MAX_INFLATED_BYTES >> 20} MiB"
                )
            if rest is not None:
                rest.add(piece)
                yield Entries(window, [], [], [], offset)  # so that nobody waits for 256 MiB to be hashed
                continue
            window += piece
            position = 0
            while True:
                found = scanner.scan(window, position, len(window))
                position = found.stop
                if len(found):
                    yield self._found(window, found, offset)
                    continue
                if found.broken:
                    rest = _Rest(offset + position)
                    position += rest.add(bytes(window[position:]))
                break
            if position:  # a new object, because somebody may still look into the old one
                window = window[position:]
                offset += position
        inflater.finish()
        self._inflating_bytes = 0
        if window:
            raise ForwardProtocolError("a compressed blob that ends in the middle of an entry")
        if rest is not None:
            self._entries += 1
            yield rest.event()

    def _options(self) -> Generator[Event, None, MessageEnd]:
        try:
            data = yield from self._object(MAX_OPTION_BYTES, "options")
            options = msgpack.unpackb(data, raw=True, strict_map_key=False)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
            raise ForwardProtocolError("no Forward message: its options cannot be read") from None
        if options is None:
            options = {}
        if not isinstance(options, dict):
            raise ForwardProtocolError("no Forward message: its options are no map")
        chunk, size = options.get(b"chunk"), options.get(b"size")
        if chunk is not None and not (isinstance(chunk, bytes) and len(chunk) <= MAX_CHUNK_BYTES):
            raise ForwardProtocolError(f"a chunk id that is no text of at most {MAX_CHUNK_BYTES} bytes")
        return MessageEnd(chunk, size if isinstance(size, int) else None, self._entries)

    # --- bytes ---

    def _found(self, buffer: Buffer, found: Scan, offset: int) -> Entries:
        self._entries += len(found)
        return Entries(buffer, found.spans, found.starts, found.others, offset)

    def _head(self, *, consume: bool = True) -> Generator[Event, None, Header]:
        while True:
            head = header(self._buffer.data, self._buffer.start, self._buffer.end)
            if head is not None:
                break
            yield NEED_DATA
        if consume:  # an ext's or int's body stays; only containers and texts are consumed this way
            self._buffer.start = head.body
        return head

    def _whole(self, objects: int, limit: int, what: str) -> Generator[Event, None, int]:
        """Wait for `objects` whole objects: their size together."""
        walked = 0
        while True:
            start, end = self._buffer.start, self._buffer.end
            at, objects = walk(self._buffer.data, start + walked, end, objects)
            walked = at - start
            if walked > limit:
                raise ForwardProtocolError(f"{what} larger than {limit} bytes")
            if not objects and at <= end:
                return walked
            yield NEED_DATA

    def _object(self, limit: int, what: str) -> Generator[Event, None, bytes]:
        return self._take((yield from self._whole(1, limit, what)))

    def _take(self, size: int) -> bytes:
        start = self._buffer.start
        self._buffer.start += size
        return bytes(self._buffer.data[start : start + size])


class _Rest:
    """What follows in a blob after its entries became unreadable: measured, not held."""

    def __init__(self, offset: int) -> None:
        self._offset, self._size, self._digest = offset, 0, hashlib.sha256()

    def add(self, data: bytes) -> int:
        self._size += len(data)
        self._digest.update(data)
        return len(data)

    def event(self) -> Unreadable:
        return Unreadable(self._size, self._digest.hexdigest(), self._offset)


def _stranger(first: int) -> str:
    """What a first byte that no Forward message begins with says about the peer, and what to do."""
    if first == 0x16:
        return "this looks like TLS on a door without it; set `tls` here, or turn it off at the sender"
    if chr(first) in "{[":
        return "this looks like JSON; send msgpack (the Forward protocol's default)"
    if "A" <= chr(first) <= "Z":
        return "this looks like HTTP; use the webhook source for it, this door speaks the Forward protocol"
    return f"no Forward message begins with the byte 0x{first:02x}; what is connected here?"
