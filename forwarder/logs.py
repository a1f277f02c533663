"""Log lines on stderr: text for people, JSON for machines; never a control character, never a payload.

    2026-03-01T10:00:00.123Z INFO  forwarder.pipeline  reloaded rules=20
    {"time":"2026-03-01T10:00:00.123Z","level":"info","logger":"forwarder.pipeline","message":"reloaded","rules":20}

What stands in `extra=` becomes fields. A logged exception gives its type and its frames; its text only where the type
is known not to quote data, because `KeyError: 'hunter2'` would carry a secret out of an audit line.
"""

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from forwarder.errors import ConfigError, ForwarderError

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

MAX_MESSAGE_CHARACTERS = 4096  # journald and most shippers take more; a longer line is somebody's payload
MAX_FRAMES = 20  # enough to find the fault; a recursion error would print a thousand

# C0, DEL and C1 move cursors and forge lines; U+2028/2029 break lines in viewers; the bidirectional marks reorder text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")  # an encoder would refuse the whole line

# Texts of these types name types, files and causes, not data.
_TEXT_IS_SAFE = (ForwarderError, OSError, TypeError, AttributeError, NameError, ImportError, NotImplementedError)

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

# One line per request or per retry of others' libraries belongs to debugging only.
_CHATTY = ("uvicorn.access", "urllib3", "asyncio", "httpx", "alembic", "sqlalchemy")


def configure(level: str = "info", format: str = "text", stream: TextIO | None = None) -> None:  # noqa: A002 - the setting's name
    """Send everything that is logged to `stream` (default: stderr at the time of the call). May be called again.

    Raises ConfigError for a level or a format that does not exist.
    """
    number = LEVELS.get("warning" if level.lower() == "warn" else level.lower())
    if number is None:
        raise ConfigError(f"{level!r} is no log level; valid: {', '.join(LEVELS)}", where="log.level")
    if format not in ("text", "json"):
        raise ConfigError(f"{format!r} is no log format; valid: text, json", where="log.format")
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING) if number > logging.DEBUG else number)
    logging.captureWarnings(capture=True)


def clean(text: str) -> str:
    """`text` on one line, safe for a terminal: control characters become spaces, half characters `?`."""
    return _LONE_SURROGATES.sub("?", _CONTROL.sub(" ", text))


def describe(error: BaseException) -> list[str]:
    """An exception as lines without payload: causes first, frames as `file:line function`, the text where safe."""
    lines: list[str] = []
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    for link in reversed(chain):
        frames = traceback.extract_tb(link.__traceback__)[-MAX_FRAMES:]
        lines += [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        text = clean(str(link)) if isinstance(link, _TEXT_IS_SAFE) else ""
        lines.append(f"{type(link).__name__}: {text}" if text else type(link).__name__)
    return lines


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """A full disk or closed pipe behind stderr ends nothing; the default would print the arguments of the line."""


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={_text_value(value)}" for key, value in _fields(record).items())
        line = f"{_time(record)} {_level(record).upper():<7} {record.name}  {_message(record)}{fields}"
        if record.exc_info and record.exc_info[1]:
            line += "".join(f"\n    {part}" for part in describe(record.exc_info[1]))
        return line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": _level(record),
            "logger": record.name,
            "message": _message(record),
        }
        for key, value in _fields(record).items():
            line.setdefault(key, value if isinstance(value, bool | int | float | None) else clean(str(value)))
        if record.exc_info and record.exc_info[1]:
            line["error"] = describe(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"), allow_nan=True)


def _message(record: logging.LogRecord) -> str:
    text = clean(record.getMessage())
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else text[:MAX_MESSAGE_CHARACTERS] + "…"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _OWN_FIELDS and not key.startswith("_")}


def _text_value(value: Any) -> str:
    text = clean(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or re.search(r'[\s"=]', text) else text


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(record: logging.LogRecord) -> str:
    return "error" if record.levelno >= logging.ERROR else record.levelname.lower()
