"""Object boundaries: right for everything msgpack can say, resumable anywhere, unimpressed by depth and declared sizes."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.errors import ForwardProtocolError
from forwarder.wire.msgpack_spans import Header, header, walk

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=20)
)


@settings(max_examples=100, deadline=None)
@given(value=VALUES)
def test_a_walk_ends_where_the_object_ends_in_one_go_or_byte_by_byte(value):
    """The counter agrees with msgpack's own encoder, and a stop anywhere changes nothing."""
    data = msgpack.packb(value)
    assert walk(data + b"\xc0", 0, len(data) + 1, 1) == (len(data), 0)
    position, objects = 0, 1
    for end in range(len(data) + 1):
        assert objects or position > end - 1  # it never says "complete" early
        position, objects = walk(data, position, end, objects)
    assert (position, objects) == (len(data), 0)


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 65_535, 65_536])
@pytest.mark.parametrize("kind", [str, bytes, list, dict, msgpack.ExtType], ids=lambda kind: kind.__name__)
def test_every_width_of_every_length(kind, size):
    """fix, 8, 16 and 32 bit forms, at their edges."""
    value = {
        str: "x" * size,
        bytes: b"x" * size,
        list: [None] * size,
        dict: dict.fromkeys(range(size)),
        msgpack.ExtType: msgpack.ExtType(3, b"x" * size),
    }[kind]
    data = msgpack.packb(value, use_bin_type=True)
    assert walk(data, 0, len(data), 1) == (len(data), 0)
    head = header(data, 0, len(data))
    assert head.size == size
    assert head.kind == {str: "str", bytes: "bin", list: "array", dict: "map", msgpack.ExtType: "ext"}[kind]
    if kind in (str, bytes, msgpack.ExtType):
        assert head.body == len(data) - size


@pytest.mark.parametrize("data", [b"\xd9", b"\xda\x01", b"\xdb\0\0\0", b"\xdc\0", b"\xdf\0\0", b"\xc7", b""], ids=repr)
def test_half_a_length_is_no_header(data):
    """It waits for the rest instead of guessing."""
    assert header(data, 0, len(data)) is None
    assert walk(data, 0, len(data), 1) == (0, 1)


def test_a_string_that_has_not_come_is_jumped_over():
    """The position beyond the end says how much must come, so a long line is not walked again and again."""
    data = b"\xdb\0\x10\0\0"
    assert walk(data, 0, len(data), 1) == (len(data) + (1 << 20), 0)


def test_depth_and_declared_sizes_cost_nothing():
    """No recursion, no allocation: a million open arrays, four billion announced pairs."""
    bomb = b"\x91" * 1_000_000
    assert walk(bomb + b"\xc0", 0, len(bomb) + 1, 1) == (len(bomb) + 1, 0)
    assert walk(b"\xdf\xff\xff\xff\xff", 0, 5, 1) == (5, 2 * 0xFFFFFFFF)


def test_the_unused_byte_is_an_error():
    """0xc1 is the one byte that tells that this is not msgpack."""
    with pytest.raises(ForwardProtocolError):
        walk(b"\x92\xc0\xc1", 0, 3, 1)
    with pytest.raises(ForwardProtocolError):
        header(b"\xc1", 0, 1)


@pytest.mark.parametrize(
    ("data", "kind", "size"),
    [
        (b"\xc0", "nil", 0),
        (b"\xc3", "nil", 0),
        (b"\x07", "int", 0),
        (b"\xce\0\0\0\1", "int", 4),
        (b"\xcb" + bytes(8), "float", 8),
    ],
    ids=["nil", "true", "fixint", "uint32", "float64"],
)
def test_a_scalar_has_its_value_behind_its_first_byte(data, kind, size):
    """kind and size are enough to go on."""
    assert header(data, 0, len(data)) == Header(kind, 1, size)
