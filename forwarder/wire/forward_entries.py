"""Where the entries of a Forward message lie in a buffer, and the audit lines in them. Sans-IO; copies nothing.

An entry is `[time, record]` or, since protocol v1.5, `[[time, metadata], record]`; time is an integer or an EventTime
(ext type 0: seconds and nanoseconds, 32 bits each). Fluent Bit 5.1.1 sends both forms from one fleet.

Four ways through a buffer, the fastest that fits:

1. the head of an entry with one raw line is as the one before: the same bytes but for time and length, which says where
   the next entry begins (0.2 µs an entry, whatever its size);
2. one regular expression matches every such head there is, and tells 1 what to look for (0.5 µs);
3. anything else is skipped by msgpack's Unpacker, used as a tokenizer only (0.8 µs for a parsed audit event);
4. an entry that is cut by the end of the buffer and comes in small pieces, or is nested deeper than that tokenizer goes, is
   walked by `msgpack_spans.walk`, which goes on where it stopped, so that a peer who sends one byte at a time costs no
   more. Where as much again has come, the tokenizer looks at it anew: that is faster than walking.

The contract ends here: any exception other than ForwardProtocolError is a bug.
"""

import re
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import msgpack

from forwarder.errors import ForwardProtocolError
from forwarder.wire.msgpack_spans import Buffer, header, walk

MAX_ENTRY_BYTES = 16 << 20  # above the 9,000,000 bytes at which the shipped Fluent Bit settings cut a line
MAX_ENTRIES_PER_SCAN = 4096  # bounds the lists that one event holds, and how long one call works (about 4 ms)
_TOKENIZER_BYTES = 1 << 20  # what the tokenizer copies at once; a larger entry is walked

_EVENT_TIME = struct.Struct(">II")


class Other(NamedTuple):
    """An entry that is not a raw line: a parsed map, a line behind other keys, or bad.

    record: where the second element begins; -1 when this is no entry at all.
    """

    start: int
    record: int
    stop: int


class Scan:
    """What one call of `EntryScanner.scan` found; all numbers are positions in its buffer.

    spans: (start, end) of each raw line. starts: where the entries of those lines begin (see `time_s`).
    stop: where the first entry begins that is not in here. broken: no entry can begin there.
    """

    __slots__ = ("broken", "others", "spans", "starts", "stop")

    def __init__(self, stop: int) -> None:
        self.spans: list[tuple[int, int]] = []
        self.starts: list[int] = []
        self.others: list[Other] = []
        self.stop = stop
        self.broken = False

    def __len__(self) -> int:
        return len(self.spans) + len(self.others)


class _Layout:
    """The head of an entry with one raw line, for finding those behind it that look the same: most of a message."""

    __slots__ = ("_after", "_before", "_size", "_unpack")

    def __init__(self, before: bytes, after: bytes, length: str) -> None:
        """before, after: what stands around the EventTime's eight bytes. length: struct's letter for the line's length."""
        head = struct.Struct(f">{len(before)}s8x{len(after)}s{length}")
        self._before, self._after, self._size, self._unpack = before, after, head.size, head.unpack_from

    @classmethod
    def of(cls, head: bytes, width: int | None) -> "_Layout | None":
        """The layout of `head`, whose length stands in the `width`th group of _TEXT; None where time has another form."""
        for before in _BEFORE_EVENT_TIME:
            if head.startswith(before) and width:
                letter, size = (("H", 2), ("I", 4), ("B", 1))[width - 1]
                return _layout(before, head[len(before) + 8 : -size], letter)
        return None

    def scan(self, buffer: Buffer, end: int, lines: int, found: Scan) -> None:
        """Add whole entries of this layout to `found`, up to `lines` lines in all; the receiver's innermost loop."""
        before, after, size, unpack = self._before, self._after, self._size, self._unpack
        spans, starts, position = found.spans, found.starts, found.stop
        last = end - size
        for _ in range(lines - len(spans)):
            if position > last:
                break
            first, second, length = unpack(buffer, position)
            if first != before or second != after:
                break
            line = position + size
            stop = line + length
            if stop > end:
                break
            spans.append((line, stop))
            starts.append(position)
            position = stop
        found.stop = position


class EntryScanner:
    """Finds whole entries, piece by piece. One per message; it remembers how far it has walked into a cut entry.

    in_blob: the entries are the content of a blob whose length is known. There, what is no array says that the rest is
    no list of entries; in an array of entries it is one bad entry among others.
    """

    def __init__(self, log_key: bytes, *, in_blob: bool) -> None:
        self._in_blob = in_blob
        self._match_entry = _raw_entry(log_key)
        self._layout: _Layout | None = None  # of the last raw line's head
        self._match_record = _raw_record(log_key)
        self._cut_bytes = 0  # that the tokenizer has seen of the cut entry
        self._walked = 0  # bytes of the cut entry, counted from its first
        self._objects = 1  # objects of it that were not seen yet

    def scan(self, buffer: Buffer, start: int, end: int, limit: int = MAX_ENTRIES_PER_SCAN) -> Scan:
        """Up to `limit` whole entries of buffer[start:end]; none when the first is cut and needs more bytes.

        The next call must begin with the bytes at `stop`. Raises ForwardProtocolError for an entry over the limit.
        """
        found = Scan(start)
        if self._cut_bytes and end - start >= 2 * self._cut_bytes:
            self._cut_bytes, self._walked, self._objects = 0, 0, 1  # enough has come to look at all of it again
        elif (self._walked or self._cut_bytes) and not self._walk_on(buffer, end, found):
            return found
        spans, starts = found.spans, found.starts
        lines = limit - len(found.others)
        while len(spans) < lines:
            if self._layout is not None:
                self._layout.scan(buffer, end, lines, found)
                if len(spans) == lines:
                    break
            position = found.stop
            head = self._match_entry(buffer, position, end)
            if head is None:
                if position < end:
                    self._scan_any(buffer, end, limit, found)
                return found
            line = head.end()
            width = head.lastindex
            stop = line + (int.from_bytes(head[width], "big") if width else buffer[line - 1] & 0x1F)
            if stop > end:
                self._walk_on(buffer, end, found)  # remembers where it is cut
                return found
            spans.append((line, stop))
            starts.append(position)
            found.stop = stop
            self._layout = _Layout.of(bytes(buffer[position:line]), width)
        return found

    def single(self, buffer: Buffer, start: int, stop: int) -> Scan:
        """The same for the time and record of Message mode, which are whole in buffer[start:stop] and in no array."""
        found = Scan(start)
        self._add(buffer, found, stop, record=walk(buffer, start, stop, 1)[0])
        return found

    def _scan_any(self, buffer: Buffer, end: int, limit: int, found: Scan) -> None:
        """The same for entries of any shape."""
        origin = found.stop
        tokenizer = msgpack.Unpacker(max_buffer_size=_TOKENIZER_BYTES)
        with memoryview(buffer) as view, view[origin : min(end, origin + _TOKENIZER_BYTES)] as window:
            tokenizer.feed(window)
        skip, tell, others, position = tokenizer.skip, tokenizer.tell, found.others, found.stop
        for _ in range(limit - len(found)):
            if position >= end:
                break
            if self._in_blob and not _is_array(buffer[position]):
                found.broken = True
                break
            try:
                skip()
            except msgpack.OutOfData:
                if end - origin > _TOKENIZER_BYTES:
                    self._walk_on(buffer, end, found)  # it need not be cut, the tokenizer saw no more of it
                else:
                    self._cut_bytes = end - position
                break
            except (msgpack.StackError, msgpack.FormatError, ValueError):
                self._walk_on(buffer, end, found)
                break
            stop = origin + tell()
            head = _ENTRY_HEAD(buffer, position, stop)
            if head is None or self._match_record(buffer, head.end(), stop) is not None:
                self._add(buffer, found, stop)
            else:
                others.append(_new(Other, (position, head.end(), stop)))
            found.stop = position = stop

    def _walk_on(self, buffer: Buffer, end: int, found: Scan) -> bool:
        """Walk on in the entry at `found.stop`; whether it is whole now, and so among what was found."""
        start = found.stop
        try:
            position, self._objects = walk(buffer, start + self._walked, end, self._objects)
        except ForwardProtocolError:
            found.broken = True
            return False
        self._walked = position - start
        if self._walked > MAX_ENTRY_BYTES:
            raise ForwardProtocolError(
                f"an entry larger than {MAX_ENTRY_BYTES >> 20} MiB; lower buffer_max_size of the sender's tail input"
            )
        if self._objects or position > end:
            return False
        self._cut_bytes, self._walked, self._objects = 0, 0, 1
        self._add(buffer, found, position)
        return True

    def _add(self, buffer: Buffer, found: Scan, stop: int, record: int | None = None) -> None:
        start = found.stop
        if record is None:
            record = _record_start(buffer, start, stop)
        head = self._match_record(buffer, record, stop) if record >= 0 else None
        if head is not None:
            line = head.end()
            width = head.lastindex
            size = int.from_bytes(head[width], "big") if width else buffer[line - 1] & 0x1F
            found.spans.append((line, line + size))
            found.starts.append(start)
        else:
            found.others.append(Other(start, record, stop))
        found.stop = stop


def time_s(buffer: Buffer, start: int, end: int) -> float:
    """The time of the entry (or the time itself) at `start`, Unix seconds; 0.0 where none can be read."""
    try:
        head = header(buffer, start, end)
        for _ in range(2):  # [[time, metadata], record]
            if head is not None and head.kind == "array" and head.size == 2:
                head = header(buffer, head.body, end)
    except ForwardProtocolError:
        return 0.0
    if head is None or head.body + head.size > end:
        return 0.0
    if head.kind == "ext" and head.size == 8 and buffer[head.body - 1] == 0:
        seconds, nanoseconds = _EVENT_TIME.unpack_from(buffer, head.body)
        return float(seconds) + float(nanoseconds) / 1e9
    if head.kind == "int":
        return float(max(0, msgpack.unpackb(bytes(buffer[head.body - 1 : head.body + head.size]))))
    return 0.0


def _record_start(buffer: Buffer, start: int, stop: int) -> int:
    """Where the record of the whole entry buffer[start:stop] begins; -1 when it is no pair."""
    head = _ENTRY_HEAD(buffer, start, stop)
    if head is not None:
        return head.end()
    outer = header(buffer, start, stop)
    if outer is None or outer.kind != "array" or outer.size != 2:
        return -1
    return walk(buffer, outer.body, stop, 1)[0]


def _is_array(first: int) -> bool:
    return 0x90 <= first <= 0x9F or first in (0xDC, 0xDD)


# --- the shapes that need no tokenizer: every width that a length may be written in -----------------------------------

_PAIR = rb"(?:\x92|\xdc\x00\x02|\xdd\x00\x00\x00\x02)"
_TIME = rb"(?:\xd7\x00.{8}|\xce.{4}|\xc7\x08\x00.{8}|[\x00-\x7f]|\xcc.|\xcd..|\xcf.{8})"
_NO_METADATA = rb"(?:\x80|\xdf\x00\x00\x00\x00|\xde\x00\x00)"
_MAP_OF_ONE = rb"(?:\x81|\xdf\x00\x00\x00\x01|\xde\x00\x01)"
_MAP_OF_SOME = rb"(?:[\x81-\x8f]|\xde..|\xdf....)"
_HEAD = _PAIR + b"(?:" + _PAIR + _TIME + _NO_METADATA + b"|" + _TIME + b")"
_TEXT = rb"(?:[\xda\xc5](..)|[\xdb\xc6](....)|[\xd9\xc4](.)|[\xa0-\xbf])"

_ENTRY_HEAD = re.compile(_HEAD, re.DOTALL).match

_Match = Callable[[Buffer, int, int], "re.Match[bytes] | None"]


def _key(name: bytes) -> bytes:
    size = len(name)
    heads = [
        bytes([0xD9, size]),
        bytes([0xC4, size]),
        b"\xda" + size.to_bytes(2, "big"),
        b"\xdb" + size.to_bytes(4, "big"),
    ]
    if size < 32:
        heads.insert(0, bytes([0xA0 + size]))
    return b"(?:" + b"|".join(map(re.escape, heads)) + b")" + re.escape(name)


_new = tuple.__new__  # an Other, at a third of what calling it costs
_BEFORE_EVENT_TIME = (b"\x92\x92\xd7\x00", b"\x92\xd7\x00")

_layout = lru_cache(maxsize=64)(_Layout)


@lru_cache(maxsize=16)
def _raw_entry(log_key: bytes) -> _Match:
    return re.compile(_HEAD + _MAP_OF_ONE + _key(log_key) + _TEXT, re.DOTALL).match


@lru_cache(maxsize=16)
def _raw_record(log_key: bytes) -> _Match:
    return re.compile(_MAP_OF_SOME + _key(log_key) + _TEXT, re.DOTALL).match
