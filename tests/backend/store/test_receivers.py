"""Receivers' reports, and when a cluster is silent."""

from collections.abc import Callable
from typing import Any

import pytest

from forwarder.backend.intake import NewEvent
from forwarder.backend.store import Store
from forwarder.backend.store.receivers import (
    FORGET_US,
    LATE_US,
    SILENT_US,
    ClusterReport,
    Report,
    SinkReport,
)

NOW_US = 1_780_000_000_000_000
NOW_S = NOW_US / 1e6


def report(name: str = "r1", last_s: float = NOW_S, uptime_s: float = 1e6, **fields: Any) -> Report:
    return Report(
        receiver=name, clusters=[ClusterReport(name="east", last_received_s=last_s)], uptime_s=uptime_s, **fields
    )


def test_the_last_report_stands(store: Store) -> None:
    """One row for each receiver; one that has stopped is late, then forgotten."""
    store.receivers.report(report(version="1"), NOW_US - 10)
    store.receivers.report(report(version="2", sinks=[SinkReport(name="backend", waiting=3)]), NOW_US)
    (told,) = store.receivers.reports(NOW_US)
    assert (told.version, told.first_us, told.reported_us, told.late) == ("2", NOW_US - 10, NOW_US, False)
    assert told.report.sinks[0].waiting == 3
    assert store.receivers.reports(NOW_US + LATE_US + 1)[0].late
    store.receivers.report(report("r2"), NOW_US + FORGET_US + 1)
    assert [told.name for told in store.receivers.reports(NOW_US)] == ["r2"]


@pytest.mark.parametrize(
    ("last_s", "uptime_s", "after_us", "silent"),
    [
        (NOW_S, 1e6, 0, False),
        (NOW_S - SILENT_US / 1e6 - 1, 1e6, 0, True),
        (0.0, 10.0, 0, False),
        (0.0, 1e6, 0, True),
        (NOW_S, 1e6, LATE_US + 1, True),
    ],
    ids=["fresh", "no line for long", "just started", "never a line", "receiver gone"],
)
def test_silence(store: Store, last_s: float, uptime_s: float, after_us: int, silent: bool) -> None:
    """An alarm needs a receiver that says so, or one that says nothing any more."""
    store.receivers.report(report(last_s=last_s, uptime_s=uptime_s), NOW_US)
    (cluster,) = store.receivers.clusters(NOW_US + after_us)
    assert (cluster.name, cluster.silent, bool(cluster.why)) == ("east", silent, silent)


def test_a_second_receiver_is_enough(store: Store) -> None:
    """A cluster that one receiver still hears from is not silent."""
    store.receivers.report(report("old", last_s=NOW_S - 1e5), NOW_US - LATE_US - 1)
    store.receivers.report(report("new"), NOW_US)
    (cluster,) = store.receivers.clusters(NOW_US)
    assert (cluster.silent, cluster.receivers) == (False, ["new", "old"])


def test_events_alone_say_nothing_of_silence(store: Store, event: Callable[..., NewEvent]) -> None:
    """Friction is rare: a cluster without receivers that report is never called silent."""
    store.record([event(cluster="west")], NOW_US)
    (cluster,) = store.receivers.clusters(NOW_US + 90 * 86_400_000_000)
    assert (cluster.name, cluster.last_event_us, cluster.silent) == ("west", NOW_US, False)
