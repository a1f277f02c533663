"""Numbers and moments as people say them. Moments are Unix microseconds and always told in UTC."""

import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

SECOND_US = 1_000_000
STEPS = ((60, "s", 1), (3600, "min", 60), (86_400, "h", 3600))


def moment(time_us: int) -> str:
    """`2026-01-31 12:00:05`."""
    return _datetime(time_us).isoformat(" ")[:19]


def clock(time_us: int) -> str:
    """`12:00:05`, for lists that are grouped by day."""
    return _datetime(time_us).isoformat()[11:19]


def day(time_us: int) -> str:
    """`Saturday, 31 January 2026`."""
    date = _datetime(time_us)
    return f"{date:%A}, {date.day} {date:%B %Y}"


def iso(time_us: int) -> str:
    """For the `datetime` of a <time>, which scripts read."""
    return f"{_datetime(time_us).isoformat()[:19]}Z"


def ago(time_us: int, now_us: int) -> str:
    """`just now`, `4 min ago`, `3 h ago`, `12 days ago`; `in 5 days` for what is still to come."""
    seconds = abs(now_us - time_us) / SECOND_US
    if seconds < 10:
        return "just now"
    words = _about(seconds)
    return f"in {words}" if time_us > now_us else f"{words} ago"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `2 min 5 s`, `1 h 4 min`; "" when it is not known."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    if minutes == 0:
        return f"{whole} s"
    if hours == 0:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes_left} min" if minutes_left else f"{hours} h"
    return f"{hours // 24} days"


def plural(number: int, word: str, words: str = "") -> str:
    """`1 event`, `1,204 events`."""
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def address(path: str, parameters: Mapping[str, object] | None = None, **more: object) -> str:
    """A link inside the dashboard; parameters that say nothing are left out."""
    chosen = {**(parameters or {}), **more} if parameters else more
    query = "&".join(
        [f"{name}={quoted(str(value))}" for name, value in chosen.items() if value not in ("", None, False)]
    )
    return f"{path}?{query}" if query else path


@functools.lru_cache(4096)
def quoted(text: str) -> str:
    """A value inside a link; the same few names stand on a page again and again."""
    return quote(text, safe="/:@", errors="replace")


def split_ref(ref: str) -> tuple[str, str, str]:
    """kind, namespace and name of an entity reference."""
    kind, _, rest = ref.partition(":")
    namespace, _, name = rest.partition("/")
    return kind, namespace, name


def _datetime(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // SECOND_US, UTC)


def _about(seconds: float) -> str:
    for limit, unit, size in STEPS:
        if seconds < limit:
            return f"{int(seconds / size)} {unit}"
    return plural(int(seconds / 86_400), "day")
