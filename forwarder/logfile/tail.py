"""Reads a log that goes on, by bytes: the next whole lines, from whichever file holds them.

    tail = Tail(Rotation("/var/log/audit.log", from_start=False))
    tail.scan()                          # look at the folder; a few times a second
    while piece := tail.read(1 << 20):
        ...                              # use the lines in piece.data
        tail.accept(piece)               # only now does the position move

A line counts when its newline is there. A line that will never be whole (longer than the limit, or half-written in a
file that was rotated away) is handed on once, as far as it goes, and what follows up to its newline is left out.
Memory is bounded by the longest line. Logs are opened for reading only. Blocking; one caller at a time.
"""

import logging
from collections import deque

import msgspec

from forwarder.logfile.followed import File
from forwarder.logfile.rotation import Rotation

log = logging.getLogger(__name__)

DEFAULT_MAX_LINE_BYTES = 8 << 20  # etcd takes objects of 1.5 MiB, and RequestResponse may carry two of them, escaped


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes from one file: whole lines, or one cut line. Nothing of it is accepted until it is given to `accept`.

    data[:end] is to be used and begins at `offset` in the file; it is empty where bytes are only passed over.
    cut: its one line has no end. skipping: the rest of that line is still to come and is left out.
    left_out: bytes of a line whose head was handed on before.
    """

    file: File
    data: bytes = b""
    end: int = 0
    offset: int
    next_offset: int
    cut: bool = False
    skipping: bool = False
    left_out: int = 0


class Tail:
    """Reading one log. Constructing it touches nothing."""

    def __init__(self, rotation: Rotation, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self.rotation = rotation
        self._max_line_bytes = max_line_bytes
        self._queue: deque[File] = deque()

    def scan(self) -> None:
        """Look for what is new. Raises OSError when the folder may not be looked at."""
        self._queue = deque(self.rotation.scan())

    def read(self, max_bytes: int) -> Piece | None:
        """The next piece, of at most `max_bytes` unless a single line is longer; None when the last look is used up."""
        while self._queue:
            file = self._queue[0]
            try:
                piece = self._read_from(file, max_bytes) if file.offset < file.size else None
            except OSError as error:
                log.error("cannot read on in %s: %s; it is tried again", file.name, error.strerror)
                file.close()
                piece = None
            if piece is not None:
                return piece
            self._queue.popleft()
        return None

    def accept(self, piece: Piece, upto: int | None = None) -> None:
        """Everything in `piece`, or its first `upto` bytes of whole lines, is safe elsewhere: move the position."""
        file = piece.file
        if upto is None or upto >= piece.end:
            file.offset, file.skipping = piece.next_offset, piece.skipping
        else:
            file.offset = piece.offset + upto

    def _read_from(self, file: File, max_bytes: int) -> Piece | None:
        if not self.rotation.hold(file, file.name):
            return None
        begin = file.offset
        longest = self._max_line_bytes + 1  # with its newline
        want = min(max_bytes, longest)
        while data := file.pread(want, begin):
            if file.skipping:
                newline = data.find(b"\n")
                size = newline + 1 if newline >= 0 else len(data)
                return Piece(file=file, offset=begin, next_offset=begin + size, skipping=newline < 0, left_out=size)
            if data[0] == 0 and (gap := _gap(data, want)):
                return Piece(file=file, offset=begin, next_offset=begin + gap)
            end = data.rfind(b"\n") + 1
            if end:
                return Piece(file=file, data=data, end=end, offset=begin, next_offset=begin + end)
            if len(data) == longest:
                size = self._max_line_bytes
                return Piece(
                    file=file, data=data, end=size, offset=begin, next_offset=begin + size, cut=True, skipping=True
                )
            if len(data) < want:
                return self._half_line(file, data)
            want = min(want * 2, longest)
        self.rotation.at_end(file)
        return None

    def _half_line(self, file: File, data: bytes) -> Piece | None:
        """`data` is all that is left of `file` and has no newline: wait for it, unless none will come."""
        after = file.offset + len(data)
        if not self.rotation.is_over(file):
            file.half = after
            return None
        cut = self.rotation.follow and not file.compressed  # else the file is as it is, and its last line is whole
        return Piece(file=file, data=data, end=len(data), offset=file.offset, next_offset=after, cut=cut, skipping=cut)


def _gap(data: bytes, want: int) -> int:
    """Length of the zero bytes at the start of `data`; 0 while they may be the end of the file.

    Where a log is cut under a writer that does not append, as kube-apiserver's does not, the writer goes on at its old
    offset and the file begins with a hole, which reads as zeros.
    """
    size = len(data) - len(data.lstrip(b"\0"))
    return size if size < len(data) or size == want else 0
