"""Quiet hours: the hours of the day and the days of the week in which people are left alone."""

import re
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from forwarder.errors import ConfigError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)")


class QuietHours(msgspec.Struct, frozen=True):
    """begin, end: local times of every day; the same twice for none. days: weekdays (0 is Monday) that are quiet whole."""

    begin: time
    end: time
    days: frozenset[int]
    zone: ZoneInfo

    def ends(self, now: float) -> float | None:
        """When the quiet that reigns at `now` is over, both Unix seconds; None when it does not reign."""
        moment = start = datetime.fromtimestamp(now, self.zone)
        for _ in range(2 * len(DAYS) + 2):  # a quiet day may end in quiet hours, and these in the next quiet day
            following = self._next_end(moment)
            if following is None:
                break
            moment = following
        return moment.timestamp() if moment > start else None

    def _next_end(self, moment: datetime) -> datetime | None:
        today, tomorrow = moment.date(), moment.date() + timedelta(days=1)
        if moment.weekday() in self.days:
            return datetime.combine(tomorrow, time(), self.zone)
        clock = moment.time().replace(tzinfo=None)
        if self.begin <= self.end:
            return datetime.combine(today, self.end, self.zone) if self.begin <= clock < self.end else None
        if clock >= self.begin:
            return datetime.combine(tomorrow, self.end, self.zone)
        return datetime.combine(today, self.end, self.zone) if clock < self.end else None


def parse_quiet_hours(hours: str, days: Sequence[str], timezone: str, *, where: str) -> QuietHours | None:
    """`22:00-07:00`, [`sat`, `sun`] and `Europe/Berlin`; None when both are empty. Raises ConfigError."""
    if not hours and not days:
        return None
    match = _HOURS.fullmatch(hours.strip()) if hours else None
    if hours and match is None:
        raise ConfigError(f"`quiet_hours`: {hours!r} is no span of hours; write for example 22:00-07:00", where=where)
    hour, minute, end_hour, end_minute = map(int, match.groups()) if match else (0, 0, 0, 0)
    begin, end = time(hour, minute), time(end_hour, end_minute)
    if hours and begin == end:
        raise ConfigError("`quiet_hours` begin when they end; list `quiet_days` for whole days", where=where)
    if unknown := [day for day in days if day.lower()[:3] not in DAYS]:
        raise ConfigError(f"`quiet_days`: {unknown[0]!r} is none of {', '.join(DAYS)}", where=where)
    chosen = frozenset(DAYS.index(day.lower()[:3]) for day in days)
    if len(chosen) == len(DAYS):
        raise ConfigError("`quiet_days` are all days of the week: nobody would ever be told", where=where)
    return QuietHours(begin, end, chosen, _zone(timezone, where))


def _zone(name: str, where: str) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"`timezone`: {name!r} is not known here; write for example Europe/Berlin (or install tzdata)", where=where
        ) from None
