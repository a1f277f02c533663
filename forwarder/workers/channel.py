"""What a worker and its parent say to each other, over a socket pair that nobody else has.

A message is one msgspec struct in msgpack, its length in four bytes before it. Neither side limits what it reads: both
run this very code, and a batch is as large as a Forward door lets it be.
"""

import asyncio
import struct

import msgspec

from forwarder.contracts import DeadLetter, Line
from forwarder.detection.rules import RuleSet
from forwarder.sources.forward import ForwardSettings

_LENGTH = struct.Struct(">I")


class Rules(msgspec.Struct, tag=True, frozen=True):
    """Screen by these from now on."""

    ruleset: RuleSet
    own_namespace: str
    robots: list[str]


class Setup(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The parent's first message. max_connections, budget_bytes: this worker's share."""

    name: str
    settings: ForwardSettings
    cluster: str
    rules: Rules
    max_connections: int
    budget_bytes: int
    log_level: int
    log_format: str


class Everything(msgspec.Struct, tag=True, frozen=True):
    """Whether every line is wanted, not only those that a rule may match."""

    wanted: bool


class Answer(msgspec.Struct, tag=True, frozen=True):
    """What became of an offer. refused: "" when it is durable, else the words of Overloaded; closing: ShuttingDown."""

    number: int
    refused: str = ""
    retry_after_s: float = 0.0
    closing: bool = False


class Stop(msgspec.Struct, tag=True, frozen=True):
    """Take no more, acknowledge what is complete, and end."""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The worker's first message: it takes connections. fault: "" or why it cannot."""

    fault: str = ""


class Offer(msgspec.Struct, tag=True, frozen=True):
    """A batch (contracts.Batch), to be made durable."""

    number: int
    origin: str
    received: int
    lines: list[Line]
    rejected: list[DeadLetter]
    cluster: str


class Counts(msgspec.Struct, tag=True, frozen=True):
    """What was counted since the last time. closed: connections by cause. open: now."""

    open: int
    received_bytes: int
    fallback: int
    closed: dict[str, int]


ToWorker = Setup | Rules | Everything | Answer | Stop
ToParent = Ready | Offer | Counts

_encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_parent = msgspec.msgpack.Decoder(ToParent).decode


def frame(message: ToWorker | ToParent) -> bytes:
    """`message` as it goes over the channel."""
    data = _encode(message)
    return _LENGTH.pack(len(data)) + data


async def receive(reader: asyncio.StreamReader) -> bytes | None:
    """The next message, still encoded; None when the other side is gone."""
    try:
        (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
