"""An audit event on its way out: the line as kube-apiserver wrote it, without the secrets in it.

Sinks of the audit stream get `OutgoingEvent`s; `json` is redacted before anybody can send it, once for all sinks. Bodies
are the business of `redact_body`. Beside them, texts of the event itself are masked where a credential can be recognised
in them: request URI (with the command of an exec), user agent, annotations and the message of the status. Everything
else stays as it was, key order and spelling included. Of a cut line, what could be read is written anew.
"""

import functools
from typing import Any, Final

import msgspec

from forwarder.events import redact, redact_body
from forwarder.events.audit import AuditEvent, decode
from forwarder.events.credentials import masked
from forwarder.events.redaction import Redaction

PARTIAL_ANNOTATION: Final = "friction-forwarder/partial"
"""The annotation that marks an event which was written anew from what a cut line still held."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder().decode
_text = msgspec.json.Decoder(str).decode
_json = msgspec.json.encode


class OutgoingEvent:
    """One audit event for sinks and watchers. `cluster`: where it happened, "" when nobody said.

    Not a Struct: both forms are made when somebody asks, once, whoever asks first.
    """

    def __init__(self, event: AuditEvent, line: bytes, cluster: str = "", redaction: Redaction | None = None) -> None:
        """event: as decoded of `line`, the JSON of one event. redaction: what is to be hidden beyond the rule."""
        self._redaction = redaction
        self.cluster = cluster
        self._event = event
        self._line = line

    @functools.cached_property
    def json(self) -> bytes:
        """The event as one line of JSON without a newline, redacted."""
        line = outgoing(self._event, self._line)
        return self._redaction.line(line) if self._redaction else line

    @functools.cached_property
    def event(self) -> AuditEvent:
        """The typed view of `json`: what a message to people may be made of."""
        return decode(self.json)

    @property
    def original(self) -> AuditEvent:
        """What was received, with its secrets: for deciding whether to send it, never for sending."""
        return self._event

    @property
    def hides_more(self) -> bool:
        """Whether the operator wants more hidden than a text's own redaction hides."""
        return self._redaction is not None

    @property
    def size_bytes(self) -> int:
        """About what it holds in memory while it waits."""
        return len(self._line)

    def unredacted(self) -> "OutgoingEvent":
        """The same event with its line as it came, for an operator who said `redact: false`."""
        plain = OutgoingEvent(self._event, self._line, self.cluster)
        plain.json = self._line
        return plain


def outgoing(event: AuditEvent, line: bytes) -> bytes:
    """`line` as one line of redacted JSON; see the module. Raises nothing."""
    if event.partial:
        return _anew(event)
    try:
        fields = _fields(line)
        return b"{" + b",".join([_key(key) + _field(event, key, raw) for key, raw in fields.items()]) + b"}"
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _anew(event)  # the typed view skips what is broken in fields that it does not read


def _field(event: AuditEvent, key: str, raw: msgspec.Raw) -> bytes:
    """One member of the event as it goes out."""
    value = bytes(raw)
    if key in ("requestObject", "responseObject"):
        resource = event.object_ref.resource if event.object_ref else ""
        return redact_body.body(value, resource)
    if key == "requestURI":
        return _json(redact.uri(_text(value))) if b"?" in value or _telling(value) else value
    if key in ("userAgent", "annotations", "responseStatus"):
        # Text by text: as one text they would be a new one each time, and nothing of it remembered.
        found = _value(value)
        hidden = _masked(found)
        return value if hidden == found and not _broken(value) else _json(hidden)
    # Identities stay: who did it is what an audit log is for. One line is one event: no break may stand between values.
    return value.replace(b"\n", b" ").replace(b"\r", b" ") if _broken(value) else value


def _broken(value: bytes) -> bool:
    return b"\n" in value or b"\r" in value


@functools.lru_cache(maxsize=256)  # an audit event has some twenty names
def _key(name: str) -> bytes:
    return bytes(_json(name)) + b":"


def _telling(value: bytes) -> bool:
    """Whether masking would change anything."""
    text = value.decode("utf-8", "replace")
    return b"\\" in value or masked(text) != text


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _anew(event: AuditEvent) -> bytes:
    """What the typed view has, without bodies, marked as partial."""
    reference, status = event.object_ref, event.response_status
    fields: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": event.api_version or "audit.k8s.io/v1",
        "level": event.level,
        "auditID": redact.text(event.audit_id, redact.MAX_URI_CHARS),
        "stage": event.stage,
        "requestURI": redact.uri(event.request_uri),
        "verb": event.verb,
        "user": _filled(event.user),
        "impersonatedUser": _filled(event.impersonated_user) if event.impersonated_user else None,
        "sourceIPs": list(event.source_ips),
        "userAgent": redact.text(event.user_agent, redact.MAX_URI_CHARS),
        "objectRef": _filled(reference) if reference else None,
        "responseStatus": {"metadata": {}, **_filled(status)} if status else None,
        "requestReceivedTimestamp": event.request_received_timestamp,
        "stageTimestamp": event.stage_timestamp,
        "annotations": {**_masked(event.annotations), PARTIAL_ANNOTATION: "true"},
    }
    return _json({key: value for key, value in fields.items() if value not in ("", None, [])})


def _filled(part: msgspec.Struct) -> dict[str, Any]:
    """A struct as its JSON names, without what is empty."""
    built: dict[str, Any] = msgspec.to_builtins(part)
    return {key: value for key, value in built.items() if value}
