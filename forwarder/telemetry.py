"""Every metric in one table; the documentation and the registry are made from it.

The ledger reads: lines received = unmatched + matched + rejected (counted at submit, per process); events detected =
new + update + duplicate + expired (counted when durable); per sink eligible = delivered + waiting + dead.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metric(msgspec.Struct, frozen=True):
    """One row: `name` without the `_total` that a counter gets on the wire; `unit` is part of the name where it has one."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric("forwarder_lines_received", "counter", "Audit lines received, by source.", ("source",)),
    Metric("forwarder_lines_unmatched", "counter", "Lines that no rule matched.", ("source",)),
    Metric("forwarder_lines_matched", "counter", "Lines that gave at least one friction event.", ("source",)),
    Metric("forwarder_lines_rejected", "counter", "Lines that became dead letters.", ("source", "reason")),
    Metric("forwarder_batches", "counter", "Batches accepted.", ("source",)),
    Metric("forwarder_batches_refused", "counter", "Batches not accepted, so not acknowledged.", ("source", "reason")),
    Metric("forwarder_events", "counter", "Friction events detected, by what the outbox made of them.", ("result",)),
    Metric("forwarder_rule_fired", "counter", "Friction events as detected, updates and repeats included.", ("rule", "severity")),
    Metric("forwarder_accept_seconds", "histogram", "From a batch with events submitted to durable, seconds.", (),
           (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)),
    Metric("forwarder_rules_loaded", "gauge", "Rules in force."),
    Metric("forwarder_rules_reloads", "counter", "Attempts to load changed rules.", ("result",)),
    Metric("forwarder_sink_eligible", "gauge", "Events ever due to this sink.", ("sink",)),
    Metric("forwarder_sink_delivered", "gauge", "Events this sink took.", ("sink",)),
    Metric("forwarder_sink_waiting", "gauge", "Events this sink has yet to take.", ("sink",)),
    Metric("forwarder_sink_dead", "gauge", "Events this sink refused, or that its backlog cap pushed out.", ("sink",)),
    Metric("forwarder_sink_retries", "counter", "Deliveries put off.", ("sink",)),
    Metric("forwarder_sink_unwanted", "counter", "Events that its filters let pass unsent; part of the delivered.", ("sink",)),
    Metric("forwarder_sink_oldest_seconds", "gauge", "Age of the oldest waiting event, seconds.", ("sink",)),
    Metric("forwarder_stream_events", "counter", "Audit events: delivered, refused or dropped.", ("sink", "result")),
    Metric("forwarder_stream_waiting", "gauge", "Audit events that this sink has yet to take.", ("sink",)),
    Metric("forwarder_backend_events", "counter", "Friction events sent to a backend, by what it made of them.", ("result",)),
    Metric("forwarder_onward_skipped", "counter", "Events that a backend did not hand on to its sinks, by why.", ("reason",)),
    Metric("forwarder_falco_truncated", "counter", "Audit events above Falco's 256 KiB, sent without their bodies.", ("sink",)),
    Metric("forwarder_outbox_bytes", "gauge", "Size of the outbox on disk."),
    Metric("forwarder_outbox_commit_seconds", "histogram", "One group commit, seconds.", (),
           (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)),
    Metric("forwarder_dead_letters", "gauge", "Dead letters kept."),
    Metric("forwarder_dead_letters_evicted", "counter", "Dead letters that the cap pushed out."),
    Metric("forwarder_connections", "gauge", "Open connections, by source.", ("source",)),
    Metric("forwarder_connections_closed", "counter", "Closed connections, by source and cause.", ("source", "cause")),
    Metric("forwarder_workers", "gauge", "Worker processes that serve a source's connections.", ("source",)),
    Metric("forwarder_worker_restarts", "counter", "Workers that ended by themselves and were replaced.", ("source",)),
    Metric("forwarder_source_bytes", "counter", "Bytes received.", ("source",)),
    Metric("forwarder_http_requests", "counter", "Requests answered, by source and status.", ("source", "status")),
    Metric("forwarder_records_skipped", "counter", "Records of envelopes that are no audit events.", ("source", "reason")),
    Metric("forwarder_screen_fallback", "counter", "Lines that needed the full decode because they are not canonical."),
    Metric("forwarder_file_lag_bytes", "gauge", "Bytes of the audit log not yet read.", ("source",)),
    Metric("forwarder_file_left_out_bytes", "counter", "Bytes passed over: the rest of lines above the limit.", ("source",)),
    Metric("forwarder_feed_clients", "gauge", "Open streams of the live feed.", ("stream",)),
    Metric("forwarder_feed_sent", "counter", "Messages written to clients of the live feed.", ("stream",)),
    Metric("forwarder_feed_dropped", "counter", "Events that clients of the live feed were too slow for, each client counted.",
           ("stream",)),
    Metric("forwarder_kafka_partitions", "gauge", "Partitions that this member of the group reads.", ("source",)),
    Metric("forwarder_kafka_lag_messages", "gauge", "Messages not yet read, in the partitions last read from.", ("source",)),
    Metric("forwarder_last_received_seconds", "gauge", "Unix time of the last accepted batch.", ("source",)),
    Metric("forwarder_cluster_last_received_seconds", "gauge", "Unix time of the last accepted batch, by cluster.", ("cluster",)),
    Metric("forwarder_info", "gauge", "Always 1; the version is in the label.", ("version",)),
)  # fmt: skip


class Telemetry:
    """The metrics of one process (or of one test): a registry of its own, filled from a table."""

    def __init__(self, metrics: Iterable[Metric] = METRICS) -> None:
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        for metric in metrics:
            arguments: dict[str, Any] = {"labelnames": metric.labels, "registry": self.registry}
            if metric.kind == "histogram":
                self._metrics[metric.name] = Histogram(metric.name, metric.help, buckets=metric.buckets, **arguments)
            else:
                kind = Counter if metric.kind == "counter" else Gauge
                self._metrics[metric.name] = kind(metric.name, metric.help, **arguments)

    def __getitem__(self, name: str) -> Any:
        """The metric itself; use `.labels(...)` where it has labels. Hot code keeps what it gets."""
        return self._metrics[name]

    def value(self, name: str, **labels: str) -> float:
        """The present value of a counter or gauge; the sum over all labels where none is given."""
        total = 0.0
        for family in self._metrics[name].collect():
            for sample in family.samples:
                if sample.name.endswith("_created") or sample.name.endswith("_bucket"):
                    continue
                if all(sample.labels.get(key) == value for key, value in labels.items()):
                    total += sample.value
        return total

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """The present values of a counter, summed up by one of its labels."""
        found: dict[str, float] = {}
        for family in self._metrics[name].collect():
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    key = sample.labels[label]
                    found[key] = found.get(key, 0.0) + sample.value
        return found

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


def markdown(metrics: Iterable[Metric] = METRICS) -> str:
    """The metrics as the table in the documentation."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        rows.append(f"| `{name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |")
    return "\n".join(rows)
