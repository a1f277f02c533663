"""What the live feed costs: events encoded once and sent to clients that read as fast as they can, each a process of its own.

Measured: CPU of the process that serves, per event offered, and how many events a second every client gets. Not measured:
the receiver's own work. The queue is never let run full, so nothing is dropped.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from forwarder.detection.detector import Detector
from forwarder.detection.loader import load_rules
from forwarder.events.audit import decode
from forwarder.events.outgoing import OutgoingEvent
from forwarder.events.sample import SampleLog
from forwarder.feed.server import Feed
from forwarder.feed.settings import FeedSettings
from forwarder.telemetry import Telemetry

ROOT = Path(__file__).parents[2]
AHEAD_EVENTS = 500  # half a queue

CLIENT = """
import sys
from tests.e2e.feed.protocol import Client
for _ in Client(sys.argv[1]).watch(sys.argv[2]):
    pass
"""


class FeedCost(msgspec.Struct, frozen=True):
    name: str
    us_per_event: float
    events_per_s: float


def feed_costs(events: int) -> list[FeedCost]:
    """Friction events to one client and to ten, audit events to one."""
    lines = list(SampleLog(5, start_time=time.time() - 3600, friction_share=0.3).lines(events))
    detector = Detector(load_rules([ROOT / "rules/friction.yaml"]))
    friction = [event for line in lines for event in detector.detect(line)]
    audit = [OutgoingEvent(decode(line), line, "bench") for line in lines]
    return [
        _cost("feed, friction events, 1 client", 1, "WatchAlerts", friction, lambda feed: feed.friction),
        _cost("feed, friction events, 10 clients", 10, "WatchAlerts", friction, lambda feed: feed.friction),
        _cost("feed, audit events, 1 client", 1, "WatchLogs", audit, lambda feed: feed.audit),
    ]


def _cost(name: str, clients: int, method: str, events: Sequence[Any], door: Callable[[Feed], Any]) -> FeedCost:
    telemetry = Telemetry()
    feed = Feed(FeedSettings(listen="127.0.0.1:0"), telemetry)
    address = feed.start(lambda: None)
    command = [sys.executable, "-c", CLIENT, str(address), method]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(clients)]
    try:
        _wait(lambda: telemetry.value("forwarder_feed_clients") == clients)
        offer, wall_s, cpu_s = door(feed), time.perf_counter(), time.process_time()
        for position in range(0, len(events), 100):
            _wait(lambda due=position - AHEAD_EVENTS: telemetry.value("forwarder_feed_sent") >= due * clients)  # type: ignore[misc]
            offer(events[position : position + 100])
        _wait(lambda: telemetry.value("forwarder_feed_sent") >= len(events) * clients)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        assert telemetry.value("forwarder_feed_dropped") == 0
        return FeedCost(name, cpu_s / len(events) * 1e6, len(events) / wall_s)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        feed.stop()


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "the feed stands still"
        time.sleep(0.005)
