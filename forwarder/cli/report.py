"""What a service says when it has started: which version, which rules, what it listens to and tails, and where to look."""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from forwarder import __version__
from forwarder.cli.console import say
from forwarder.settings import Address

if TYPE_CHECKING:
    from forwarder.pipeline import Pipeline
    from forwarder.registry import Loaded
    from forwarder.sinks.backend import BackendState

BACKEND_DEADLINE_S = 3.0  # the report waits no longer for a backend's first answer; the sink goes on trying
POLL_S = 0.05

log = logging.getLogger("forwarder")


class Report(msgspec.Struct):
    """Lines as (name, text); warnings stand apart, because an operator must see them in either form."""

    lines: list[tuple[str, str]] = []
    warnings: list[str] = []

    def add(self, name: str, text: str) -> None:
        """One more line."""
        self.lines.append((name, text))


def receiver_report(loaded: "Loaded", pipeline: "Pipeline", telemetry: Address | None) -> Report:
    """The report of a started receiver; waits a few seconds at most for what its sinks learn of their backends."""
    report = Report()
    report.add("version", f"forwarder {__version__}")
    ruleset = pipeline.detector.ruleset
    if ruleset.rules:
        report.add("rules", f"{len(ruleset.rules)} from {', '.join(ruleset.files)}")
        own = loaded.config.detection.own_namespace
        ignored = [*ruleset.ignore_namespaces, *([f"{own} (its own, automatic)"] if own else [])]
        report.add("ignored", f"namespaces {', '.join(ignored) or 'none'}")
    else:
        report.add("rules", "none: audit events are passed on, nothing is looked for")
    report.warnings += ruleset.warnings
    for name, source in pipeline.sources.items():
        report.add("source", f"{name}: {describe_source(source)}")
    deadline = time.monotonic() + BACKEND_DEADLINE_S
    for name, sink in pipeline.sinks.items():
        while (state := getattr(sink, "state", None)) and state.reachable is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        _, settings = loaded.sinks[name]
        _add_sink(report, name, str(getattr(settings, "url", "")), bool(getattr(settings, "api_key", "")), state)
    for name in pipeline.streams:
        _, settings = loaded.sinks[name]
        how = "joins the acknowledgement" if settings.when_down == "block" else "drops what it cannot take"
        report.add("sink", f"{name}: audit events, {how}")
    if pipeline.feed_address:
        report.add("feed", f"{pipeline.feed_address}, see `forwarder watch`")
    report.add("outbox", str(loaded.outbox_path))
    if telemetry:
        report.add("telemetry", f"http://{telemetry}/metrics")
    return report


def describe_source(source: Any) -> str:
    """What it reads from where, or where it listens."""
    addresses = ", ".join(map(str, getattr(source, "addresses", ())))
    return f"listening on {addresses}" if addresses else str(getattr(source, "description", type(source).__name__))


def backend_words(url: str, state: "BackendState") -> str:
    """`http://backend:8000, version 0.1.0, authentication on, key accepted`."""
    if not state.reachable:
        return f"{url}, {'not reachable now' if state.reachable is False else 'has not answered yet'}"
    on = state.auth.startswith("enabled") or state.key_accepted is False
    words = [url, f"version {state.version or 'unknown'}"]
    if on or state.auth:
        words.append(f"authentication {'on' if on else 'off'}")
    if on and state.key_accepted is not None:
        words.append("key accepted" if state.key_accepted else "KEY REFUSED")
    return ", ".join(words)


def backend_advice(state: "BackendState", *, has_key: bool) -> str:
    """What an operator should do about it, or nothing."""
    if state.key_accepted is False:
        missing = "it refuses our key" if has_key else "it asks for a key, and HEALERT_API_KEY is not set here"
        return f"{missing}; both sides need the same one (`forwarder keys` makes it)"
    if state.reachable and has_key and state.auth.startswith("disabled"):
        return "a key is set here, but the backend asks for none, so whoever reaches it can write; set HEALERT_API_KEY there"
    if not state.reachable:
        return "events wait in the outbox and are sent when it answers"
    return ""


def show(report: Report, log_format: str, look_at: Sequence[str] = ()) -> None:
    """Aligned words on stderr, or log lines where machines read stderr."""
    if log_format == "json":
        for name, text in report.lines:
            log.info("%s: %s", name, text)
    else:
        for name, text in report.lines:
            say(f"  {name:<10} {text}")
    for warning in report.warnings:
        log.warning("%s", warning)
    for line in look_at:
        if log_format == "json":
            log.info("%s", line)
        else:
            say(line)


def _add_sink(report: Report, name: str, url: str, has_key: bool, state: "BackendState | None") -> None:
    if state is None:
        report.add("sink", name)
        return
    report.add("backend", f"{name}: {backend_words(url, state)}")
    advice = backend_advice(state, has_key=has_key)
    if advice:
        report.warnings.append(f"backend {name}: {advice}")
