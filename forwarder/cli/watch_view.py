"""What `forwarder watch` prints of a message: a line for people, an object for machines.

    10:00:00  HIGH    prod/payments/checkout  alice@example.com  shell-in-pod  create pods/checkout-0/exec  $ sh -c id  allowed

Columns grow with what was seen, up to a bound, so that lines stand in order without a table that is known beforehand. All
of it came over the network: control characters are taken out here.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec
import typer

from forwarder.cli.console import plural
from forwarder.feed.audience import Stream
from forwarder.feed.client import Seen
from forwarder.logs import clean

LEVELS = ("low", "medium", "high")
_COLOURS = {"high": typer.colors.RED, "medium": typer.colors.YELLOW, "low": typer.colors.CYAN}
_MESSAGE_COLOURS = {"ERROR": typer.colors.RED, "ERR": typer.colors.RED, "WARN": typer.colors.YELLOW}
_WIDEST = (26, 7, 46, 36, 32, 0, 0, 0)  # of a column, in characters; what is wider pushes its own line only
_SEVERITY_CHARS = 6


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it is shown and filtered; "" for what its stream does not have."""

    stream: Stream
    time: str = ""
    level: str = ""
    cluster: str = ""
    namespace: str = ""
    service: str = ""
    actor: str = ""
    rule: str = ""
    what: str = ""
    command: str = ""
    outcome: str = ""

    @property
    def where(self) -> str:
        return "/".join(part for part in (self.cluster, self.namespace, self.service) if part)


def facts(seen: Seen) -> Facts:
    """What a message says, whether our server sent it or KubeArmor."""
    message = seen.message
    if seen.stream == "messages":
        return Facts(
            stream="messages",
            time=clean(message.UpdatedTime),
            level=clean(message.Level),
            cluster=clean(message.ClusterName),
            what=clean(message.Message),
        )
    data = message.EventData
    alert = seen.stream == "alerts"
    return Facts(
        stream=seen.stream,
        time=clean(message.UpdatedTime),
        level=severity(message.Severity) if alert else "",
        cluster=clean(message.ClusterName),
        namespace=clean(message.NamespaceName),
        service=clean(message.Owner.Name or message.PodName),
        actor=_who(message, data),
        rule=clean(message.PolicyName) if alert else "",
        what=_what(message, data),
        command=clean(data.get("command", "")),
        outcome=_outcome(message, data),
    )


def severity(number: str) -> str:
    """KubeArmor's "1" to "10" in our three words."""
    value = int(number) if number.isdecimal() else 0
    return "high" if value >= 8 else "medium" if value >= 5 else "low"


def as_object(seen: Seen) -> dict[str, Any]:
    """The message under the names of KubeArmor's protocol, without what is empty, as `karmor logs --json` has it; `Target`
    and `Stream` say where it came from.
    """
    return {"Target": seen.target, "Stream": seen.stream, **_plain(seen.message)}


class View:
    """Lines for people; remembers how wide its columns have become."""

    def __init__(self, *, colour: bool, show_target: bool) -> None:
        self._colour = colour
        self._show_target = show_target
        self._widths = [0] * len(_WIDEST)

    def line(self, target: str, fact: Facts) -> str:
        """One event or notice on one line."""
        if fact.stream == "messages":
            level = _painted(fact.level.ljust(_SEVERITY_CHARS), self._colour, _MESSAGE_COLOURS.get(fact.level, ""))
            head = [target] if self._show_target else []
            return "  ".join([*head, _short_time(fact.time), level, fact.what])
        cells = (
            target if self._show_target else "",
            "",
            fact.where,
            fact.actor,
            fact.rule,
            fact.what,
            f"$ {fact.command}" if fact.command else "",
            fact.outcome,
        )
        shown = [self._cell(index, cell, fact) for index, cell in enumerate(cells)]
        level = _painted(
            fact.level.upper().ljust(_SEVERITY_CHARS), self._colour, _COLOURS.get(fact.level, ""), bold=True
        )
        shown[1] = f"{_painted(_short_time(fact.time), self._colour, '', dim=True)}  {level}"
        return "  ".join(cell for cell in shown if cell).rstrip()

    def dropped(self, seen: Seen) -> str:
        """What stands where the feed left events out."""
        head = f"{seen.target}  " if self._show_target else ""
        words = f"{head}… {plural(seen.dropped, seen.stream[:-1])} lost here: this terminal reads more slowly than they come"
        return _painted(words, self._colour, typer.colors.MAGENTA)

    def _cell(self, index: int, text: str, fact: Facts) -> str:
        width = self._widths[index] = min(max(self._widths[index], len(text)), _WIDEST[index])
        padded = text.ljust(width)
        if not text.strip():
            return padded
        if index == 3:
            return _painted(padded, self._colour, "", bold=True)
        if index == 6:
            return _painted(padded, self._colour, typer.colors.CYAN)
        if index == 7 and text.startswith(("denied", "failed", "Permission", "Block")):
            return _painted(padded, self._colour, typer.colors.MAGENTA, bold=True)
        return _painted(padded, self._colour, "", dim=True) if fact.stream == "logs" else padded


def _painted(text: str, on: bool, colour: str, *, bold: bool = False, dim: bool = False) -> str:
    if not on or not (colour or bold or dim):
        return text
    return typer.style(text, fg=colour or None, bold=bold or None, dim=dim or None)


def _short_time(text: str) -> str:
    """The time of day in UTC, with the date in front where it is another day's."""
    try:
        moment = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except ValueError:
        return text
    today = dt.datetime.now(dt.UTC).date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%Y-%m-%d %H:%M:%S")


def _who(message: Any, data: Mapping[str, str]) -> str:
    who = clean(message.Source or message.UserName)
    for key, word in (("actingAs", "as"), ("via", "via")):
        if data.get(key):
            who += f" {word} {clean(data[key])}"
    return who


def _what(message: Any, data: Mapping[str, str]) -> str:
    """`create pods/web-0/exec`: the namespace stands elsewhere in the line."""
    resource = clean(message.Resource).removeprefix(f"namespaces/{clean(message.NamespaceName)}/")
    return f"{clean(data.get('verb', '') or message.Operation)} {resource}".strip()


def _outcome(message: Any, data: Mapping[str, str]) -> str:
    code = clean(data.get("responseCode", ""))
    words = {"Passed": "allowed", "Permission denied": "denied"}.get(message.Result, "")
    outcome = clean(data.get("outcome", "")) or words or ("failed" if message.Result.startswith("Failed") else "")
    if not outcome:
        return clean(f"{getattr(message, 'Action', '')} {message.Result}".strip())
    if outcome != "allowed" and code:
        outcome += f" {code}"
    if data.get("stage") == "ResponseStarted":
        return f"{outcome}, open"
    return f"{outcome}, {_duration(data['durationSeconds'])}" if data.get("durationSeconds") else outcome


def _duration(seconds: str) -> str:
    try:
        return f"ended after {float(seconds):.0f} s"
    except ValueError:
        return "ended"


def _plain(message: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            plain[field.name] = dict(value)
        elif field.message_type:
            plain[field.name] = _plain(value)
        else:
            plain[field.name] = value if isinstance(value, str | int) else list(value)
    return plain
