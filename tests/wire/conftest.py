"""Golden captures, and the one helper that runs every decoder case in every way that bytes may arrive."""

import pathlib

import pytest

from forwarder.errors import MalformedEvent
from forwarder.wire.fluent_forward import NEED_DATA, Entries, ForwardReceiver, Heartbeat
from forwarder.wire.forward_records import to_line

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """golden(name) -> the bytes that Fluent Bit sent."""

    def read(name):
        text = (GOLDEN / f"{name}.hex").read_text()
        return bytes.fromhex("".join(line for line in text.splitlines() if not line.startswith("#")))

    return read


def _plain(event, log_key):
    """An event as plain data that outlives it; entries one by one, so that it does not matter how they were grouped."""
    if not isinstance(event, Entries):
        return [event]
    found = []
    for (start, end), at in zip(event.spans, event.starts, strict=True):
        found.append((at + event.offset, "line", bytes(event.buffer[start:end]), event.time_s(at)))
    for other in event.others:
        try:
            line = to_line(event.buffer, other, log_key)
            found.append((other.start + event.offset, "line", line, event.time_s(other.start)))
        except MalformedEvent as malformed:
            found.append((other.start + event.offset, "bad", malformed.reason, event.time_s(other.start)))
    return sorted(found)


def _feed(data, step, make, log_key, *, in_place=False):
    receiver, events = make(), []
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        if in_place:
            room = receiver.room()
            assert len(room) >= len(piece)
            room[: len(piece)] = piece
            receiver.wrote(len(piece))
        else:
            receiver.receive_data(piece)
        while (event := receiver.next_event()) is not NEED_DATA:
            events += _plain(event, log_key)
    return events


@pytest.fixture(scope="session")
def decode():
    """decode(data) -> its events as plain data, the same whole, byte by byte, received in place, and with bytes behind."""

    def every_way(data, *, make=None, log_key="log"):
        make = make or (lambda: ForwardReceiver(log_key=log_key))
        whole = _feed(data, len(data), make, log_key)
        assert _feed(data, 1, make, log_key) == whole
        assert _feed(data, 1000, make, log_key, in_place=True) == whole
        assert _feed(data + b"\x93", len(data) + 1, make, log_key) == whole
        assert _feed(data + b"\xc0", len(data) + 1, make, log_key) == [*whole, Heartbeat()]
        return whole

    return every_way
