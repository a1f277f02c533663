"""What a message says: the same facts in the same order for every service that carries it; each escapes its own way.

A `Note` is plain text. Names in it come from strangers: whoever puts it into markup escapes every part.
"""

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

import msgspec

from forwarder.alerts.audit import PREFIX
from forwarder.alerts.filters import RANK
from forwarder.alerts.planner import Group, Message
from forwarder.events.friction import FrictionEvent

MAX_TITLE_CHARS = 150  # a subject line, and what a lock screen shows
MAX_COMMAND_CHARS = 600  # longer scripts are in the dashboard; services cut at 2000 to 4000 characters in all
MAX_VALUE_CHARS = 300
MAX_DIGEST_LINES = 12  # a screen of a phone

COLOURS = {"high": "#d92d20", "medium": "#f79009", "low": "#2e90fa"}
MARKS = {"high": "🔴", "medium": "🟠", "low": "🔵"}


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """title: one line. facts: (what, value). command: run in the container. lines: of a digest. footer: small print.

    link: to the dashboard, empty where none is set. severity: the gravest of what it is about.
    """

    title: str
    severity: str
    facts: tuple[tuple[str, str], ...] = ()
    command: str = ""
    lines: tuple[str, ...] = ()
    footer: str = ""
    link: str = ""


def note(message: Message, *, dashboard_url: str = "", max_per_minute: int = 0) -> Note:
    """The words for one message."""
    if message.reason:
        return _digest(message, dashboard_url, max_per_minute)
    group = message.groups[0]
    event = group.events[-1]
    return Note(
        title=_short(_title(group), MAX_TITLE_CHARS),
        severity=message.severity,
        facts=tuple((name, _short(value, MAX_VALUE_CHARS)) for name, value in _facts(group) if value),
        command=_short(event.command, MAX_COMMAND_CHARS),
        footer=f"id {event.id}" + (f" · audit id {_short(event.audit_id, 60)}" if event.audit_id else ""),
        link=link(dashboard_url, event),
    )


def link(dashboard_url: str, event: FrictionEvent | None) -> str:
    """`dashboard_url` with {id}, {entity_ref}, {service}, {namespace}, {cluster} and {rule} filled in; every value quoted."""
    if not dashboard_url:
        return ""
    values = dict.fromkeys(("id", "entity_ref", "service", "namespace", "cluster", "rule"), "")
    if event is not None:
        values |= {
            "id": event.id,
            "entity_ref": event.entity_ref,
            "service": event.service,
            "namespace": event.namespace,
            "cluster": event.cluster,
            "rule": event.type,
        }
    for name, value in values.items():
        dashboard_url = dashboard_url.replace("{" + name + "}", quote(value, safe=""))
    return dashboard_url


# --- one group -------------------------------------------------------------------------------------------------------


def _title(group: Group) -> str:
    event = group.events[-1]
    test = "[test] " if event.test else ""
    denied = "denied: " if event.outcome == "denied" else ""
    count = len(group.events)
    times = f" — {count}{' more' if group.again else ''} times" if count > 1 else " — again" if group.again else ""
    if event.type.startswith(PREFIX):
        return f"{test}{denied}{event.actor}: {event.type.removeprefix(PREFIX)} {_named(event)}, {event.stage}{times}"
    return f"{test}{denied}{event.type}: {event.actor} on {_where(event)}{times}"


def _where(event: FrictionEvent) -> str:
    """The service for people: `shop/cart`."""
    return event.entity_ref.partition(":")[2] or event.entity_ref


def _named(event: FrictionEvent) -> str:
    """The object for people: `shop/cart-1`."""
    return f"{event.namespace}/{event.name}" if event.namespace and event.name else event.name or event.namespace


def _facts(group: Group) -> list[tuple[str, str]]:
    event = group.events[-1]
    return [
        ("What", event.description),
        ("When", _span(group.events)),
        ("Who", _who(event)),
        ("On what", _object(event)),
        ("Outcome", _outcome(event)),
        ("Stage", event.stage if event.type.startswith(PREFIX) else ""),
        ("Severity", f"{event.severity} ({event.points} points)" if event.points else ""),
        ("Cluster", event.cluster),
    ]


def _who(event: FrictionEvent) -> str:
    parts = [event.actor]
    if event.acting_as:
        parts.append(f"acting as {event.acting_as}")
    if event.via:
        parts.append(f"by way of {event.via}")
    if event.source_ips:
        parts.append(f"from {', '.join(event.source_ips[:3])}")
    return " ".join(parts)


def _object(event: FrictionEvent) -> str:
    kind = f"{event.resource}/{event.subresource}" if event.subresource else event.resource
    extra = [f"{word} {value}" for word, value in (("container", event.container), ("node", event.node)) if value]
    return ", ".join([f"{event.verb} {kind} {_named(event)}".strip(), *extra])


def _outcome(event: FrictionEvent) -> str:
    code = f" ({event.response_code})" if event.response_code else ""
    if event.stage == "RequestReceived":
        return "not yet known"
    session = event.stage == "ResponseStarted"
    if event.outcome != "allowed":
        return event.outcome + code
    if session and event.duration_s is None:
        return "open now"
    lasted = f", lasted {event.duration_s:.0f} s" if event.duration_s is not None else ""
    stage = f", {event.stage}" if event.stage not in ("", "ResponseComplete") else ""
    return f"allowed{code}{lasted}{stage}"


def _span(events: Sequence[FrictionEvent]) -> str:
    """When: one moment, or from first to last."""
    first, last = min(event.timestamp for event in events), max(event.timestamp for event in events)
    if first == last:
        return _moment(first)
    begin, end = _moment(first), _moment(last)
    return f"{begin} to {end[11:] if begin[:10] == end[:10] else end}"


def _moment(timestamp: str) -> str:
    try:
        return datetime.fromisoformat(timestamp).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return timestamp


# --- a digest --------------------------------------------------------------------------------------------------------


def _digest(message: Message, dashboard_url: str, max_per_minute: int) -> Note:
    groups = sorted(
        message.groups, key=lambda group: (-max(RANK[event.severity] for event in group.events), -len(group.events))
    )
    lines = [_line(group) for group in groups[:MAX_DIGEST_LINES]]
    if left := groups[MAX_DIGEST_LINES:]:
        lines.append(f"and {sum(len(group.events) for group in left)} more events in {len(left)} groups")
    events = [event for group in groups for event in group.events]
    why = (
        "held back during the quiet hours"
        if message.reason == "quiet"
        else f"held back: more than {max_per_minute} messages a minute"
    )
    count = f"{len(events)} events" if len(events) > 1 else "1 event"
    return Note(
        title=f"{count} {why}",
        severity=message.severity,
        facts=(("When", _span(events)), ("Who", _some([event.actor for event in events]))),
        lines=tuple(lines),
        link=link(dashboard_url, None),
    )


def _line(group: Group) -> str:
    event = group.events[-1]
    denied = "denied " if event.outcome == "denied" else ""
    text = f"{denied}{event.type}: {_short(event.actor, 60)} on {_short(_where(event), 80)}"
    cluster = f" ({_short(event.cluster, 40)})" if event.cluster else ""
    return f"{MARKS[event.severity]} {len(group.events)} x {text}{cluster}"


def _some(names: Sequence[str], limit: int = 5) -> str:
    different = list(dict.fromkeys(_short(name, 60) for name in names))
    more = f" and {len(different) - limit} more" if len(different) > limit else ""
    return ", ".join(different[:limit]) + more


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
