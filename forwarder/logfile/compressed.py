"""The lines in a gzip file, by their place in what it inflates to.

    unzipped = Unzipped(descriptor)
    unzipped.pread(1 << 20, offset)     # as os.pread reads a plain file

It reads forward; a step back begins anew. At most the bytes asked for and one piece are held. `at_end` says that the stream is
complete; before that the file may still be written, and the next `pread` goes on. `damaged` says that it never will be.
"""

import os
import zlib
from typing import Any, Final

GZIP: Final = ".gz"
RAW_BYTES: Final = 64 << 10
PIECE_BYTES: Final = 1 << 20  # inflated in one step, whatever the ratio
_FORMAT: Final = 16 + 15  # zlib's word for "gzip header, largest window"


class Unzipped:
    """Reads an open gzip file, of one member or several. Never moves the descriptor's own position."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.at_end = self.damaged = False
        self.raw_position = 0
        self._begin()

    def _begin(self) -> None:
        self.at_end = self.damaged = False
        self.raw_position = 0
        self._base = 0  # where in the inflated bytes the buffer begins
        self._buffer = bytearray()
        self._waiting = b""
        self._member: Any = None

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` inflated bytes from `offset`; fewer where the file ends, so far or for good. Raises OSError."""
        if offset < self._base:
            self._begin()
        while self._base + len(self._buffer) < offset + size and self._inflate():
            passed = min(offset - self._base, len(self._buffer))
            if passed > 0:
                del self._buffer[:passed]
                self._base += passed
        start = offset - self._base
        return bytes(self._buffer[start : start + size])

    def _inflate(self) -> bool:
        """One step; False where there is nothing more now."""
        if self.damaged:
            return False
        if not self._waiting:
            self._waiting = os.pread(self._descriptor, RAW_BYTES, self.raw_position)
            self.raw_position += len(self._waiting)
        if self._member is None:
            self._waiting = self._waiting.lstrip(b"\0")  # padding between members and behind the last
            if not self._waiting:
                self.at_end = self.raw_position > 0
                return False
            self._member = zlib.decompressobj(wbits=_FORMAT)
        elif not self._waiting:
            return False
        self.at_end = False
        before = self._member.copy()
        try:
            self._buffer += self._member.decompress(self._waiting, PIECE_BYTES)
        except zlib.error:
            self._salvage(before)
            return False
        self._waiting = self._member.unconsumed_tail
        if self._member.eof:
            self._waiting, self._member = self._member.unused_data, None
        return True

    def _salvage(self, member: Any) -> None:
        """What comes before the damage, byte by byte: of a step that fails nothing comes out."""
        self.damaged = True
        try:
            for at in range(len(self._waiting)):
                self._buffer += member.decompress(self._waiting[at : at + 1])
        except zlib.error:
            pass
