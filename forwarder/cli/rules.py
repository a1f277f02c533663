"""`forwarder rules check | test | list | explain`: is a rule file good, does it do what it says, what does it say?"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forwarder.cli import console
from forwarder.cli.console import FAILED, Output, out, plural, say, warn
from forwarder.cli.rule_words import rule_words
from forwarder.errors import ConfigError, MalformedEvent

if TYPE_CHECKING:
    from forwarder.detection.rules import RuleSet

MAX_EVENT_FILE_BYTES = 64 << 20  # eight of the longest lines that the receiver takes

app = typer.Typer(no_args_is_help=True, help="Check, test, list and explain rule files.")

Paths = Annotated[
    list[Path] | None, typer.Argument(help="Rule files or folders; without one the shipped rules/friction.yaml.")
]


@app.command()
def check(paths: Paths = None) -> None:
    """Load the rules as strictly as the receiver does; exit 2 with file, line and the nearest valid word."""
    ruleset = load(paths)
    for warning in ruleset.warnings:
        warn(warning)
    out(f"{plural(len(ruleset.rules), 'rule')} in {plural(len(ruleset.files), 'file')}: good")
    say(f"ignored namespaces: {', '.join(ruleset.ignore_namespaces) or 'none'}")


@app.command("test")
def run_rule_tests(paths: Paths = None) -> None:
    """Run the tests that stand in the rule files; exit 1 when one fails."""
    from forwarder.detection.selftest import run_tests

    ruleset = load(paths)
    results = run_tests(ruleset)
    failures = [result for result in results if not result.passed]
    for result in failures:
        out(f"{result.file}:{result.line}: {result.rule}: {result.name}: {result.message}")
    tested = {result.rule for result in results}
    untested = [rule.name for rule in ruleset.rules if rule.name not in tested]
    if untested:
        warn(f"{plural(len(untested), 'rule')} without a test: {', '.join(untested)}")
    out(f"{plural(len(results), 'test')} of {plural(len(ruleset.rules), 'rule')}: {len(failures) or 'none'} failed")
    if failures:
        raise typer.Exit(FAILED)


@app.command("list")
def list_rules(
    paths: Paths = None, output: Annotated[Output, typer.Option(help="For people or for machines.")] = Output.table
) -> None:
    """The rules, one per line."""
    ruleset = load(paths)
    if output is Output.ndjson:
        for rule in ruleset.rules:
            console.ndjson({
                "name": rule.name, "severity": rule.severity, "points": rule.points, "workflow": rule.workflow,
                "description": rule.description, "detects": rule_words(rule), "tests": len(rule.tests),
                "tags": rule.tags, "file": rule.file, "line": rule.line,
            })  # fmt: skip
        return
    rows = [
        (rule.name, rule.severity, rule.points, rule.workflow, len(rule.tests), f"{rule.file}:{rule.line}")
        for rule in ruleset.rules
    ]
    console.table(("rule", "severity", "points", "workflow", "tests", "where"), rows, right=("points", "tests"))


@app.command()
def explain(
    paths: Paths = None,
    event: Annotated[
        str, typer.Option("--event", "-e", help="Audit events, one per line; `-` is standard input.")
    ] = "",
    rule: Annotated[list[str] | None, typer.Option(help="Only this rule; may be given again.")] = None,
) -> None:
    """Say in words what each rule detects; with --event, why each fires on an event or does not."""
    from forwarder.settings import nearest

    ruleset = load(paths)
    names = [one.name for one in ruleset.rules]
    for name in rule or ():
        if name not in names:
            raise ConfigError(f"{name!r} is no rule{nearest(name, names)}", where="--rule")
    chosen = set(rule or names)
    if not event:
        for one in ruleset.rules:
            if one.name in chosen:
                out(f"{one.name}  ({one.severity}, {plural(one.points, 'point')}, {one.workflow})")
                out(f"    {rule_words(one)}")
        say(f"never in the namespaces: {', '.join(ruleset.ignore_namespaces) or 'none are ignored'}")
        return
    if not _explain_events(ruleset, chosen, event):
        raise typer.Exit(FAILED)


def _explain_events(ruleset: "RuleSet", chosen: set[str], event: str) -> bool:
    """Whether every event could be read."""
    from forwarder.detection.detector import Detector

    detector = Detector(ruleset)
    good = True
    for number, line in enumerate(_events(event), 1):
        out(f"event {number}:")
        try:
            traces = [trace for trace in detector.explain(line) if trace.rule in chosen]
        except MalformedEvent as error:
            good = False
            out(f"  {console.mark(False)} no audit event: {error.reason}")
            continue
        for trace in traces:
            out(f"  {console.mark(True) if trace.fired else '·'} {trace.rule}: {trace.reason}")
    return good


def _events(name: str) -> Iterator[bytes]:
    """The events of a file: one per line, or the whole file where it is one pretty-printed object."""
    import json

    try:
        raw = (
            sys.stdin.buffer.read(MAX_EVENT_FILE_BYTES + 1)
            if name == "-"
            else _read(Path(name), MAX_EVENT_FILE_BYTES + 1)
        )
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=name) from None
    if len(raw) > MAX_EVENT_FILE_BYTES:
        raise ConfigError(
            f"larger than {MAX_EVENT_FILE_BYTES >> 20} MiB; `forwarder replay` reads long logs", where=name
        )
    try:
        whole = json.loads(raw)
    except (ValueError, RecursionError):
        lines = [line for line in raw.splitlines() if line.strip()]
    else:
        lines = [json.dumps(whole).encode()]
    if not lines:
        raise ConfigError("no event in it", where=name)
    yield from lines


def _read(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit_bytes)


def load(paths: list[Path] | None) -> "RuleSet":
    """The rules of `paths`, or the shipped ones. Raises ConfigError."""
    from forwarder.detection.loader import load_rules
    from forwarder.settings import shipped

    return load_rules(paths or [shipped("rules/friction.yaml")])
