"""The sending side agrees with the receiving side."""

import msgpack
import pytest

from forwarder.errors import ForwardProtocolError
from forwarder.wire.fluent_forward import MessageEnd, MessageStart, ack
from forwarder.wire.forward_client import MAX_ACK_BYTES, AckReader, entries, message, packed_forward


@pytest.mark.parametrize("compress", ["", "gzip", "zstd"])
@pytest.mark.parametrize("metadata", [True, False])
def test_a_packed_message_arrives_as_it_was_meant(compress, metadata, decode):
    """Lines byte for byte, their time, the chunk id and the size."""
    lines = [b'{"a":1}', b"\xff\xfe", b""]
    data = packed_forward(b"tag", entries(lines, 12.5, metadata=metadata), chunk=b"id\n", compress=compress)
    start, *got, end = decode(data)
    assert (start, end) == (MessageStart(b"tag"), MessageEnd(b"id\n", 3, 3))
    assert [(line, time) for _, _, line, time in got] == [(line, 12.5) for line in lines]


def test_a_message_arrives_as_it_was_meant(decode):
    """With and without a wish for an acknowledgement."""
    assert decode(message(b"t", {"log": "x"}, 5, chunk=b"c"))[-1] == MessageEnd(b"c", None, 1)
    assert decode(message(b"t", {"log": "x"}, 5))[-1] == MessageEnd(None, None, 1)


def test_acknowledgements_are_found_however_they_arrive():
    """Cut anywhere, or several at once."""
    data = ack(b"one") + ack(b"two\n")
    whole, slow = AckReader(), AckReader()
    whole.receive_data(data)
    assert [whole.next_ack(), whole.next_ack(), whole.next_ack()] == [b"one", b"two\n", None]
    found = []
    for byte in data:
        slow.receive_data(bytes([byte]))
        found.append(slow.next_ack())
    assert [chunk for chunk in found if chunk is not None] == [b"one", b"two\n"]


@pytest.mark.parametrize("answer", [{"ack": 5}, {"err": "x"}, ["ack"], None], ids=str)
def test_another_answer_is_an_error(answer):
    """There is no other answer in the protocol."""
    reader = AckReader()
    reader.receive_data(msgpack.packb(answer))
    with pytest.raises(ForwardProtocolError):
        reader.next_ack()


def test_a_server_that_talks_too_much_is_an_error():
    """A client holds no more than an acknowledgement could be."""
    with pytest.raises(ForwardProtocolError):
        AckReader().receive_data(b"x" * (MAX_ACK_BYTES + 1))
