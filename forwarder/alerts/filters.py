"""Which friction events a sink is for: by severity, rule, namespace and age."""

from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from forwarder.errors import ConfigError
from forwarder.events.friction import FrictionEvent

Severity = Literal["low", "medium", "high"]
RANK: dict[str, int] = {"low": 0, "medium": 1, "high": 2}


class FilterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """minimum_severity: low, medium or high; what is below is not sent. rules, namespaces: globs, empty for all.
    ignore_rules, ignore_namespaces: globs of what is not sent.
    max_age_s: an event that was older when it came in is not sent, so that a first read of old logs wakes nobody; the
    default is an hour, 0 sends all. One that only waited here, however long, is sent.
    """

    minimum_severity: Severity = "low"
    rules: list[str] = []
    ignore_rules: list[str] = []
    namespaces: list[str] = []
    ignore_namespaces: list[str] = []
    max_age_s: float = 3600.0


def check(name: str, settings: FilterSettings) -> None:
    """Raises ConfigError."""
    if settings.max_age_s < 0:
        raise ConfigError("`max_age_s` must not be below 0", where=f"sinks.{name}")


def wanted(event: FrictionEvent, stored_s: float, settings: FilterSettings) -> bool:
    """Whether the sink is to get an event that came into the outbox at `stored_s`, Unix seconds."""
    if RANK[event.severity] < RANK[settings.minimum_severity]:
        return False
    if not _passes(event.type, settings.rules, settings.ignore_rules):
        return False
    if not _passes(event.namespace, settings.namespaces, settings.ignore_namespaces):
        return False
    return settings.max_age_s <= 0 or stored_s - _unix_s(event.timestamp, stored_s) <= settings.max_age_s


def _passes(value: str, wanted_globs: Sequence[str], ignored_globs: Sequence[str]) -> bool:
    if any(fnmatchcase(value, pattern) for pattern in ignored_globs):
        return False
    return not wanted_globs or any(fnmatchcase(value, pattern) for pattern in wanted_globs)


def _unix_s(timestamp: str, unknown: float) -> float:
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return unknown
    return moment.timestamp() if moment.tzinfo else unknown
