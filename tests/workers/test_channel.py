"""What a worker and its parent say to each other survives the way, whole and in order."""

import asyncio

import msgspec
import pytest

from forwarder.contracts import DeadLetter, Line
from forwarder.detection.loader import load_rules
from forwarder.sources.forward import ForwardSettings
from forwarder.wire.listen import TlsSettings
from forwarder.workers.channel import (
    Answer,
    Counts,
    Everything,
    Offer,
    Ready,
    Rules,
    Setup,
    Stop,
    decode_to_parent,
    decode_to_worker,
    frame,
    receive,
)

RULES = Rules(load_rules(["rules/friction.yaml", "rules/extended.yaml"]), "own", ["eks:*"])
SETUP = Setup(
    name="forward", settings=ForwardSettings(shared_key="k", tls=TlsSettings(cert_file="/c", key_file="/k"), workers=2),
    cluster="c", rules=RULES, max_connections=7, budget_bytes=1 << 20, log_level=20, log_format="text",
)  # fmt: skip
OFFER = Offer(
    3, "forward 10.0.0.7:1", 9, [Line(b"\xff{", 1.5, 7)],
    [DeadLetter(reason="no_line", source="s", size_bytes=1, sha256="00", payload=b"\x00")], "c",
)  # fmt: skip


async def test_messages_arrive_whole_and_in_order() -> None:
    """However the stream is cut; rules with their sets and tests, lines that are no UTF-8."""
    reader = asyncio.StreamReader()
    to_worker = [SETUP, RULES, Everything(True), Answer(3, "outbox_full", 0.5), Answer(4, closing=True), Stop()]
    to_parent = [Ready(), OFFER, Counts(1, 2, 3, {"peer": 4})]
    data = b"".join(map(frame, [*to_worker, *to_parent]))
    for start in range(0, len(data), 1000):
        reader.feed_data(data[start : start + 1000])
    reader.feed_eof()
    for message in to_worker:
        assert decode_to_worker(await receive(reader) or b"") == message
    for answer in to_parent:
        assert decode_to_parent(await receive(reader) or b"") == answer
    assert await receive(reader) is None


async def test_half_a_message_is_the_end() -> None:
    """The other side died while it wrote: nothing of it counts."""
    reader = asyncio.StreamReader()
    reader.feed_data(frame(OFFER)[:-1])
    reader.feed_eof()
    assert await receive(reader) is None


def test_the_two_directions_are_not_mixed_up() -> None:
    """A batch is no order, and an answer no batch."""
    with pytest.raises(msgspec.ValidationError):
        decode_to_worker(frame(OFFER)[4:])
    with pytest.raises(msgspec.ValidationError):
        decode_to_parent(frame(Stop())[4:])
