"""What the demo shows while it runs: a picture that is redrawn on a terminal, a line now and then elsewhere."""

import sys
import time
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

from forwarder.cli import console
from forwarder.cli.console import make_table, say

if TYPE_CHECKING:
    from rich.live import Live

ASK_DEADLINE_S = 2.0
MAX_ANSWER_BYTES = 16 << 20
NEWEST = 8
SERVICES = 6
LINE_EVERY_S = 10.0  # without a terminal


class Snapshot(msgspec.Struct, kw_only=True):
    """One moment of the demo. Events and entities are as the backend's API gives them."""

    second: float
    seconds: float
    written: int
    received: int
    found: int
    rate: float
    events: list[dict[str, Any]] = []
    entities: list[dict[str, Any]] = []


def ask(url: str) -> Any:
    """The JSON behind `url`. Raises OSError or ValueError."""
    with urllib.request.urlopen(url, timeout=ASK_DEADLINE_S) as answer:  # noqa: S310 - our own loopback
        return msgspec.json.decode(answer.read(MAX_ANSWER_BYTES))


def counters(telemetry: str) -> dict[str, float]:
    """Sums over all labels of the counters behind HOST:PORT. Raises OSError."""
    with urllib.request.urlopen(f"http://{telemetry}/metrics", timeout=ASK_DEADLINE_S) as answer:
        text = answer.read(MAX_ANSWER_BYTES).decode()
    sums: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = (
            line.partition(" ") if "{" not in line else (line.partition("{")[0], "", line.rpartition(" ")[2])
        )
        if not line.startswith("#") and name.endswith("_total"):
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def score_table(entities: Sequence[dict[str, Any]]) -> Any:
    """Services by score."""
    rows = [
        (one["entity_ref"], one["score"], one["severity"], one["count"], one["top_rule"], _bar(one["score"]))
        for one in entities
    ]
    return make_table(("service", "score", "severity", "events", "most often", ""), rows, right=("score", "events"))


def event_table(events: Sequence[dict[str, Any]]) -> Any:
    """The newest events."""
    rows = [
        (one["timestamp"][11:19], one["severity"], one["type"], one["actor"], one["entity_ref"])
        for one in events[:NEWEST]
    ]
    return make_table(("time", "severity", "rule", "who", "service"), rows)


class View:
    """`with View() as view: view.show(snapshot)`; leaves the last picture on a terminal."""

    def __init__(self, headline: str) -> None:
        self._headline = headline
        self._live: Live | None = None
        self._said_at = -LINE_EVERY_S

    def __enter__(self) -> Self:
        if console.is_terminal(sys.stdout):
            from rich.live import Live

            self._live = Live(console=console.console(), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Draw it, or say it if the last line is old enough."""
        if self._live:
            self._live.update(self._picture(snapshot), refresh=True)
        elif time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._said_at = time.monotonic()
            say(_words(snapshot))

    def _picture(self, snapshot: Snapshot) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        return Group(
            Text(self._headline, style="bold"),
            Text(_words(snapshot)),
            ProgressBar(total=snapshot.seconds, completed=min(snapshot.second, snapshot.seconds)),
            Text(""),
            event_table(snapshot.events),
            Text(""),
            score_table(snapshot.entities[:SERVICES]),
        )


def _words(snapshot: Snapshot) -> str:
    return (
        f"{snapshot.second:3.0f} of {snapshot.seconds:.0f} s · {snapshot.written:,} lines written · "
        f"{snapshot.received:,} received, {snapshot.rate:,.0f} lines/s · {snapshot.found:,} friction events"
    )


def _bar(score: float) -> str:
    return "█" * round(score / 10)
