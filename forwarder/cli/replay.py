"""`forwarder replay AUDIT_LOG…`: which friction events rules would have found in logs that are already there.

Events go to stdout (a table, or one JSON object per event id at its highest revision), the summary to stderr. Nothing
is sent anywhere.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from forwarder.cli import console
from forwarder.cli.audit_logs import STDIN, Block, CutShortError, find_logs, read_blocks, total_bytes
from forwarder.cli.console import FAILED, Output, plural, say, warn
from forwarder.cli.rules import load
from forwarder.errors import ConfigError

if TYPE_CHECKING:
    from forwarder.detection.detector import Detector
    from forwarder.events.friction import FrictionEvent

MAX_HELD_EVENTS = 200_000  # about 300 MB; a session's two revisions are merged while its event is held
MAX_SHOWN_MALFORMED = 5  # enough to find the cause; the rest is counted
LONG_LOG_BYTES = 8 << 20  # a log of this size takes long enough for a progress bar
TOP = 5

_UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Findings(msgspec.Struct):
    """What a replay has seen so far; `events` by id, each at its highest revision."""

    lines: int = 0
    matched: int = 0
    malformed: Counter[str] = msgspec.field(default_factory=Counter)
    examples: list[str] = []
    older: int = 0
    events: dict[str, "FrictionEvent"] = {}
    rules: Counter[str] = msgspec.field(default_factory=Counter)
    services: Counter[str] = msgspec.field(default_factory=Counter)
    actors: Counter[str] = msgspec.field(default_factory=Counter)
    days: Counter[str] = msgspec.field(default_factory=Counter)
    total: int = 0
    cut_short: list[str] = []


def replay(
    audit_log: Annotated[list[str], typer.Argument(help="Audit logs: files, folders, globs, `-`; .gz is unpacked.")],
    rules: Annotated[list[Path] | None, typer.Option(help="Rule file or folder; may be given again.")] = None,
    since: Annotated[str, typer.Option(help="Only later events: 24h, 7d, 2026-03-01, 2026-03-01T10:00:00Z.")] = "",
    cluster: Annotated[str, typer.Option(help="The cluster's name, as the receiver of these logs has it.")] = "",
    output: Annotated[Output, typer.Option(help="For people or for machines.")] = Output.table,
) -> None:
    """Show what rules would have found in audit logs: events on stdout, a summary on stderr."""
    from forwarder.detection.detector import Detector

    since_s = parse_since(since, time.time()) if since else 0.0
    detector = Detector(load(rules), cluster=cluster)
    files = find_logs(audit_log, not_before_s=since_s)
    if not files:
        raise ConfigError(f"nothing was written since {since}", where=", ".join(audit_log))
    findings = Findings()
    started = time.perf_counter()
    bound = _stamp(since_s) if since else ""
    with _progress(files) as advance:
        for file in files:
            try:
                for block in read_blocks(file):
                    look_at(block, file, detector, findings, bound)
                    advance(file, block.position_bytes)
                    if len(findings.events) >= MAX_HELD_EVENTS:
                        _print_events(findings, output)
            except CutShortError:
                findings.cut_short.append(file)
    _print_events(findings, output)
    sys.stdout.flush()
    _summary(findings, len(files), time.perf_counter() - started)
    if findings.cut_short:
        raise typer.Exit(FAILED)


def look_at(block: Block, file: str, detector: "Detector", findings: Findings, since: str = "") -> None:
    """Screen and detect the lines of one block. `since`: RFC 3339 in microseconds and `Z`, or empty."""
    buffer = block.buffer
    findings.lines += len(block.spans) + len(block.overlong)
    for number in block.overlong:
        _malformed(findings, file, number, "line-too-long")
    for index in detector.screen.candidates(buffer, block.spans):
        start, end = block.spans[index]
        examined = detector.examine(buffer[start:end])
        for fault in examined.malformed:
            _malformed(findings, file, block.first_line + index, fault.reason)
        findings.matched += bool(examined.events)
        for event in examined.events:
            if event.timestamp < since:
                findings.older += 1
            else:
                _keep(findings, event)


def parse_since(text: str, now_s: float) -> float:
    """Unix seconds of `24h`, `7d`, `2026-03-01` or an RFC 3339 time; without a zone it is UTC, as in the audit log."""
    unit = _UNITS_S.get(text[-1:].lower())
    if unit and text[:-1].isdigit():
        return max(0.0, now_s - int(text[:-1]) * unit)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no time; write 24h, 7d, 2026-03-01 or 2026-03-01T10:00:00Z", where="--since"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _stamp(time_s: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time_s)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _keep(findings: Findings, event: "FrictionEvent") -> None:
    known = findings.events.get(event.id)
    if known is not None:
        if event.revision > known.revision:
            findings.events[event.id] = event
        return
    findings.events[event.id] = event
    findings.total += 1
    findings.rules[event.type] += 1
    findings.services[event.entity_ref] += 1
    findings.actors[event.actor] += 1
    findings.days[event.timestamp[:10]] += 1


def _malformed(findings: Findings, file: str, number: int, reason: str) -> None:
    findings.malformed[reason] += 1
    if len(findings.examples) < MAX_SHOWN_MALFORMED:
        findings.examples.append(f"{'standard input' if file == STDIN else file}:{number}: {reason}")


def _print_events(findings: Findings, output: Output) -> None:
    """Write out what is held, by time, and hold nothing afterwards."""
    events = sorted(findings.events.values(), key=lambda event: event.timestamp)
    findings.events = {}
    if output is Output.ndjson:
        for event in events:
            console.ndjson(event)
    elif events:
        columns = ("time", "severity", "rule", "who", "service", "what", "outcome")
        console.table(columns, (_row(event) for event in events))


def _row(event: "FrictionEvent") -> tuple[str, ...]:
    who = f"{event.actor} as {event.acting_as}" if event.acting_as else event.actor
    what = f"{event.verb} {event.resource}{f'/{event.name}' if event.name else ''}"
    what += f" {event.subresource}" if event.subresource else ""
    what += f": {event.command}" if event.command else ""
    outcome = event.outcome if event.duration_s is None else f"{event.outcome}, {event.duration_s:.0f} s"
    return event.timestamp[:19] + "Z", event.severity, event.type, who, event.entity_ref, what, outcome


def _summary(findings: Findings, files: int, took_s: float) -> None:
    rate = f", {findings.lines / took_s:,.0f} lines/s" if took_s > 1 else ""
    say(f"{plural(findings.lines, 'line')} in {plural(files, 'file')} read in {took_s:.1f} s{rate}")
    say(f"{plural(findings.total, 'friction event')} from {plural(findings.matched, 'line')}")
    for title, counter in (
        ("by rule", findings.rules),
        ("by day", Counter(dict(sorted(findings.days.items())[-TOP:]))),
        ("most by service", findings.services),
        ("most by person", findings.actors),
    ):
        if counter:
            chosen = counter.most_common(None if title == "by rule" else TOP)
            say(f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in chosen))
    if findings.older:
        say(f"  {plural(findings.older, 'event')} before --since, left out")
    if findings.malformed:
        warn(f"{plural(findings.malformed.total(), 'line')} could not be read, of those that a rule might match:")
        for example in findings.examples:
            say(f"  {example}")
        if findings.malformed.total() > len(findings.examples):
            say("  … " + ", ".join(f"{reason} {count:,}" for reason, count in findings.malformed.most_common()))
    for file in findings.cut_short:
        warn(f"{file}: the compressed file is damaged or cut; what stands before the damage was read")


@contextmanager
def _progress(files: list[str]) -> Iterator[Any]:
    """`advance(file, position_bytes)`; draws a bar on stderr when a person watches and the log is long."""
    total = total_bytes(files)
    if total < LONG_LOG_BYTES or not console.is_terminal(sys.stderr):
        yield lambda _file, _position: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    done = 0
    last = ("", 0)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.console(sys.stderr), transient=True) as progress:
        task = progress.add_task("reading", total=total)

        def advance(file: str, position: int) -> None:
            nonlocal done, last
            before = last[1] if last[0] == file else 0
            done += max(0, position - before)
            last = (file, position)
            progress.update(task, completed=done)

        yield advance
