"""The audit event: one typed view of a line of the Kubernetes audit log (audit.k8s.io/v1 Event as JSON).

`decode` reads one line, `split` makes the lines of an EventList or a JSON array single ones. A line that the typed decoder
refuses (a field of an odd type, cut off, broken, nested too deep) is read again by `salvage`, which keeps what is
usable. Both raise MalformedEvent and nothing else; any other exception is a bug.

Bodies stay raw until a rule asks: `annotations_of` and `metadata_of` read them, whatever shape they have.
"""

from typing import Annotated, Final, Literal

import msgspec

from forwarder.errors import MalformedEvent
from forwarder.events.bodies import BodyMetadata, OwnerReference, annotations_of, metadata_of
from forwarder.events.salvage import BOM, MAX_CODE, MAX_LINE_BYTES, PADDING, head_digest, levelled, salvage, trim
from forwarder.events.scan import Scanner

__all__ = [
    "MAX_LINE_BYTES",
    "MAX_SPLIT_EVENTS",
    "REASONS",
    "TEST_API_VERSION",
    "AuditEvent",
    "BodyMetadata",
    "ObjectRef",
    "OwnerReference",
    "ResponseStatus",
    "User",
    "annotations_of",
    "asked",
    "decode",
    "head_digest",
    "metadata_of",
    "split",
]

MAX_SPLIT_EVENTS: Final = 10_000
"""Events in one EventList: as many as the apiserver's webhook buffers by default (it sends 400 at a time). A line with more
is refused as a whole, so that one line cannot make a million dead letters."""

TEST_API_VERSION: Final = "forwarder.test/v1"
"""The apiVersion of the event that `forwarder doctor` sends. Nobody can hide behind it: the apiserver writes the
top-level fields of each event itself, and its clients can only fill bodies and strings below them."""

REASONS: Final = (
    "empty",
    "not_json",
    "not_an_object",
    "not_an_audit_event",
    "cut_too_early",
    "too_long",
    "too_many_events",
)
"""All reasons of MalformedEvent that come from here; each is a metric label."""


Code = Annotated[int, msgspec.Meta(ge=0, le=MAX_CODE)]


class User(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who: as the authenticator said, or as impersonated. `extra` holds what clouds add (EKS: sessionName, arn, …)."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = {}


class ObjectRef(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """What the request was about. `name` is empty for lists and for generateName; `namespace` for cluster-wide objects."""

    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    api_group: str = ""
    api_version: str = ""
    uid: str = ""
    resource_version: str = ""


class ResponseStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How it ended. The status message is not kept: it may quote the request."""

    code: Code = 0
    reason: str = ""


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """One audit event; what is absent, null or unusable in the line is "", (), {}, None or an empty Raw.

    Text is as the line gives it: redact before it is stored or sent. audit_id is never empty; verb only where the
    apiserver has none for the HTTP method.
    request_object, response_object: JSON text as the line had it; empty when absent; cut, or no valid JSON, only where
    the line was.
    partial: something of the line is lost (it was cut, or longer than MAX_LINE_BYTES).
    """

    kind: str = ""
    api_version: str = ""
    level: str = ""
    audit_id: str = msgspec.field(default="", name="auditID")
    stage: str = ""
    request_uri: str = msgspec.field(default="", name="requestURI")
    verb: str = ""
    user: User = User()
    impersonated_user: User | None = None
    source_ips: tuple[str, ...] = msgspec.field(default=(), name="sourceIPs")
    user_agent: str = ""
    object_ref: ObjectRef | None = None
    response_status: ResponseStatus | None = None
    annotations: dict[str, str] = {}
    request_received_timestamp: str = ""
    stage_timestamp: str = ""
    request_object: msgspec.Raw = msgspec.Raw(b"")
    response_object: msgspec.Raw = msgspec.Raw(b"")
    partial: bool = False

    @property
    def is_test(self) -> bool:
        """Whether `forwarder doctor` sent it."""
        return self.api_version == TEST_API_VERSION


_decode = msgspec.json.Decoder(AuditEvent).decode


class _Who(msgspec.Struct, frozen=True, gc=False):
    username: str = ""


class _What(msgspec.Struct, gc=False):
    resource: str = ""
    subresource: str = ""
    namespace: str = ""


class _Head(msgspec.Struct, gc=False, rename="camel"):
    kind: Literal["Event"]
    api_version: Literal["audit.k8s.io/v1"]
    audit_id: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="auditID")
    stage: str
    verb: Annotated[str, msgspec.Meta(min_length=1)]
    user: _Who = _Who()
    object_ref: _What | None = None
    impersonated_user: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_head = msgspec.json.Decoder(_Head).decode


def asked(line: memoryview) -> tuple[str, str, str, str | None, str, str] | None:
    """(stage, verb, user name, resource or None for a non-resource URL, subresource, namespace) as `decode` would have them.

    Twice as fast, as nothing else is built. None where that is not certain: odd types, impersonation, whatever is no event.
    """
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        head = _decode_head(line)
    except (ValueError, RecursionError):
        return None
    if head.impersonated_user is not msgspec.UNSET:
        return None
    about = head.object_ref
    if about is None:
        return head.stage, head.verb, head.user.username, None, "", ""
    return head.stage, head.verb, head.user.username, about.resource, about.subresource, about.namespace


def decode(line: bytes | bytearray | memoryview) -> AuditEvent:
    """The audit event of one line. Raises MalformedEvent.

    Where a key stands twice, the last one counts; in a broken line the first.
    """
    # The bodies are views of what is decoded: of bytes that nobody writes to, never of a receive buffer.
    owned = line if isinstance(line, bytes) else bytes(line)
    if len(owned) > MAX_LINE_BYTES:
        return _salvaged(owned)
    try:
        event = _decode(owned)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _salvaged(owned)
    return event if event.verb and event.audit_id else _salvaged(owned)


def _salvaged(line: bytes) -> AuditEvent:
    """The event that the typed decoder could not read, or the reason why there is none."""
    text = trim(line[:MAX_LINE_BYTES])
    too_long = len(line) > MAX_LINE_BYTES
    if not text:
        raise MalformedEvent("empty")
    if not text.startswith(b"{"):
        raise MalformedEvent("not_an_object" if _is_json(text) else "not_json")
    fields, lost = salvage(text)
    if lost and (level := levelled(text)) != text:
        fields, _ = salvage(level)
    # HTTP methods that the apiserver has no verb for, such as OPTIONS, are audited with an empty one
    if fields.get("auditID") and (fields.get("verb") or ("verb" in fields and fields.get("requestURI") and not lost)):
        return msgspec.convert({**fields, "partial": lost or too_long}, AuditEvent)
    if too_long:
        raise MalformedEvent("too_long")
    if not lost:
        raise MalformedEvent("not_an_audit_event")
    raise MalformedEvent("cut_too_early" if fields else "not_json")


def _is_json(text: bytes) -> bool:
    return Scanner(text).skip(0) == len(text)


class _EventList(msgspec.Struct, gc=False):
    kind: str = ""
    items: list[msgspec.Raw] = []


_decode_list = msgspec.json.Decoder(_EventList).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def split(line: bytes) -> list[bytes]:
    """The single event lines of an EventList or a JSON array (none of an empty one); `[line]` for anything else.

    Raises MalformedEvent("too_many_events"). What is broken inside a list comes out as an item that `decode` refuses.
    """
    # A look at the first byte and one search decide for nearly every line. Only the decode after it is the proof: the
    # word may also stand in a body.
    start = line[:64].lstrip(PADDING).removeprefix(BOM).lstrip(PADDING)[:1]
    if start != b"[" and b"EventList" not in line:
        return [line]
    text = trim(line)
    try:
        if start == b"[":
            events = [bytes(item) for item in _decode_array(text)]
        else:
            listing = _decode_list(text)
            if listing.kind != "EventList":
                return [line]
            events = [bytes(item) for item in listing.items]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        salvaged = _salvaged_items(text)
        if salvaged is None:
            return [line]
        events = salvaged
    if len(events) > MAX_SPLIT_EVENTS:
        raise MalformedEvent("too_many_events")
    return events


def _salvaged_items(text: bytes) -> list[bytes] | None:
    """The items of a list that the decoder could not read: cut, too deep. None when it is no list of events."""
    scanner = Scanner(text)
    kind, items = "EventList", 0
    if not text.startswith(b"["):
        kind, items = "", -1
        for key, span in scanner.members(0):
            if key == "kind":
                kind = scanner.text(*span[:2])
            elif key == "items":
                items = span[0]
    if kind != "EventList" or items < 0:
        return None
    found = [text[start:end] for start, end, _ in scanner.items(items)]
    end = scanner.skip(0)
    return [*found, text[end:]] if 0 <= end < len(text) else found
