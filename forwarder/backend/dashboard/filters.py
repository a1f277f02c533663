"""The addresses of lists: from a query string to a filter and back, so that every figure can link to what is behind it.

    /search?entity=component:shop/cart&rule=kubectl-exec&since=2026-01-31&weekday=0&hour=14&expected=exclude

What makes no sense is told and left out, never an error page: addresses are typed, cut and pasted.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from forwarder.backend.intake import parse_timestamp
from forwarder.backend.store.events import EventFilter

MAX_TEXT_CHARS = 600  # of one field; the longest that an event can have to be found by
DAY_US = 86_400_000_000

TEXTS = ("entity", "actor", "rule", "severity", "outcome", "namespace", "cluster", "object", "q")
_NAMES = {"entity": "entity_ref", "q": "text"}
_CHOICES = {
    "severity": ("high", "medium", "low"),
    "outcome": ("allowed", "denied", "failed"),
    "expected": ("exclude", "include", "only"),
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """where: for the store. given: the fields that mean something, for links and forms. problems: what was left out."""

    where: EventFilter
    given: dict[str, str]
    problems: list[str]


def read_filter(query: Mapping[str, str]) -> Asked:
    """The filter of a query string."""
    given: dict[str, str] = {}
    fields: dict[str, Any] = {}
    problems: list[str] = []

    def read(name: str, field: str, convert: Callable[[str], Any], expected: str) -> None:
        text = query.get(name, "").strip()
        if not text:
            return
        value = convert(text)
        if value is None:
            problems.append(f"{name} must be {expected}; it was left out")
            return
        given[name], fields[field] = text, value

    for name in TEXTS:
        choices = _CHOICES.get(name)
        words = f"one of {', '.join(choices)}" if choices else f"at most {MAX_TEXT_CHARS} characters"
        read(name, _NAMES.get(name, name), _text(choices), words)
    read("expected", "expected", _text(_CHOICES["expected"]), f"one of {', '.join(_CHOICES['expected'])}")
    read("since", "since_us", parse_timestamp, "a date or a time, such as 2026-01-31")
    read("until", "until_us", _until, "a date or a time, such as 2026-01-31")
    read("weekday", "weekday", _whole(6), "0 (Monday) to 6")
    read("hour", "hour", _whole(23), "0 to 23")
    read("mark", "mark", _whole(1 << 53), "the number of a mark")
    read("tests", "tests", lambda text: True if text == "1" else None, "1")
    return Asked(where=EventFilter(**fields), given=given, problems=problems)


def _text(choices: tuple[str, ...] | None) -> Callable[[str], str | None]:
    def convert(text: str) -> str | None:
        good = text in choices if choices else len(text) <= MAX_TEXT_CHARS and "\0" not in text
        return text if good else None

    return convert


def _whole(most: int) -> Callable[[str], int | None]:
    def convert(text: str) -> int | None:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        return number if 0 <= number <= most else None

    return convert


def _until(text: str) -> int | None:
    """A date means the whole of that day, as people read it."""
    moment = parse_timestamp(text)
    return moment + DAY_US if moment is not None and len(text) == len("2026-01-31") else moment
