"""What the receiving side of the Forward protocol tells its owner, and the one thing that the owner answers.

MessageStart, then any number of Entries and Unreadable, then MessageEnd; Heartbeat and Verdict between messages;
NEED_DATA whenever nothing more can be said.
"""

from enum import Enum
from typing import Final, Literal

import msgpack
import msgspec

from forwarder.wire.forward_entries import Other, time_s
from forwarder.wire.forward_handshake import Verdict
from forwarder.wire.msgpack_spans import Buffer


class NeedData(Enum):
    """The type of NEED_DATA: nothing more can be said before more bytes come."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA


class MessageStart(msgspec.Struct, frozen=True, gc=False):
    """A message begins."""

    tag: bytes


class Entries(msgspec.Struct, frozen=True):
    """Some whole entries of the message, perhaps none. Everything in it is valid until the next call of the receiver.

    spans: (start, end) in `buffer` of each raw line. starts: for `time_s`, one for each span.
    others: entries that `forward_records.to_line` turns into lines, or says why not.
    offset: what to add to a position in `buffer` to count from the message's (inflated) entries' first byte.
    """

    buffer: Buffer
    spans: list[tuple[int, int]]
    starts: list[int]
    others: list[Other]
    offset: int

    def time_s(self, start: int) -> float:
        """The time of the entry that begins at `start` (of `starts`, or an Other's), Unix seconds; 0.0: unknown."""
        return time_s(self.buffer, start, len(self.buffer))


class Unreadable(msgspec.Struct, frozen=True):
    """The rest of a blob, from where no entry can begin; the message itself is readable and goes on behind it."""

    size_bytes: int
    sha256: str
    offset: int


class MessageEnd(msgspec.Struct, frozen=True):
    """The message is complete. chunk: to be acknowledged with exactly these bytes; None when no ack is wanted.

    entries: how many came, of every kind; an unreadable rest is one. size: how many the sender says it has sent.
    """

    chunk: bytes | None
    size: int | None
    entries: int


class Heartbeat(msgspec.Struct, frozen=True):
    """A nil between messages: the peer is there."""


Event = MessageStart | Entries | Unreadable | MessageEnd | Heartbeat | Verdict | Literal[NeedData.NEED_DATA]


def ack(chunk: bytes) -> bytes:
    """The acknowledgement of `chunk`. The id goes as str, whatever it came as: Fluent Bit rejects a bin silently."""
    return b"\x81\xa3ack" + bytes(msgpack.Packer(use_bin_type=False).pack(chunk))
