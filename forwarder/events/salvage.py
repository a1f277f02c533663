"""What is left of an audit line that is cut off, broken, nested too deep, or has fields of odd types.

Managed clouds cut anywhere: AKS at 16 KiB in the middle of a string, EKS with `[Truncated...]` behind it, Fluent Bit at
its buffer size. The apiserver writes who, what and where first, so the head of a line mostly tells all that a rule needs.

`salvage(line)` walks the top-level object and gives plain data in the shape of the typed form: each complete value; of a
cut user or objectRef the complete members; of a cut body the bytes that are there. What is cut inside is dropped, but what
is missing of an objectRef is read from the request's URI.
"""

import hashlib
import re
from typing import Any, Final

import msgspec

from forwarder.events.request_path import object_of
from forwarder.events.scan import Scanner, Span

MAX_LINE_BYTES: Final = 16 << 20
"""What is read of one line. The shipped Fluent Bit settings cut at 9,000,000 bytes, and the apiserver's webhook sends at most
10 MiB at once; but it takes request bodies of 3 MiB, and writes each `<` of one as six bytes. So a longer line is no
error, or it would be a place to hide: its head is read, and the event is partial."""

PADDING: Final = b" \t\r\n\0"  # NULs: what a crash or copytruncate leaves in a file
BOM: Final = b"\xef\xbb\xbf"
_CUT_MARK: Final = b"[Truncated...]"

_BODIES: Final = ("requestObject", "responseObject")
_TEXTS: Final = (
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "userAgent",
    "requestReceivedTimestamp",
    "stageTimestamp",
)  # fmt: skip
_USER: Final = ("username", "uid")
_OBJECT_REF: Final = (
    "resource",
    "subresource",
    "namespace",
    "name",
    "apiGroup",
    "apiVersion",
    "uid",
    "resourceVersion",
)  # fmt: skip

MAX_CODE: Final = 999_999_999  # of a response; HTTP knows three digits, databases take no more than 19

_KEYS: Final = frozenset(
    (*_TEXTS, *_BODIES, "user", "impersonatedUser", "objectRef", "responseStatus", "sourceIPs", "annotations")
)
_STAGE = re.compile(rb'"stage":"(ResponseStarted|Panic)"')
_LONGEST_STAGE: Final = "ResponseComplete"

DIGESTED: Final = (
    "auditID",
    "requestURI",
    "verb",
    "user",
    "impersonatedUser",
    "sourceIPs",
    "userAgent",
    "objectRef",
)  # fmt: skip
"""What `head_digest` reads: all that the stages of one request have in common."""


def trim(line: bytes) -> bytes:
    """A line without its byte order mark, without padding at either end, and without EKS' mark of a cut.

    The mark looks like an array, and would be a value behind the `:` of the member that was cut.
    """
    return line.strip(PADDING).removeprefix(BOM).strip(PADDING).removesuffix(_CUT_MARK)


def salvage(line: bytes) -> tuple[dict[str, Any], bool]:
    """(fields by their JSON names, whether anything was lost) of the object with which a trimmed line begins.

    Of two values for one key the last one counts, as in any JSON; but in a broken line the first: behind the break, what
    stands in a body or a string may look like a field.
    """
    scanner = Scanner(line)
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    whole: set[str] = set()
    end = 1
    for key, span in scanner.members(0):
        end = span[1]
        if key in _KEYS:
            last[key] = _value(scanner, key, span)
            first.setdefault(key, last[key])
            if span[2]:
                whole.add(key)
    if not scanner.lost and line[end:].strip() == b"}":
        return last, False
    if "objectRef" not in whole and (asked := object_of(first.get("requestURI", ""))):
        known = {key: text for key, text in (first.get("objectRef") or {}).items() if text}
        first["objectRef"] = asked | known
    return first, True


def _value(scanner: Scanner, key: str, span: Span) -> Any:
    """One of _KEYS, as far as it can be read."""
    start, end, _ = span
    if key in _TEXTS:
        return _text(scanner, span)
    if key in _BODIES:
        return msgspec.Raw(scanner.buffer[start:end])
    if key in ("user", "impersonatedUser"):
        return _user(scanner, span) or ({} if key == "user" else None)
    if key == "objectRef":
        return _object(scanner, start, _OBJECT_REF)
    if key == "responseStatus":
        return _status(scanner, start)
    return _texts(scanner, span) if key == "sourceIPs" else _annotations(scanner, start)


def levelled(line: bytes) -> bytes:
    """A cut line without what the line of the request's other stage lost to its longer stage name.

    A limit on the whole line leaves one byte more of the rest where the stage is `ResponseStarted`; if just that byte
    completed a field, the two lines would tell different things of one request, and be two events.
    """
    stage = _STAGE.search(line)
    return line[: len(stage[1]) - len(_LONGEST_STAGE)] if stage else line


def head_digest(line: bytes) -> str:
    """SHA-256, hex, of the complete values among DIGESTED: stands for requestReceivedTimestamp in a line cut before it.

    It is the same for the ResponseStarted and the ResponseComplete line of one request. So it leaves out what differs
    between them: stage and level, responseStatus and stageTimestamp, and the bodies, which a limit on the whole line
    cuts one byte earlier in the line whose stage is one letter longer. Two requests that share a client-made auditID
    and all else are one to it: nothing in such lines tells them apart.
    """
    line = trim(line[:MAX_LINE_BYTES])
    values, lost = _digested(line)
    if lost and (level := levelled(line)) != line:
        values, _ = _digested(level)
    digest = hashlib.sha256()
    for key in DIGESTED:
        value = values.get(key, b"")
        digest.update(b"%s:%d:%s" % (key.encode(), len(value), value))
    return digest.hexdigest()


def _digested(line: bytes) -> tuple[dict[str, bytes], bool]:
    scanner = Scanner(line)
    values: dict[str, bytes] = {}
    for key, (start, end, complete) in scanner.members(0):
        if complete and key in DIGESTED:
            values.setdefault(key, line[start:end])
    return values, scanner.lost


def _text(scanner: Scanner, span: Span) -> str:
    """A string, or a number or boolean where text is expected; "" for null, for objects, and for what is cut."""
    start, end, complete = span
    first = scanner.buffer[start : start + 1]
    if not complete or first in (b"{", b"[", b"n"):
        return ""
    return scanner.text(start, end) if first == b'"' else scanner.buffer[start:end].decode("ascii")


def _texts(scanner: Scanner, span: Span) -> list[str]:
    """The usable items of an array of texts; one text counts as an array of one."""
    start = span[0]
    if scanner.buffer[start : start + 1] == b"[":
        found = [_text(scanner, item) for item in scanner.items(start)]
    else:
        found = [_text(scanner, span)]
    return [text for text in found if text]


def _object(scanner: Scanner, start: int, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """The members among `keys` of an object of texts; None where there is no object."""
    if scanner.buffer[start : start + 1] != b"{":
        return None
    return {key: _text(scanner, value) for key, value in scanner.members(start) if key in keys}


def _annotations(scanner: Scanner, start: int) -> dict[str, str]:
    """Only strings: an annotation is never anything else."""
    members = scanner.members(start)
    return {key: _text(scanner, value) for key, value in members if value[2] and _is_string(scanner, value[0])}


def _user(scanner: Scanner, span: Span) -> dict[str, Any] | None:
    """A user; a plain string is the name of one."""
    start = span[0]
    if _is_string(scanner, start):
        return {"username": _text(scanner, span)}
    if scanner.buffer[start : start + 1] != b"{":
        return None
    user: dict[str, Any] = {}
    for key, value in scanner.members(start):
        if key in _USER:
            user[key] = _text(scanner, value)
        elif key == "groups":
            user[key] = _texts(scanner, value)
        elif key == "extra":
            user[key] = {name: _texts(scanner, extra) for name, extra in scanner.members(value[0])}
    return user


def _status(scanner: Scanner, start: int) -> dict[str, Any] | None:
    """Code and reason; a code may be written as text or with a fraction."""
    status = _object(scanner, start, ("code", "reason"))
    if status is not None:
        code = status.get("code", "").partition(".")[0]
        status["code"] = int(code) if code.isascii() and code.isdigit() and len(code) <= len(str(MAX_CODE)) else 0
    return status


def _is_string(scanner: Scanner, start: int) -> bool:
    return scanner.buffer[start : start + 1] == b'"'
