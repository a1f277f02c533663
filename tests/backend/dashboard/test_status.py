"""Status: ledgers as receivers report them, clusters and their silence, and how scores are set."""

from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

from forwarder.backend.store import Store
from forwarder.backend.store.receivers import ClusterReport, Report, SinkReport, SourceReport
from tests.backend.conftest import NOW_S, NOW_US
from tests.backend.dashboard.conftest import Look

Payload = Callable[..., dict[str, Any]]


def report(cluster: str = "prod", last_s: float = NOW_S, **more: Any) -> Report:
    source = SourceReport(name="forward", received=1200, unmatched=1190, matched=9, rejected=1, last_received_s=last_s)
    sink = SinkReport(name="backend", eligible=9, delivered=6, waiting=2, dead=1, oldest_waiting_s=125.0)
    return Report(
        receiver="r-0",
        version="1.2.3",
        rules=5,
        sources=[source],
        sinks=[sink],
        events={"new": 9},
        uptime_s=3600.0,
        clusters=[ClusterReport(name=cluster, last_received_s=last_s)],
        **more,
    )


def test_ledger(client: TestClient, store: Store, look: Look) -> None:
    """Both lines of the ledger, with the receiver's version and what is left over."""
    store.receivers.report(report(dead_letters=1, outbox_bytes=3 << 20), NOW_US)
    text = look(client, "/status").text
    for part in ("r-0", "version 1.2.3, 5 rules, up for 1 h", "forward just now 1,200 1,190 9 1", "backend 9 6 2 1 2 min 5 s", "9 new",
                 "1 dead letter", "3.0 MiB", "heard of"):  # fmt: skip
        assert part in text, part
    assert "silent" not in text


def test_silent_cluster(client: TestClient, store: Store, look: Look) -> None:
    """A cluster that nothing comes from any more is an alarm, in words, for screen readers too."""
    store.receivers.report(report(last_s=NOW_S - 3600), NOW_US)
    seen = look(client, "/status")
    assert "prod is silent: no audit line has come from it since" in seen.text
    assert seen.having("p", role="alert")


def test_late_receiver(client: TestClient, store: Store, look: Look) -> None:
    """A receiver whose reports have stopped is told."""
    store.receivers.report(report(), NOW_US - 3_600_000_000)
    text = look(client, "/status").text
    assert "reports no more" in text
    assert "no receiver of this cluster reports any more" in text


def test_cluster_without_receiver(client: TestClient, payload: Payload, look: Look) -> None:
    """Where no receiver reports, silence says nothing; the latest event is told, and the figure leads to the events."""
    client.post("/events", json=[payload(cluster="eu"), payload(cluster="eu")])
    seen = look(client, "/status")
    assert "no receiver reports" in seen.text
    figure = next(address for address, words in seen.links if words == "2 events of this cluster")
    assert "2 events" in look(client, figure).text


def test_settings_and_versions(client: TestClient, look: Look) -> None:
    """How scores are made, and which version this is."""
    text = look(client, "/status").text
    assert "half life days 7 as started" in text
    assert "backend version 0." in text
    assert "No receiver has reported yet" in text


def test_changed_settings(client: TestClient, store: Store, look: Look) -> None:
    """A setting that somebody changed says who and when."""
    store.settings.change({"threshold": 20.0}, author="jane", now_us=NOW_US)
    assert "threshold 20 set by jane, just now ; started with 50" in look(client, "/status").text
