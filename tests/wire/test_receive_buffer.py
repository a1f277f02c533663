"""The receive buffer: nothing lost or reordered, nothing held while idle, no step that a slow sender can make expensive."""

import random

import pytest

from forwarder.errors import ForwardProtocolError
from forwarder.wire.receive_buffer import BUFFER_BYTES, MAX_BUFFER_BYTES, PARK_BYTES, BufferPool, ReceiveBuffer


def _receive(buffer, data):
    room = buffer.room()
    taken = min(len(room), len(data))
    room[:taken] = data[:taken]
    buffer.wrote(taken)
    return data[taken:]


def test_bytes_come_out_in_order_whatever_is_done_to_them():
    """Received in place or copied, consumed in any amounts, parked or not."""
    choose = random.Random(7)
    sent = choose.randbytes(3_000_000)
    buffer, given, taken = ReceiveBuffer(), 0, b""
    while len(taken) < len(sent):
        piece = sent[given : given + choose.choice([1, 100, 40_000, 700_000])]
        if choose.random() < 0.5:
            buffer.append(piece)
            given += len(piece)
        else:
            given += len(piece) - len(_receive(buffer, piece))
        size = choose.choice([0, 1, 5000, len(buffer), len(buffer) // 2])
        size = min(size, len(buffer)) if given < len(sent) else len(buffer)
        taken += buffer.data[buffer.start : buffer.start + size]
        buffer.start += size
        if choose.random() < 0.5:
            buffer.rest()
    assert taken == sent


def test_an_idle_connection_holds_nothing():
    """The buffer goes back to the pool and the next connection gets the same one."""
    pool = BufferPool()
    one, other = ReceiveBuffer(pool), ReceiveBuffer(pool)
    _receive(one, b"x" * 1000)
    used = one.data
    assert one.held_bytes == BUFFER_BYTES
    one.start = one.end
    one.rest()
    assert one.held_bytes == 0
    _receive(other, b"y")
    assert other.data is used


def test_many_that_ask_for_room_and_receive_nothing_share_one_buffer():
    """A transport asks before it learns that the peer is gone; a whole cluster of agents may go in one moment."""
    pool = BufferPool()
    buffers = [ReceiveBuffer(pool) for _ in range(100)]
    _receive(buffers[0], b"x" * 1000)
    for buffer in buffers:
        buffer.room()
    assert sum(buffer.held_bytes for buffer in buffers) == 1000 + BUFFER_BYTES
    assert bytes(buffers[0].data[: buffers[0].end]) == b"x" * 1000


def test_a_connection_that_is_gone_gives_its_buffer_back():
    """Also when something in it was never consumed."""
    pool = BufferPool()
    buffer = ReceiveBuffer(pool)
    _receive(buffer, b"x" * 100_000)
    used = buffer.data
    buffer.release()
    assert (buffer.held_bytes, len(buffer)) == (0, 0)
    assert pool.take() is used


def test_a_small_rest_is_set_aside_and_a_large_one_stays():
    """Copying a cut entry frees the buffer; copying a large one at every read would be work for nothing."""
    buffer = ReceiveBuffer()
    _receive(buffer, b"x" * PARK_BYTES)
    buffer.rest()
    assert (buffer.held_bytes, len(buffer)) == (PARK_BYTES, PARK_BYTES)
    buffer.append(b"y")
    buffer.rest()
    assert buffer.held_bytes == BUFFER_BYTES


def test_growing_byte_by_byte_copies_each_byte_a_few_times_at_most():
    """Room doubles, so a large entry that comes slowly is not moved at every read."""
    buffer, moves, last = ReceiveBuffer(), 0, None
    for _ in range(4000):
        buffer.append(b"x" * 1000)
        moves += buffer.data is not last
        last = buffer.data
    assert len(buffer) == 4_000_000
    assert moves < 8


def test_one_read_is_bounded_whatever_is_held():
    """A kernel may have megabytes ready, and all of one read is looked at in one go."""
    buffer = ReceiveBuffer()
    for _ in range(3):
        buffer.append(bytes(3 << 20))
    assert len(buffer.data) - buffer.end > BUFFER_BYTES
    assert len(buffer.room()) == BUFFER_BYTES


def test_consuming_a_little_at_a_time_does_not_move_the_rest_every_time():
    """Each byte is moved a few times in all, whatever a sender arranges."""
    buffer, moved, received = ReceiveBuffer(), 0, 0
    for _ in range(20_000):
        start, data = buffer.start, buffer.data
        buffer.append(b"x" * 100)
        received += 100
        if buffer.start < start or buffer.data is not data:
            moved += len(buffer)
        buffer.start += 50
    assert moved < 4 * received


def test_what_cannot_be_consumed_has_an_end():
    """Beyond it there is no room: the decoder's own limits end a connection long before."""
    buffer = ReceiveBuffer()
    buffer.append(bytes(MAX_BUFFER_BYTES // 2 + 1))
    buffer.end = len(buffer.data)
    with pytest.raises(ForwardProtocolError):
        buffer.room()
