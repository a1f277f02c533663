"""From an entry that is no plain raw line to the bytes of one audit line, or the reason why there is none. Sans-IO.

What shippers send besides `{"log": "<line>"}`: the line behind other keys (`container_id`, `node`, …), under `message`
where the sender is a logging library, or the event itself as a map where Fluent Bit parses JSON. A map becomes JSON
again, keys in the order in which they came, so that everything behind this edge knows one form only.
"""

from typing import Any, Literal, get_args

import msgpack
import msgspec

from forwarder.errors import ForwardProtocolError, MalformedEvent
from forwarder.wire.forward_entries import Other
from forwarder.wire.msgpack_spans import Buffer, header, walk

Reason = Literal["not_an_entry", "not_a_record", "no_line", "too_deep", "unreadable_record", "unreadable_rest"]
"""Why an entry gave no line; a metric label. unreadable_rest: no entry can begin here, nor after it in this blob."""

REASONS: tuple[str, ...] = get_args(Reason)

_LINE_KEYS = ("log", "message")
"""Where a line may be although the setting says otherwise: an agent's own default, and that of logging libraries."""

_AUDIT_KEYS = ("auditID", "kind", "apiVersion", "requestURI", "verb", "stage")
_ENVELOPE_KEYS = ("items", "properties", "records", "protoPayload", "logEvents")  # lists, and the managed clouds' forms
_EVENT_KEYS = frozenset((*_AUDIT_KEYS, *_ENVELOPE_KEYS))

_MAX_KEYS = 20  # more names than fit into what is kept of a dead letter

_TOO_DEEP = "skipped-too-deep-object"
"""Stands where a value was nested too deeply. The event goes on without it: a deep body must not hide who sent it."""


def to_line(buffer: Buffer, entry: Other, log_key: str) -> bytes:
    """The audit line of `entry`, copied or made. Raises MalformedEvent with a Reason."""
    if entry.record < 0:
        raise MalformedEvent("not_an_entry")
    record = bytes(buffer[entry.record : entry.stop])
    try:
        try:
            return _line(_decode(record), log_key)
        except RecursionError:
            return _line(_shallow(record), log_key)
    except RecursionError:
        raise MalformedEvent("too_deep") from None
    except (TypeError, ValueError, msgspec.MsgspecError, msgpack.UnpackException, ForwardProtocolError):
        raise MalformedEvent("unreadable_record") from None


def keys(buffer: Buffer, entry: Other) -> list[str]:
    """The names in a record that gave no line, for a person to recognise its sender by; no values. Empty for other things."""
    head = header(buffer, entry.record, entry.stop) if entry.record >= 0 else None
    if head is None or head.kind != "map":
        return []
    found: list[str] = []
    at = head.body
    for _ in range(min(head.size, _MAX_KEYS)):
        key = header(buffer, at, entry.stop)
        if key is not None and key.kind == "str":
            found.append(bytes(buffer[key.body : key.body + min(key.size, 64)]).decode("utf-8", "replace"))
        at, _left = walk(buffer, at, entry.stop, 2)
    return found


def _line(fields: Any, log_key: str) -> bytes:
    if not isinstance(fields, dict):
        raise MalformedEvent("not_a_record")
    event = fields.get(log_key)
    if isinstance(event, str | bytes):
        return _raw(event)
    for key in _LINE_KEYS:
        text = fields.get(key)
        if isinstance(text, str | bytes) and _raw(text).lstrip().startswith(b"{"):
            return _raw(text)
    if not isinstance(event, dict):
        event = fields
    if _EVENT_KEYS.isdisjoint(event):
        raise MalformedEvent("no_line")
    return _to_json(event)


def _decode(data: bytes) -> Any:
    """One msgpack object; bytes of a text that are not UTF-8 become lone surrogates."""
    try:
        return msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        pass  # text that is no UTF-8, keys that msgspec does not take: the lenient decoder says what it is
    try:
        return msgpack.unpackb(data, raw=False, unicode_errors="surrogateescape", strict_map_key=False)
    except msgpack.StackError:
        raise RecursionError from None


def _shallow(record: bytes) -> Any:
    """The same for a map in which some value is nested too deeply: that value is replaced, the others stay."""
    head = header(record, 0, len(record))
    if head is None or head.kind != "map":
        raise RecursionError
    fields: dict[Any, Any] = {}
    at = head.body
    for _ in range(head.size):
        value, _left = walk(record, at, len(record), 1)
        stop, _left = walk(record, value, len(record), 1)
        key = _decode(record[at:value])
        try:
            fields[key] = _decode(record[value:stop])
            _to_json({"": fields[key]})  # the encoder has a limit of its own
        except RecursionError:
            fields[key] = _TOO_DEEP
        at = stop
    return fields


def _raw(line: str | bytes) -> bytes:
    return line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")


def _to_json(event: dict[Any, Any]) -> bytes:
    try:
        return msgspec.json.encode(event)
    except UnicodeEncodeError:
        return msgspec.json.encode(_without_surrogates(event))


def _without_surrogates(value: Any) -> Any:
    """`value` with U+FFFD for every byte that was not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value
