"""From an entry that is no plain raw line to the bytes of one audit line, or the reason why there is none. Sans-IO.

What shippers send besides `{"log": "<line>"}`: the line behind other keys (`container_id`, `node`, …), under `message`
where the sender is a logging library, or the event itself as a map where Fluent Bit parses JSON. A map becomes JSON
again, keys in the order in which they came, so that everything behind this edge knows one form only.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal, cast, get_args

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


Asked = tuple[str, str, str, str | None, str, str]
"""Stage, verb, user name, resource (None: a non-resource URL), subresource, namespace, as an audit event has them."""


class _User(msgspec.Struct, gc=False):
    username: str = ""


class _ObjectRef(msgspec.Struct, gc=False):
    resource: str = ""
    subresource: str = ""
    namespace: str = ""


class _Head(msgspec.Struct, gc=False, rename="camel"):
    """The fields of an audit event by which rules are chosen; those that make it another kind of record, or person, as Raw."""

    kind: Literal["Event"]
    api_version: Literal["audit.k8s.io/v1"]
    audit_id: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="auditID")
    stage: str
    verb: Annotated[str, msgspec.Meta(min_length=1)]
    user: _User
    object_ref: _ObjectRef | None = None
    impersonated_user: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    log: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    message: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    own_key: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


Decoder = Callable[[Any], _Head]


@lru_cache(maxsize=16)
def decoder(log_key: str) -> Decoder | None:
    """For `asked`, where a raw line would stand under `log_key`; None where that is one of an audit event's own names."""
    if log_key in _LINE_KEYS:
        return msgspec.msgpack.Decoder(_Head).decode
    if log_key in {field.encode_name for field in msgspec.structs.fields(_Head)}:
        return None
    own_key = msgspec.field(default=msgspec.UNSET, name=log_key)
    own = msgspec.defstruct(
        "_OwnHead", [("own_key", msgspec.Raw | msgspec.UnsetType, own_key)], bases=(_Head,), gc=False
    )
    return cast("Decoder", msgspec.msgpack.Decoder(own).decode)


def asked(view: memoryview, entry: Other, decode: Decoder) -> Asked | None:
    """What the audit event in a parsed map asks for: what the full decode of `to_line`'s line would say, at a tenth of the cost.

    None where that is not certain: another shape of record, a field that is null or of an odd type, impersonation.
    """
    if entry[1] < 0:
        return None
    try:
        head = decode(view[entry[1] : entry[2]])
    except (ValueError, TypeError, RecursionError):
        return None
    if not (head.impersonated_user is head.log is head.message is head.own_key is msgspec.UNSET):
        return None
    about = head.object_ref
    if about is None:
        return head.stage, head.verb, head.user.username, None, "", ""
    return head.stage, head.verb, head.user.username, about.resource, about.subresource, about.namespace


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
