r"""What an operator wants hidden beyond what is hidden anyway: in audit streams, in friction events and in dead letters.

    redaction:
      resources: [vaultsecrets, "*.keys"]      # their bodies are hidden whole
      fields: ["*ssn*", ownerEmail]            # the values under these names, wherever they stand
      patterns: ['CUST-\d{8}' ]                 # what these match in any text

It comes after the rules of `redact` and `redact_body`, and can only hide more. It costs a second look at each event, and
nothing where nothing is set.
"""

import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Any

import msgspec

from forwarder.errors import ConfigError
from forwarder.events.credentials import REDACTED
from forwarder.events.friction import FrictionEvent

MAX_DEPTH = 100  # as in redact_body, which has replaced what is deeper
MAX_PATTERNS = 100

# Texts of a friction event in which a pattern may match. Which service it was stays: a backend would refuse the event.
_TEXTS = ("actor", "description", "name", "container", "acting_as", "via", "user_agent", "command")
_BODIES = ("requestObject", "responseObject")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


class RedactionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """resources: globs of resources (`vaultsecrets`) whose request and response objects are hidden whole.
    fields: globs of names, in any case, whose values are hidden wherever they stand in an audit event's bodies and
    annotations. patterns: regular expressions; what they match is hidden in every text, of friction events too.
    """

    resources: list[str] = []
    fields: list[str] = []
    patterns: list[str] = []


class Redaction:
    """Pure; one for a process."""

    def __init__(self, settings: RedactionSettings) -> None:
        """Raises ConfigError for a pattern that is no regular expression, or matches nothing but everywhere."""
        self._resource = _globs(settings.resources)
        self._field = _globs(settings.fields)
        self._pattern = _pattern(settings.patterns)

    @property
    def active(self) -> bool:
        """Whether anything is set."""
        return any(one is not None for one in (self._resource, self._field, self._pattern))

    def line(self, line: bytes) -> bytes:
        """An audit event, the JSON that `outgoing` made, with more hidden in it. Raises nothing."""
        fields: dict[str, Any] = _decode(line)
        reference = fields.get("objectRef")
        resource = reference.get("resource") if isinstance(reference, dict) else None
        if self._resource and isinstance(resource, str) and self._resource.fullmatch(resource):
            fields |= {name: REDACTED for name in _BODIES if name in fields}
        return _encode(
            {name: self._walk(value, name in (*_BODIES, "annotations"), 0) for name, value in fields.items()}
        )

    def text(self, value: str) -> str:
        """Any text."""
        return self._pattern.sub(REDACTED, value) if self._pattern else value

    def friction(self, event: FrictionEvent) -> FrictionEvent:
        """A friction event; the same one where nothing matches."""
        if self._pattern is None:
            return event
        changes = {name: hidden for name in _TEXTS if (hidden := self.text(value := getattr(event, name))) != value}
        return msgspec.structs.replace(event, **changes) if changes else event

    def _walk(self, value: Any, named: bool, depth: int) -> Any:
        """named: whether names count here; the audit event's own, such as `verb`, are no fields of anybody's."""
        if isinstance(value, str):
            return self.text(value)
        if depth > MAX_DEPTH:
            return REDACTED
        if isinstance(value, list):
            return [self._walk(item, named, depth + 1) for item in value]
        if isinstance(value, dict):
            return {
                self.text(name): REDACTED
                if named and self._field and self._field.fullmatch(name)
                else self._walk(item, named, depth + 1)
                for name, item in value.items()
            }
        return value


def _globs(patterns: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(translate(pattern) for pattern in patterns), re.IGNORECASE) if patterns else None


def _pattern(patterns: Sequence[str]) -> re.Pattern[str] | None:
    if len(patterns) > MAX_PATTERNS:
        raise ConfigError(f"`redaction.patterns`: more than {MAX_PATTERNS}")
    for pattern in patterns:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"`redaction.patterns`: {pattern!r} is no regular expression ({error.msg})") from None
        if compiled.search(""):
            raise ConfigError(f"`redaction.patterns`: {pattern!r} matches nothing at all, and so everywhere")
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
