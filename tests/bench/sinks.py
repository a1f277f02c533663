"""`python -m tests.bench.sinks`: what it costs to pass events on, by sink.

Measured: CPU of this process per event, for what a sink does with a batch: forming it, and writing the file with its fsync.
Not measured: the network and the peers, which are replaced; decoding and redaction, but for their own line.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from forwarder.alerts.alerter import Alerter, AlertSettings
from forwarder.alerts.audit import as_event
from forwarder.contracts import Done
from forwarder.events.audit import decode
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.events.sample import SampleLog
from forwarder.sinks.falco import FalcoSettings, FalcoSink
from forwarder.sinks.falcosidekick import FalcosidekickSettings, FalcosidekickSink
from forwarder.sinks.file import FileSink, FileSinkSettings
from forwarder.sinks.forward import ForwardSink, ForwardSinkSettings
from forwarder.telemetry import Telemetry
from forwarder.wire.http_client import Reply
from tests.bench.__main__ import machine

BATCH_EVENTS = 400


class Takes:
    """A peer that takes everything at once."""

    def call(self, *_: Any, **__: Any) -> Reply:
        return Reply(200, {}, b"")

    def send(self, *_: Any, **__: Any) -> None:
        pass

    def close(self) -> None:
        pass


def us_per_event(deliver: Callable[[Sequence[Any]], Any], events: Sequence[Any], repeat: int) -> float:
    """The best of so many runs, microseconds of CPU."""
    best = float("inf")
    for _ in range(repeat):
        began = time.process_time()
        for start in range(0, len(events), BATCH_EVENTS):
            deliver(events[start : start + BATCH_EVENTS])
        best = min(best, (time.process_time() - began) / len(events) * 1e6)
    return best


def with_peer(sink: Any, attribute: str) -> Callable[[Sequence[Any]], Any]:
    setattr(sink, attribute, Takes())
    deliver: Callable[[Sequence[Any]], Any] = sink.deliver
    return deliver


def cases(folder: Path) -> dict[str, Callable[[Sequence[Any]], Any]]:
    """By name, what is done with a batch of audit events."""
    telemetry = Telemetry()
    return {
        "file, with fsync": FileSink("f", FileSinkSettings(path=str(folder / "f"), keep_files=1)).deliver,
        "forward": with_peer(ForwardSink("f", ForwardSinkSettings()), "_sender"),
        "forward, gzip": with_peer(ForwardSink("f", ForwardSinkSettings(compress="gzip")), "_sender"),
        "falco": with_peer(FalcoSink("f", FalcoSettings(), telemetry), "_http"),
        "an audit event for people": lambda events: [as_event(event, "slack") for event in events],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sinks", description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    lines = list(SampleLog(start_time=time.time() - 3600).lines(options.events))
    events = [OutgoingEvent(decode(line), line, "bench") for line in lines]
    console = Console(highlight=False)
    console.print(machine())
    console.print(
        f"{options.events:,} events, mean line {sum(map(len, lines)) / len(lines):,.0f} bytes, best of {options.repeat}"
    )
    table = Table("what", "µs CPU / event", "events/s per core")

    def row(name: str, cost: float) -> None:
        table.add_row(name, f"{cost:.2f}", f"{1e6 / cost:,.0f}")

    def redacted(batch: Sequence[OutgoingEvent]) -> None:
        for event in batch:
            _ = OutgoingEvent(event.original, event._line).json

    row("redaction of an audit event", us_per_event(redacted, events, options.repeat))
    for event in events:
        _ = event.json, event.event
    with tempfile.TemporaryDirectory() as folder:
        for name, deliver in cases(Path(folder)).items():
            row(name, us_per_event(deliver, events, options.repeat))
    friction = [as_event(event, "slack") for event in events]
    sidekick = with_peer(FalcosidekickSink("f", FalcosidekickSettings()), "_http")
    row("falcosidekick, a friction event", us_per_event(sidekick, friction, options.repeat))
    row("a message for people, or a place in one", us_per_event(messages(), friction, options.repeat))
    console.print(table)


def messages() -> Callable[[Sequence[FrictionEvent]], Any]:
    """Grouping, wording and remembering; time passes, so that none is held back."""
    clock = [1e9]
    alerter = Alerter("f", AlertSettings(stream="audit"), lambda _: Done(), clock=lambda: clock[0])

    def deliver(events: Sequence[FrictionEvent]) -> None:
        clock[0] += 60
        alerter.deliver(events)

    return deliver


if __name__ == "__main__":
    main()
