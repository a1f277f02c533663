"""A receiver's report: what its metrics say, and that a backend that does not take it is no trouble."""

from typing import Any

import msgspec

from forwarder.backend.store.receivers import Report
from forwarder.telemetry import Telemetry
from forwarder.wire.http_client import Fault, Reply
from forwarder.wire.report import Reporter, make_report


class Http:
    """Instead of an HttpClient."""

    def __init__(self, answer: Reply | Fault) -> None:
        self.answer = answer
        self.sent: list[tuple[str, str, Any]] = []
        self.closed = False

    def call(self, method: str, url: str, *, body: bytes, deadline_s: float) -> Reply | Fault:
        self.sent.append((method, url, msgspec.json.decode(body)))
        return self.answer

    def close(self) -> None:
        self.closed = True


def telemetry() -> Telemetry:
    made = Telemetry()
    made["forwarder_lines_received"].labels("forward").inc(10)
    made["forwarder_lines_matched"].labels("forward").inc(2)
    made["forwarder_lines_rejected"].labels("forward", "malformed").inc(1)
    made["forwarder_lines_rejected"].labels("forward", "cut").inc(1)
    made["forwarder_last_received_seconds"].labels("forward").set(1000)
    made["forwarder_cluster_last_received_seconds"].labels("east").set(1000)
    made["forwarder_events"].labels("new").inc(2)
    for kind, value in (("eligible", 2), ("delivered", 1), ("waiting", 1), ("dead", 0)):
        made[f"forwarder_sink_{kind}"].labels("backend").set(value)
    made["forwarder_rules_loaded"].set(5)
    return made


def test_what_it_says() -> None:
    """Sources, clusters, sinks and sums as the backend takes them."""
    report = msgspec.convert(make_report("r1", telemetry(), 7.0), Report)
    (source,), (cluster,), (sink,) = report.sources, report.clusters, report.sinks
    assert (source.name, source.received, source.matched, source.rejected) == ("forward", 10, 2, 2)
    assert (cluster.name, cluster.last_received_s) == ("east", 1000.0)
    assert (sink.eligible, sink.delivered, sink.waiting, sink.dead) == (2, 1, 1, 0)
    assert (report.receiver, report.rules, report.events["new"], report.uptime_s) == ("r1", 5, 2, 7.0)


def test_send() -> None:
    """One POST with what there is to say; whether it got through."""
    http = Http(Reply(200, {}, b"{}"))
    reporter = Reporter("http://backend:8000", http, Telemetry(), receiver="r1", clock=lambda: 5.0)  # type: ignore[arg-type]
    assert reporter.send()
    ((method, url, body),) = http.sent
    assert (method, url, body["receiver"]) == ("POST", "http://backend:8000/api/v1/reports", "r1")
    http.answer = Fault("no answer")
    assert not reporter.send()
    reporter.close()
    assert http.closed


def test_runs_once_and_ends() -> None:
    """Started again and again it is one thread, which ends with the sink."""
    http = Http(Fault("down"))
    reporter = Reporter("http://b", http, Telemetry(), receiver="r1")  # type: ignore[arg-type]
    for _ in range(3):
        reporter.start()
    reporter.close()
    assert len(http.sent) == 1
