"""A receiver's report on itself: its ledger as its metrics tell it, sent to the backend every REPORT_S.

    POST /api/v1/reports    {"receiver": name, "version", "sources": […], "clusters": […], "sinks": […], …} -> {"status": "ok"}

A report that does not get through is not repeated: the next one says it all again. It has a connection and a thread of
its own, so that it neither waits for events nor delays them.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from forwarder import __version__
from forwarder.telemetry import Telemetry
from forwarder.wire.http_client import HttpClient

log = logging.getLogger(__name__)

REPORT_S = (
    15.0  # a page that is a quarter of a minute old is fresh enough, and a receiver that died is missed in a minute
)
PATH = "/api/v1/reports"
EVENT_RESULTS = ("new", "update", "duplicate", "expired")


def make_report(receiver: str, telemetry: Telemetry, uptime_s: float) -> dict[str, Any]:
    """What the metrics say, in the words of the backend's API."""

    def by(metric: str, label: str) -> dict[str, float]:
        names = _labels(telemetry, metric, label)
        return {name: telemetry.value(metric, **{label: name}) for name in names}

    lines = {kind: by(f"forwarder_lines_{kind}", "source") for kind in ("received", "unmatched", "matched", "rejected")}
    last = by("forwarder_last_received_seconds", "source")
    sinks = {kind: by(f"forwarder_sink_{kind}", "sink") for kind in ("eligible", "delivered", "waiting", "dead")}
    oldest = by("forwarder_sink_oldest_seconds", "sink")
    return {
        "receiver": receiver,
        "version": __version__,
        "uptime_s": uptime_s,
        "rules": int(telemetry.value("forwarder_rules_loaded")),
        "sources": [
            {
                "name": name,
                **{kind: int(found.get(name, 0)) for kind, found in lines.items()},
                "last_received_s": last[name],
            }
            for name in sorted(last)
        ],
        "clusters": [
            {"name": name, "last_received_s": at_s}
            for name, at_s in sorted(by("forwarder_cluster_last_received_seconds", "cluster").items())
        ],
        "sinks": [
            {
                "name": name,
                **{kind: int(found[name]) for kind, found in sinks.items()},
                "oldest_waiting_s": oldest.get(name, 0.0),
            }
            for name in sorted(sinks["eligible"])
        ],
        "events": {name: int(telemetry.value("forwarder_events", result=name)) for name in EVENT_RESULTS},
        "dead_letters": int(telemetry.value("forwarder_dead_letters")),
        "outbox_bytes": int(telemetry.value("forwarder_outbox_bytes")),
    }


class Reporter:
    """Reports until it is closed. `start` may be called again and again."""

    def __init__(
        self,
        url: str,
        http: HttpClient,
        telemetry: Telemetry,
        *,
        receiver: str = "",
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url + PATH
        self._http = http
        self._telemetry = telemetry
        self._receiver = (receiver or socket.gethostname() or "receiver")[:200]
        self._timeout_s = timeout_s
        self._clock = clock
        self._began = clock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to report, unless it does already."""
        if self._thread is None and not self._closing.is_set():
            self._thread = threading.Thread(target=self._run, name="report", daemon=True)
            self._thread.start()

    def send(self) -> bool:
        """One report; whether it got through."""
        report = make_report(self._receiver, self._telemetry, self._clock() - self._began)
        reply = self._http.call("POST", self._url, body=msgspec.json.encode(report), deadline_s=self._timeout_s)
        return getattr(reply, "status", 0) == 200

    def close(self) -> None:
        """End it; a report that is on its way is given up."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(self._timeout_s)
        self._http.close()

    def _run(self) -> None:
        told = False
        while True:
            if self.send():
                told = False
            elif not told:
                told = True
                log.info("the backend did not take this receiver's report; events are not concerned")
            if self._closing.wait(REPORT_S):
                return


def _labels(telemetry: Telemetry, metric: str, label: str) -> list[str]:
    """The values of a metric's label so far."""
    return [
        sample.labels[label]
        for family in telemetry[metric].collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
