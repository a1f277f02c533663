"""Redaction: what is stored, sent or logged passes through here first.

    name(value, limit)          an identifier of Kubernetes (a resource, a pod, an address): printable, at most `limit` characters
    text(value, limit)          any text from outside: printable, no credentials, at most `limit` characters
    uri(request_uri)            a request URI, with the values of telling parameters hidden
    command(argv)               an exec command, shell-quoted, its credentials hidden
    command_from_uri(uri)       the same from the requestURI of an exec, with container and tty
    head(data)                  the beginning of a broken line, for a person who looks at a dead letter

Nothing here raises, and all of it is linear in what it reads, which is capped. It hides what looks like a credential; a
password that looks like a word, in a place that does not say so, stays readable.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from forwarder.events.commands import MAX_ARGUMENTS, arguments, quoted
from forwarder.events.credentials import REDACTED, mask, masked, sensitive

__all__ = ["REDACTED", "command", "command_from_uri", "head", "name", "text", "uri"]

MAX_INPUT_CHARS: Final = (
    64 << 10
)  # of any one text; the Go HTTP server takes a request line of 1 MiB, nobody reads that
MAX_REMEMBERED_CHARS: Final = 256  # longer than any actor or agent that people have
REMEMBERED_TEXTS: Final = 4096  # at most 2 MiB
MAX_COMMAND_CHARS: Final = 4096  # as much as a terminal line editor takes, and a page of text
MAX_URI_CHARS: Final = 2048  # what browsers and proxies agree on
MAX_CONTAINER_CHARS: Final = 63  # a DNS label
_HEAD_INPUT_BYTES: Final = 8192  # the head of a dead letter is a few hundred characters; room for escapes and cut words
ELLIPSIS: Final = "…"
_URI_INPUT_CHARS: Final = 4 * MAX_URI_CHARS  # what is hidden gets shorter, so more is read than shown
_URI_SAFE: Final = "/:[]@~$!*'(),;=+"

_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]?|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]{0,4096}+(?:\x07|\x1b\\|\x9c)?|\x1b[ -~]?"
)


def name(value: str, limit: int) -> str:
    """`value`, where nobody keeps a secret: printable as in `text`, at most `limit` characters, nothing hidden."""
    return _shortened(_printable(value[:MAX_INPUT_CHARS]), limit, len(value) > MAX_INPUT_CHARS)


def text(value: str, limit: int) -> str:
    """`value` as one printable line without credentials, at most `limit` characters; a cut one ends in an ellipsis.

    Control characters (C0, C1), terminal escapes, bidirectional overrides and invisible characters are removed, so that
    nothing can forge a log line or repaint a terminal; line breaks and odd spaces become a space. Short texts are
    remembered: actors, agents and descriptions come again and again.
    """
    return _remembered(value, limit) if len(value) <= MAX_REMEMBERED_CHARS else _text(value, limit)


def _text(value: str, limit: int) -> str:
    seen = value[:MAX_INPUT_CHARS]
    cut = len(seen) < len(value)
    if cut:
        seen = _without_last_word(seen)
    # A credential is hidden as a whole before the text is cut, so no half of one is left over.
    return _shortened(mask(_printable(seen)), limit, cut)


_remembered = functools.lru_cache(maxsize=REMEMBERED_TEXTS)(_text)


def _shortened(value: str, limit: int, cut: bool = False) -> str:
    """At most `limit` characters of `value`; with an ellipsis where something is missing, here or before (`cut`)."""
    return value[: max(limit - 1, 0)] + ELLIPSIS[:limit] if cut or len(value) > limit else value


def _without_last_word(value: str) -> str:
    """Half a token, or half of `user:password@host`, is no longer recognised; so none is left at the end of a window."""
    end = len(value)
    while end and not value[end - 1].isspace() and value[end - 1] not in "\"'":
        end -= 1
    return value[:end]


def _printable(value: str) -> str:
    if value.isprintable():
        return value
    value = _ESCAPE_SEQUENCE.sub("", value)
    return "".join(char if char.isprintable() else " " if char.isspace() else "" for char in value)


def command(argv: Sequence[str]) -> str:
    """The command of an exec on one line, quoted for a shell; see `commands.arguments` for what is hidden.

    Short ones are remembered, as texts are: most shells are opened with the same few commands.
    """
    whole = tuple(argv)
    short = sum(map(len, whole)) <= MAX_REMEMBERED_CHARS and len(whole) <= MAX_REMEMBERED_CHARS
    return (_remembered_command if short else _command)(whole)


def _command(argv: tuple[str, ...]) -> str:
    kept: list[str] = []
    room = MAX_INPUT_CHARS
    for argument in argv[:MAX_ARGUMENTS]:
        room -= len(argument)
        if room < 0:
            break
        kept.append("\n".join(map(_printable, argument.split("\n"))))  # a line break ends a command of a script
    line = " ".join(quoted(argument) for argument in arguments(kept))
    # Masked once more as one text: `Authorization: Bearer x` may come as three arguments.
    return _shortened(mask(_printable(line)), MAX_COMMAND_CHARS, cut=len(kept) < len(argv))


_remembered_command = functools.lru_cache(maxsize=REMEMBERED_TEXTS)(_command)


def command_from_uri(request_uri: str) -> tuple[str, str, bool]:
    """(command, container, tty) of an exec or attach, as its query says; ("", "", False) where it says nothing.

    The parameters are read as the apiserver reads them: the first container counts, and a tty that is neither
    `false` nor `0` is one.
    """
    query = request_uri[:MAX_INPUT_CHARS].partition("?")[2]
    if len(request_uri) > MAX_INPUT_CHARS:
        query = query.rpartition("&")[0]  # without the half parameter at the end
    pairs = _parameters(query)
    argv = [value for name, value in pairs if name == "command"]
    first = dict(reversed(pairs))
    tty = first.get("tty", "false") not in ("false", "0")
    return command(argv), text(first.get("container", ""), MAX_CONTAINER_CHARS), tty


def uri(request_uri: str) -> str:
    """A request URI with its credentials hidden, in the path, in the parameters and in the command of an exec."""
    path, mark, query = request_uri[:_URI_INPUT_CHARS].partition("?")
    cut = len(request_uri) > _URI_INPUT_CHARS
    argv = iter(arguments([value for name, value in _parameters(query) if name == "command"]))
    parts = [_parameter(part, argv) for part in query.split("&")]
    if cut and mark:
        parts.pop()  # half a parameter, whose value might no longer be recognised
    elif cut:
        path = path.rpartition("/")[0]
    return _shortened(_printable(_segment(path) + mark + "&".join(parts)), MAX_URI_CHARS, cut)


def _segment(path: str) -> str:
    """A path; as it was, where it holds no credential."""
    decoded = unquote(path, errors="replace")
    hidden = masked(_printable(decoded))
    return path if hidden == decoded else quote(hidden, safe=_URI_SAFE)


def _parameter(part: str, argv: Iterator[str]) -> str:
    """One `name=value`; as it was, where the value is no credential. `argv` gives the values of `command`."""
    name, value = _decoded(part)
    if name == "command":
        shown = next(argv, REDACTED)
    elif sensitive(name):
        shown = REDACTED
    else:
        shown = masked(_printable(value))
    return part if shown == value else f"{quote_plus(_printable(name))}={quote_plus(shown, safe=_URI_SAFE)}"


def _parameters(query: str) -> list[tuple[str, str]]:
    """The decoded parameters of a query, in order."""
    return [_decoded(part) for part in query.split("&") if part]


def _decoded(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return unquote_plus(name, errors="replace"), unquote_plus(value, errors="replace")


# --- dead letters ----------------------------------------------------------------------------------------------------

_BODY = re.compile(
    r"(?:request|response)Object|\"(?:stringData|binaryData|data)\\{0,8}\"\s{0,8}:|last-applied-configuration"
)
"""Where the payload of an audit line begins, or a secret's data: nothing behind it is shown."""

_KEY = re.compile(r'(\\{0,8})"([^"\\]{0,128})\1"\s{0,8}:')
_SHOWN_KEYS: Final = frozenset(
    (
        *("kind", "apiVersion", "level", "auditID", "stage", "requestURI", "verb", "user", "impersonatedUser"),
        *("sourceIPs", "userAgent", "objectRef", "responseStatus", "requestReceivedTimestamp", "stageTimestamp"),
        *("annotations", "username", "uid", "groups", "extra", "resource", "namespace", "name", "apiGroup"),
        *("resourceVersion", "subresource", "metadata", "status", "reason", "code"),
        *("authentication.kubernetes.io/credential-id", "authorization.k8s.io/decision", "authorization.k8s.io/reason"),
        *("items", "records", "time", "category", "operationName", "resourceId", "properties", "log"),  # envelopes
    )
)
"""Keys of an audit event, and of what clouds wrap around it, that have no payload below them."""


def head(data: bytes, limit: int = 300) -> str:
    """The beginning of a line that could not be read, at most `limit` characters, without bodies and credentials.

    It ends at the first key that is none of an audit event. Of what is no object from its beginning but has quotes
    nothing is shown: a piece out of the middle of a line, such as a copytruncate leaves, may begin inside a secret.
    """
    start = data[:_HEAD_INPUT_BYTES].decode("utf-8", "replace").removeprefix("\ufeff")
    if len(data) > _HEAD_INPUT_BYTES:
        start = _without_last_word(start)
    end = _shown_until(start)
    shown = text(start[:end], limit)
    cut = end < len(start) or len(data) > _HEAD_INPUT_BYTES
    return _shortened(shown, limit, cut and not shown.endswith(ELLIPSIS))


def _shown_until(start: str) -> int:
    """How many characters of the beginning of a line may be shown."""
    if not start.lstrip(" \t\r\n\0[").startswith("{"):
        return 0 if '"' in start or "\\" in start else len(start)
    body = _BODY.search(start)
    end = body.start() if body else len(start)
    unknown = (key.end() for key in _KEY.finditer(start, 0, end) if key[2] not in _SHOWN_KEYS)
    return next(unknown, end)
