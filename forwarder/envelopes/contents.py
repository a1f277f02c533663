"""What was found in a message: audit lines, what could not be read, and what is no audit event at all.

Shared by every form: texts and lists out of raw JSON that may be cut, times as Unix seconds, base64 and gzip with a bound.
Nothing here raises but `Unreadable`.
"""

import base64
import binascii
import datetime as dt
import re
from typing import Final, Literal

import msgspec

from forwarder.errors import ForwardProtocolError
from forwarder.events.scan import Scanner
from forwarder.wire.forward_inflate import FEED_BYTES, for_blob

BadReason = Literal[
    "bad_base64",
    "bad_gzip",
    "inflates_too_far",
    "too_many_records",
    "too_deep",
    "unreadable_envelope",
    "body_too_large",
]
"""Why something gave no line; a metric label."""

SkipReason = Literal["other_category", "other_stream", "other_service", "control_message", "no_audit_text"]
"""Why a record of an envelope is no audit event; a metric label."""

Fields = dict[str, bytes]
"""The members of one JSON object, each as its JSON text."""

GZIP_MAGIC: Final = b"\x1f\x8b"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)")
_MAX_TIME_S: Final = 4_102_444_800.0  # the year 2100; a number beyond it is milliseconds


class Found(msgspec.Struct, frozen=True, gc=False):
    """One audit line. time_s: the envelope's time, 0.0 where it has none. cluster: as the envelope names it, or ""."""

    line: bytes
    time_s: float = 0.0
    cluster: str = ""


class Bad(msgspec.Struct, frozen=True, gc=False):
    """One record that gave no line, and its bytes."""

    reason: BadReason
    data: bytes


class Contents(msgspec.Struct):
    """Of one message, in its order. skipped: records that are something else than audit events, by reason."""

    lines: list[Found] = []
    bad: list[Bad] = []
    skipped: dict[SkipReason, int] = {}

    def skip(self, reason: SkipReason) -> None:
        """One record more that is something else."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


class Unreadable(Exception):
    """What stands here cannot be read; `reason` says why."""

    def __init__(self, reason: BadReason) -> None:
        super().__init__(reason)
        self.reason = reason


class _EventList(msgspec.Struct, gc=False):
    kind: str
    items: list[msgspec.Raw]


_decode_event_list = msgspec.json.Decoder(_EventList).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def fields_of(data: bytes) -> tuple[Fields, bool]:
    """(the members of the object in `data`, whether it is whole). Of a cut or broken one what can be read; {} for others."""
    try:
        return {key: bytes(value) for key, value in _decode_fields(data).items()}, True
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    fields: Fields = {}
    scanner = Scanner(data)
    for key, (start, end, _) in scanner.members(0):
        fields.setdefault(key, data[start:end])
    return fields, False


def event_list_of(data: bytes) -> list[bytes] | None:
    """The items of an EventList in one pass, where it is a sound one; None otherwise."""
    try:
        listing = _decode_event_list(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return [bytes(item) for item in listing.items] if listing.kind == "EventList" else None


def items_of(raw: bytes) -> list[bytes]:
    """The items of a JSON array, the last one perhaps cut; [] for anything else."""
    try:
        return [bytes(item) for item in _decode_items(raw)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        scanner = Scanner(raw)
        return [raw[start:end] for start, end, _ in scanner.items(0)]


def text_of(raw: bytes | None) -> str:
    """The JSON string `raw`, also one that is cut; "" for anything else."""
    if not raw or not raw.startswith(b'"'):
        return ""
    try:
        return _decode_text(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    end = len(raw) if len(raw) > 1 and raw.endswith(b'"') else -1
    whole = raw if end > 0 else raw.rstrip(b"\\") + b'"'
    return Scanner(whole).text(0, len(whole))


def line_of(raw: bytes) -> bytes:
    """What stands in a string as bytes, or a value that is no string as it is."""
    return text_of(raw).encode("utf-8", "replace") if raw.startswith(b'"') else raw


def time_of(raw: bytes | None) -> float:
    """RFC 3339 text, or a number of seconds or milliseconds, as Unix seconds; 0.0 where it says nothing usable."""
    if not raw:
        return 0.0
    text = text_of(raw) if raw.startswith(b'"') else raw.decode("ascii", "replace")
    match = _TIME.match(text)
    try:
        if match:
            second, fraction, zone = match.groups()
            moment = dt.datetime.fromisoformat(second.upper().replace(" ", "T") + zone.upper().replace("Z", "+00:00"))
            return moment.timestamp() + float(f"0.{fraction or 0}")
        number = float(text)
    except (ValueError, OverflowError):
        return 0.0
    if number > _MAX_TIME_S:
        number /= 1000.0
    return number if 0 < number <= _MAX_TIME_S else 0.0


def from_base64(raw: bytes | None) -> bytes:
    """What a base64 string stands for. Raises Unreadable."""
    try:
        return base64.b64decode(text_of(raw), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("bad_base64") from None


def inflated(data: bytes, max_bytes: int) -> bytes:
    """All members of a gzip stream. Raises Unreadable where it is damaged, cut, or gives more than `max_bytes`."""
    inflater = for_blob(data[:4])
    if inflater is None:
        raise Unreadable("bad_gzip")
    pieces, size = [], 0
    try:
        for at in range(0, len(data), FEED_BYTES):
            inflater.feed(data[at : at + FEED_BYTES])
            while piece := inflater.read():
                size += len(piece)
                if size > max_bytes:
                    raise Unreadable("inflates_too_far")
                pieces.append(piece)
        inflater.finish()
    except ForwardProtocolError:
        raise Unreadable("bad_gzip") from None
    return b"".join(pieces)


def is_audit_text(text: str) -> bool:
    """Whether text of an unknown kind is an audit event, perhaps a cut one."""
    return text.lstrip()[:1] == "{" and '"auditID"' in text[:1024]
