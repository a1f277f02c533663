"""What the demo shows without a terminal, and how it reads metrics."""

import io
import urllib.request

import pytest

import forwarder.cli.demo_view as module
from forwarder.cli.demo_view import Snapshot, View, counters
from forwarder.telemetry import Telemetry


def test_counters_are_summed_over_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exposition of our own telemetry is understood, gauges and histograms are left out."""
    telemetry = Telemetry()
    telemetry["forwarder_lines_received"].labels("a b {x}").inc(3)
    telemetry["forwarder_lines_received"].labels("b").inc(4)
    telemetry["forwarder_rules_loaded"].set(9)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(telemetry.exposition()))
    sums = counters("127.0.0.1:1")
    assert sums["forwarder_lines_received_total"] == 7
    assert "forwarder_rules_loaded" not in sums


def test_without_a_terminal_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of a build stays short: the first moment, then one line in ten seconds."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    snapshot = Snapshot(second=1, seconds=60, written=1000, received=900, found=7, rate=200)
    with View("headline") as view:
        for _ in range(25):
            view.show(snapshot)
            now[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "900 received" in lines[0]
    assert "7 friction events" in lines[0]
