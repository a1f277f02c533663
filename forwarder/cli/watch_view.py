"""What `forwarder watch` prints of a message: a line for people, an object for machines.

    10:00:00  HIGH    prod/payments/checkout  alice@example.com  shell-in-pod  create pods/checkout-0/exec  $ sh -c id  allowed

Columns grow with what was seen, up to a bound, so that lines stand in order without a table that is known beforehand; a
terminal that is too narrow gets the rest of a line below it. All of it came over the network: control characters are
taken out here.
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
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
_WIDEST = {"target": 24, "where": 40, "actor": 24, "rule": 20}  # in characters; what is wider pushes its own line only
_SEVERITY_CHARS = 6
_INDENT = 18  # of what a terminal has no room for: below the place where it happened

_Cell = tuple[str, str]  # as it is measured, and as it is painted


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
        service=clean(message.Owner.Name or ("" if data.get("resource") else message.PodName)),
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

    def __init__(self, *, colour: bool, show_target: bool, columns: Callable[[], int] | None = None) -> None:
        """columns: how wide the terminal is now; what does not fit goes on below, indented. None: nothing is folded."""
        self._colour = colour
        self._show_target = show_target
        self._columns = columns
        self._widths: dict[str, int] = {}

    def line(self, target: str, fact: Facts) -> str:
        """One event or notice on one line, or on as many as the terminal needs."""
        cells = [self._cell("target", target)] if self._show_target else []
        cells.append(self._cell("", _short_time(fact.time), dim=True))
        if fact.stream == "messages":
            level = fact.level.ljust(_SEVERITY_CHARS)
            return self._joined(
                [*cells, self._cell("", level, _MESSAGE_COLOURS.get(fact.level, "")), (fact.what, fact.what)]
            )
        alert = fact.stream == "alerts"
        failed = fact.outcome.startswith(("denied", "failed", "Block"))
        cells += [
            self._cell("", fact.level.upper().ljust(_SEVERITY_CHARS), _COLOURS.get(fact.level, ""), bold=True),
            self._cell("where", fact.where, dim=not alert),
            self._cell("actor", fact.actor, bold=alert),
            *([self._cell("rule", fact.rule)] if alert else []),
            self._cell("", fact.what, dim=not alert),
            self._cell("", f"$ {fact.command}" if fact.command else "", typer.colors.CYAN),
            self._cell("", fact.outcome, typer.colors.MAGENTA if failed else "", bold=failed, dim=not alert),
        ]
        return self._joined(cells)

    def dropped(self, seen: Seen) -> str:
        """What stands where the feed left events out."""
        head = f"{seen.target}  " if self._show_target else ""
        words = f"{head}… {plural(seen.dropped, seen.stream[:-1])} lost here: this terminal reads more slowly than they come"
        return _painted(words, self._colour, typer.colors.MAGENTA)

    def _cell(self, column: str, text: str, colour: str = "", *, bold: bool = False, dim: bool = False) -> _Cell:
        if column:
            width = self._widths.get(column, 0)
            if width < len(text) <= _WIDEST[column]:
                width = self._widths[column] = len(text)
            text = text.ljust(width)
        return text, _painted(text, self._colour, colour, bold=bold, dim=dim)

    def _joined(self, cells: Sequence[_Cell]) -> str:
        """The cells with gaps between them; folded where the terminal ends."""
        columns = self._columns() if self._columns else 0
        line, used = "", 0
        for text, painted in cells:
            if not text:
                continue
            if columns and used > _INDENT and used + 2 + len(text.rstrip()) > columns:
                line, used = f"{line.rstrip()}\n{' ' * _INDENT}", _INDENT
            elif used:
                line, used = f"{line}  ", used + 2
            line, used = line + painted, used + len(text)
        return line.rstrip()


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
