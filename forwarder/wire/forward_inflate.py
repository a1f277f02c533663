"""Inflates the blob of a CompressedPackedForward message, piece by piece, whatever it claims. Sans-IO.

    inflater = for_blob(first_bytes)         # None: the blob is not compressed
    inflater.feed(some compressed bytes)     # at most FEED_BYTES
    while piece := inflater.read(): ...      # at most PIECE_BYTES each
    inflater.finish()                        # raises where the stream is cut

Compression is known from the blob's first bytes, because the `compressed` option comes after the blob. Fluent Bit sends
one gzip member; Fluentd's buffer compresses per append, so a blob may hold many, and a decompressor that stops after
the first loses the rest silently. Memory is bounded by one piece and the format's window, not by the ratio.

The contract ends here: any exception other than ForwardProtocolError is a bug.
"""

from typing import Any

import zstandard

from forwarder.errors import ForwardProtocolError

try:
    from isal import isal_zlib as zlib  # more than twice as fast
except ImportError:
    import zlib  # type: ignore[no-redef, unused-ignore]

MAX_INFLATED_BYTES = 256 << 20  # per message, as in Fluentd; a full Fluent Bit chunk inflates to 2 to 3 MB
FEED_BYTES = 16 << 10  # thousands of empty gzip members may stand in here, and each costs a copy of what follows it
PIECE_BYTES = 256 << 10  # still in the CPU's second cache when the entries in it are screened
GZIP_STATE_BYTES = 88 << 10  # of an open member in isal, its window included; zlib takes half of it
ZSTD_WINDOW_BYTES = 8 << 20  # what RFC 8878 asks decoders to support; a frame may ask for gigabytes
_ZSTD_STEP_BYTES = 256  # its decompressor takes no limit; four bytes may stand for a block of 128 KiB, so this is 8 MiB

SNIFF_BYTES = 4
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_FORMAT = 16 + 15  # zlib's word for "gzip header, largest window"


class Inflater:
    """One blob; the gzip members or zstd frames in it, any number, give one stream of bytes."""

    _errors: Any  # what its decompressor raises; isal declares an instance where it means a class
    _name: str

    def __init__(self) -> None:
        self._member: Any = None  # the decompressor of the member that is open
        self._waiting = b""

    @property
    def held_bytes(self) -> int:
        """The decompressor's own memory, which the sender's choice of a window makes large."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """The next compressed bytes, at most FEED_BYTES; only after `read` gave b"" for the earlier ones."""
        self._waiting += data

    def read(self) -> bytes:
        """The next inflated bytes, about PIECE_BYTES; b"" when all that was fed has been read."""
        pieces, size = [], 0
        while size < PIECE_BYTES and (self._waiting or self._member is not None):
            if self._member is None:
                self._member = self._open()
            before = len(self._waiting)
            try:
                piece, self._waiting = self._inflate(self._member, self._waiting)
            except self._errors:
                raise ForwardProtocolError(f"a {self._name} blob that is damaged") from None
            if self._member.eof:
                self._waiting = self._member.unused_data + self._waiting
                self._member = None
            elif not piece and len(self._waiting) == before:
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def finish(self) -> None:
        """At the blob's end: raises ForwardProtocolError unless the compressed stream ends there too."""
        if self._member is not None or self._waiting:
            raise ForwardProtocolError(f"a {self._name} blob that ends early")

    def _open(self) -> Any:
        raise NotImplementedError

    def _inflate(self, member: Any, data: bytes) -> tuple[bytes, bytes]:
        """(some inflated bytes, what is left of `data`); the bounded step."""
        raise NotImplementedError


class _Gzip(Inflater):
    _errors = zlib.error
    _name = "gzip"

    @property
    def held_bytes(self) -> int:
        return GZIP_STATE_BYTES if self._member is not None else 0

    def _open(self) -> Any:
        return zlib.decompressobj(wbits=_GZIP_FORMAT)

    def _inflate(self, member: Any, data: bytes) -> tuple[bytes, bytes]:
        return member.decompress(data, PIECE_BYTES), member.unconsumed_tail


class _Zstd(Inflater):
    _errors = zstandard.ZstdError
    _name = "zstd"

    def __init__(self) -> None:
        super().__init__()
        self._frames = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)

    @property
    def held_bytes(self) -> int:
        return self._frames.memory_size()

    def _open(self) -> Any:
        return self._frames.decompressobj()

    def _inflate(self, member: Any, data: bytes) -> tuple[bytes, bytes]:
        return member.decompress(data[:_ZSTD_STEP_BYTES]), data[_ZSTD_STEP_BYTES:]


def for_blob(first: bytes) -> Inflater | None:
    """The inflater for a blob that begins with `first` (SNIFF_BYTES, or the whole blob if it is shorter)."""
    if first.startswith(_GZIP_MAGIC):
        return _Gzip()
    if first == _ZSTD_MAGIC:
        return _Zstd()
    return None
