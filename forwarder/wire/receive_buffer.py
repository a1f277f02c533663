"""The bytes of one connection that were received and not yet consumed. Sans-IO.

The socket writes straight into it (`room`, `wrote`) and the decoder reads in place (`data[start:end]`), so nothing is
copied on the way. The large buffers come from a pool and go back when all is consumed, so an idle connection holds
nothing and one connection after the other fills the same, cache-warm memory. A transport asks for room before it knows
that nothing comes any more: what thousands of connections that end at once have asked for must not pile up.
"""

from forwarder.errors import ForwardProtocolError

BUFFER_BYTES = 512 << 10  # measured: 128 KiB costs 12 % more CPU per event, 1 MiB gains nothing
MAX_BUFFER_BYTES = 64 << 20  # twice an entry of the largest size (16 MiB) and what came behind it
PARK_BYTES = 32 << 10  # a cut entry up to this size is set aside by copying it, so that the buffer can go back
_POOLED_BUFFERS = 4  # the event loop reads one connection at a time; the others are for those in the middle of an entry
_MIN_ROOM_BYTES = 4 << 10


class BufferPool:
    """Receive buffers that are free."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._asked: ReceiveBuffer | None = None  # for room, last; it has received by now, or nothing has come

    def take(self) -> bytearray:
        """A buffer of BUFFER_BYTES with old bytes in it."""
        return self._free.pop() if self._free else bytearray(BUFFER_BYTES)

    def asked_by(self, buffer: "ReceiveBuffer") -> None:
        """`buffer` is about to receive; whoever did before gives back what it does not need."""
        if self._asked is not None and self._asked is not buffer:
            self._asked.rest()
        self._asked = buffer

    def give(self, buffer: bytearray) -> None:
        """Give back what `take` gave; others (of another size) are left to the garbage collector."""
        if len(buffer) == BUFFER_BYTES and len(self._free) < _POOLED_BUFFERS:
            self._free.append(buffer)


class ReceiveBuffer:
    """`data[start:end]` is what was received and not consumed. `data` is replaced, never resized: others may look into it."""

    def __init__(self, pool: BufferPool | None = None) -> None:
        self._pool = pool or BufferPool()
        self.data = bytearray()
        self.start = 0
        self.end = 0

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def held_bytes(self) -> int:
        """The memory that this connection keeps from others."""
        return len(self.data)

    def room(self) -> memoryview:
        """Memory to receive into; tell with `wrote` how much it was. Raises ForwardProtocolError beyond MAX_BUFFER_BYTES.

        Never more than BUFFER_BYTES: a peer's worst bytes take 0.1 µs each, and others wait while they are looked at.
        """
        self._pool.asked_by(self)
        if len(self.data) - self.end < _MIN_ROOM_BYTES:
            if len(self) > MAX_BUFFER_BYTES // 2:
                raise ForwardProtocolError(f"more than {MAX_BUFFER_BYTES >> 21} MiB received that cannot be consumed")
            self._make_room(BUFFER_BYTES // 2)
        return memoryview(self.data)[self.end : self.end + BUFFER_BYTES]

    def wrote(self, size: int) -> None:
        """`size` bytes were received into what `room` gave."""
        self.end += size

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Copy `data` behind what is there; its size is the caller's business."""
        size = len(data)
        if len(self.data) - self.end < size:
            self._make_room(size)
        self.data[self.end : self.end + size] = data
        self.end += size

    def rest(self) -> None:
        """Hold no more than needed: to be called when nothing more can be consumed for now."""
        unread = len(self)
        if unread <= PARK_BYTES and len(self.data) > PARK_BYTES:
            parked = self.data[self.start : self.end]
            self._pool.give(self.data)
            self.data, self.start, self.end = parked, 0, unread

    def release(self) -> None:
        """Hold nothing, and forget what is unread."""
        self._pool.give(self.data)
        self.data, self.start, self.end = bytearray(), 0, 0

    def _make_room(self, size: int) -> None:
        """Move what is unread to the front of a buffer with `size` bytes of room; at least half of it stays free."""
        unread = len(self)
        if self.start >= unread and len(self.data) - unread >= size:
            # Moving at least as many bytes free as are moved: a peer who sends byte by byte cannot make this quadratic.
            self.data[:unread] = self.data[self.start : self.end]
        else:
            needed = unread + max(unread, size)
            larger = self._pool.take() if needed <= BUFFER_BYTES else bytearray(needed)
            larger[:unread] = self.data[self.start : self.end]
            self._pool.give(self.data)
            self.data = larger
        self.start, self.end = 0, unread
