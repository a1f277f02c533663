"""Where msgpack objects begin and end in a buffer, without building them.

`walk` goes over whole objects in place and can stop anywhere and go on later; `header` reads the first bytes of one
object. Both look only at buffer[start:end]. A string or bin is jumped over, so its size costs nothing; an array or map
adds its items to one counter, so depth costs nothing either: a bomb of nested arrays needs no stack here. Declared
sizes allocate nothing.

The contract ends here: any exception other than ForwardProtocolError is a bug.
"""

from typing import NamedTuple

from forwarder.errors import ForwardProtocolError

Buffer = bytes | bytearray

NIL = 0xC0


class Header(NamedTuple):
    """The first bytes of an object. kind: "array", "map", "str", "bin", "ext", "int", "float" or "nil" (also bool).

    body: where its content begins. size: items of an array, pairs of a map, bytes of everything else.
    """

    kind: str
    body: int
    size: int


def _tables() -> tuple[list[str], list[int], list[int], list[int]]:
    """For each first byte: kind, bytes of the length field, and where fixed: bytes of the body, items that follow."""
    kinds, widths, bodies, items = ["int"] * 256, [0] * 256, [0] * 256, [0] * 256
    for n in range(16):
        kinds[0x80 + n], items[0x80 + n] = "map", n
        kinds[0x90 + n], items[0x90 + n] = "array", n
    for n in range(32):
        kinds[0xA0 + n], bodies[0xA0 + n] = "str", n
    for first in (0xC0, 0xC2, 0xC3):
        kinds[first] = "nil"
    kinds[0xC1] = ""  # the format never uses it
    for index in range(3):
        kinds[0xC4 + index], widths[0xC4 + index] = "bin", 1 << index
        kinds[0xC7 + index], widths[0xC7 + index] = "ext", 1 << index
        kinds[0xD9 + index], widths[0xD9 + index] = "str", 1 << index
    for index in range(2):
        kinds[0xCA + index], bodies[0xCA + index] = "float", 4 << index
        kinds[0xDC + index], widths[0xDC + index] = "array", 2 << index
        kinds[0xDE + index], widths[0xDE + index] = "map", 2 << index
    for index in range(4):
        bodies[0xCC + index] = bodies[0xD0 + index] = 1 << index
    for index in range(5):
        kinds[0xD4 + index], bodies[0xD4 + index] = "ext", 1 << index
    return kinds, widths, bodies, items


_KIND, _WIDTH, _BODY, _ITEMS = _tables()
_EXT_TYPE = [1 if kind == "ext" else 0 for kind in _KIND]  # an ext has one byte of type before its body
_PER_ITEM = [{"array": 1, "map": 2}.get(kind, 0) for kind in _KIND]
# What `walk` adds to its position, and to its count of objects, for a first byte that says everything; 0: it does not.
_STEP = [0 if _WIDTH[b] or not _KIND[b] else 1 + _EXT_TYPE[b] + _BODY[b] for b in range(256)]
_MORE = [_ITEMS[b] * _PER_ITEM[b] - 1 for b in range(256)]


def walk(buffer: Buffer, start: int, end: int, objects: int) -> tuple[int, int]:
    """Go over `objects` whole objects from `start`: (position, objects left).

    Nothing left and position <= end: all are there, and position is where they end. Otherwise call again with both
    once more bytes have come; a position beyond `end` says how far the buffer must reach at least. Raises
    ForwardProtocolError for the byte that msgpack never uses.
    """
    while objects and start < end:
        first = buffer[start]
        step = _STEP[first]
        if step:
            start += step
            objects += _MORE[first]
            continue
        width = _WIDTH[first]
        if not width:
            raise ForwardProtocolError("a byte that msgpack never uses (0xc1)")
        body = start + 1 + width
        if body > end:
            break
        size = int.from_bytes(buffer[start + 1 : body], "big")
        per_item = _PER_ITEM[first]
        start = body if per_item else body + size + _EXT_TYPE[first]
        objects += size * per_item - 1
    return start, objects


def header(buffer: Buffer, start: int, end: int) -> Header | None:
    """The header of the object at `start`; None while its bytes are not all there.

    Raises ForwardProtocolError for the byte that msgpack never uses. The body of an ext begins after its type byte.
    """
    if start >= end:
        return None
    first = buffer[start]
    kind, width = _KIND[first], _WIDTH[first]
    if not kind:
        raise ForwardProtocolError("a byte that msgpack never uses (0xc1)")
    body = start + 1 + width
    if body > end:
        return None
    size = int.from_bytes(buffer[start + 1 : body], "big") if width else _BODY[first] + _ITEMS[first]
    return Header(kind, body + _EXT_TYPE[first], size)
