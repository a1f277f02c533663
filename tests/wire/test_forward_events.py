"""The answer to a message, and the time of an entry, as their users see them."""

import msgpack
import pytest

from forwarder.wire.forward_client import entries
from forwarder.wire.forward_events import Entries, ack


@pytest.mark.parametrize("chunk", [b"p8n9gmxTQVC8/nh2wlKKeQ==", b"0" * 32, b"base64==\n", b"\xff\x00", b"", b"x" * 300])
def test_an_ack_is_a_map_with_the_same_bytes_as_str(chunk):
    """Fluentd's id ends in a newline; Fluent Bit takes no bin."""
    packed = ack(chunk)
    assert msgpack.unpackb(packed, raw=True) == {b"ack": chunk}
    assert packed[5] not in (0xC4, 0xC5, 0xC6)


def test_the_time_of_an_entry_is_read_only_when_asked_for():
    """By where the entry begins; most lines are screened out, and nobody needs their time."""
    first, second = entries([b"a", b"b"], 12.5)
    found = Entries(b"junk" + first + second, [], [4, 4 + len(first)], [], 0)
    assert [found.time_s(start) for start in found.starts] == [12.5, 12.5]
