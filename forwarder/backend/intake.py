"""From the body of `POST /events` to events ready to store: what is accepted, what is refused and in which words.

Bounds are those of the Healert API. Unknown fields are ignored and `null` means absent. The words of a refusal name the
field and what it should be, never what it was: a body may hold what nobody should read in a log.
"""

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec

from forwarder.events.friction import POINTS, EventOutcome, Severity

MAX_BATCH_EVENTS = 1000  # one transaction of a few megabytes; larger ones make readers wait for nothing
MAX_TEXT_CHARS = 16_384  # for texts that Healert does not know (a command, a user agent); longer ones are cut
MAX_ITEMS = 64  # addresses and tags of one event; a proxy chain has a handful

ENTITY_REF = r"^[a-zA-Z0-9_-]+:[a-zA-Z0-9_-]+/[a-zA-Z0-9_.\-]+$(?!\n)"  # `$` alone would let a last newline through
_entity_ref = re.compile(ENTITY_REF)

Short = Annotated[str, msgspec.Meta(max_length=200)]
EventId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{1,64}$(?!\n)")]


class IncomingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One friction event as it may be sent: the fields of Healert, then ours, all of ours optional."""

    entity_ref: Annotated[str, msgspec.Meta(min_length=3, max_length=200, pattern=ENTITY_REF)]
    type: Annotated[str, msgspec.Meta(min_length=3, max_length=50, pattern=r"^[a-z0-9-]+$(?!\n)")]
    severity: Severity
    actor: Short = ""
    service: Short = ""
    namespace: Short = ""
    workflow: Short = ""
    description: Annotated[str, msgspec.Meta(max_length=500)] = ""
    points: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    timestamp: Annotated[str, msgspec.Meta(max_length=40)] = ""

    id: EventId | None = None
    revision: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    cluster: Short = ""
    outcome: EventOutcome = "allowed"
    response_code: Annotated[int, msgspec.Meta(ge=0, le=999)] = 0
    duration_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    stage: Annotated[str, msgspec.Meta(max_length=64)] = ""
    test: bool = False

    audit_id: str = ""
    verb: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    container: str = ""
    node: str = ""
    acting_as: str = ""
    via: str = ""
    source_ips: tuple[str, ...] = ()
    user_agent: str = ""
    command: str = ""
    tty: bool = False
    tags: tuple[str, ...] = ()
    partial: bool = False


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event ready to store. occurred_us is None when the sender gave no time: then it is the moment of arrival.

    details: the fields without a column, those that are empty left out.
    """

    id: str
    revision: int
    entity_ref: str
    cluster: str
    type: str
    severity: Severity
    points: int
    actor: str
    workflow: str
    service: str
    namespace: str
    description: str
    outcome: EventOutcome
    response_code: int
    duration_s: float | None
    stage: str
    test: bool
    occurred_us: int | None
    details: dict[str, Any]


class Refusal(msgspec.Struct, frozen=True):
    """Why one event, or a whole body, cannot be taken. field: "" when it is about the whole. kind: for programs."""

    field: str
    message: str
    kind: Literal["missing", "invalid", "malformed", "too_long"] = "invalid"

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def parse_body(body: bytes) -> dict[str, Any] | list[Any] | Refusal:
    """The one event or the list of events in `body`, not yet looked at."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return Refusal("", "the body is not valid JSON", "malformed")
    except RecursionError:  # a few kilobytes of brackets
        return Refusal("", "the body is nested too deeply", "malformed")
    if isinstance(data, list):
        if len(data) > MAX_BATCH_EVENTS:
            return Refusal("", f"at most {MAX_BATCH_EVENTS} events at once; send them in parts", "too_long")
        return data
    if not isinstance(data, dict):
        return Refusal("", "the body must be an event or a list of events")
    return data


def read_event(item: Any) -> NewEvent | Refusal:
    """One decoded JSON value as an event. Raises nothing."""
    if not isinstance(item, dict):
        return Refusal("", "an event must be an object")
    try:
        event = msgspec.convert({key: value for key, value in item.items() if value is not None}, IncomingEvent)
    except msgspec.ValidationError as error:
        return refusal(str(error))
    occurred_us = parse_timestamp(event.timestamp) if event.timestamp.strip() else None
    if occurred_us is None and event.timestamp.strip():
        return Refusal("timestamp", _EXPECTED["timestamp"])
    details = {name: clean(value) for name in _DETAILS if (value := getattr(event, name))}
    return NewEvent(
        id=event.id or str(uuid.uuid4()),
        revision=event.revision,
        entity_ref=event.entity_ref,
        cluster=clean(event.cluster),
        type=event.type,
        severity=event.severity,
        points=POINTS[event.severity] if event.points is None else event.points,
        actor=clean(event.actor),
        workflow=clean(event.workflow),
        service=clean(event.service),
        namespace=clean(event.namespace),
        description=clean(event.description),
        outcome=event.outcome,
        response_code=event.response_code,
        duration_s=event.duration_s,
        stage=clean(event.stage),
        test=event.test,
        occurred_us=occurred_us,
        details=details,
    )


def valid_entity_ref(text: str) -> bool:
    """Whether `text` is `kind:namespace/name` as the Healert API bounds it."""
    return 3 <= len(text) <= 200 and _entity_ref.match(text) is not None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def parse_timestamp(text: str) -> int | None:
    """ISO 8601 as Unix microseconds; without a zone it is UTC; None when it is no time, or none of the years 1 to 9999.

    Everything is UTC from here on: a naive moment beside an aware one would fail when they are compared, much later.
    """
    try:
        moment = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    time_us = (moment - _EPOCH) // _MICROSECOND
    return time_us if _FIRST_US <= time_us <= _LAST_US else None  # an offset can lead out of the calendar


def format_timestamp(time_us: int) -> str:
    """Unix microseconds as RFC 3339 in UTC with microseconds and `Z`."""
    return (_EPOCH + time_us * _MICROSECOND).isoformat(timespec="microseconds").replace("+00:00", "Z")


# What an event may carry and no column takes. A field added to IncomingEvent alone lands here by itself.
_DETAILS = tuple(sorted(set(IncomingEvent.__struct_fields__) - set(NewEvent.__struct_fields__) - {"timestamp"}))

_EXPECTED = {
    "entity_ref": "must be kind:namespace/name of letters, digits, `-` and `_` (`.` in the name), 3 to 200 characters",
    "type": "must be 3 to 50 characters of a-z, 0-9 and `-`",
    "severity": "must be high, medium or low",
    "timestamp": "must be an ISO 8601 time of at most 40 characters, such as 2026-01-31T12:00:00Z",
    "points": "must be a whole number from 1 to 100",
    "id": "must be 1 to 64 characters of letters, digits and `._:-`",
    "outcome": "must be allowed, denied or failed",
}
_KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list"}

# Control characters could end a log line or clear a terminal (and PostgreSQL keeps no NUL); the marks that turn the
# direction of text could make a command read as another one.
_HIDDEN = dict.fromkeys([*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], " ")


def clean(value: Any) -> Any:
    if isinstance(value, str):
        value = value.translate(_HIDDEN)
        return value if len(value) <= MAX_TEXT_CHARS else value[: MAX_TEXT_CHARS - 1] + "…"
    if isinstance(value, tuple):
        return [clean(item) for item in value[:MAX_ITEMS]]
    return value


def refusal(message: str) -> Refusal:
    """The words of msgspec as ours. They may quote the value, so only those about types and bounds are kept."""
    missing = re.match(r"Object missing required field `(\w+)`", message)
    if missing:
        return Refusal(missing.group(1), "is missing", "missing")
    unknown = re.match(r"Object contains unknown field `(\w{1,40})`", message)
    if unknown:
        return Refusal(unknown.group(1), "is not known")
    field = re.search(r" - at `\$\.(\w+)", message)
    expected = re.match(r"Expected (`[a-z |]+`(?: of length)?(?: [<>]= [0-9.]+)?)", message)
    words = "is not valid"
    if expected:
        words = re.sub(
            r"`([a-z]+)(?: \| null)?`", lambda kind: _KINDS.get(kind.group(1), kind.group(1)), expected.group(1)
        )
        words = f"must be {words}"
    name = field.group(1) if field else ""
    return Refusal(name, _EXPECTED.get(name, words))
