"""Posts the audit stream to Falco's k8saudit plugin, as kube-apiserver's webhook would.

    sinks:
      falco:
        url: http://falco:9765/k8s-audit
        when_down: drop                   # a dead Falco stops nothing (default); block: it is waited for instead

Events go as EventLists over a connection that is kept. What k8saudit does not say is taken care of here: it answers 200 to
an event above 256 KiB and drops it, so such an event goes without its bodies, marked as kube-apiserver marks it; a body
above 12 MiB is refused, so batches end well before; an event without a stageTimestamp (of a line that was cut) gets one.

At-least-once: Falco knows no repeats. A failed post is tried again after `retry_increment_s`, twice that, and so on up to
a minute, for as long as the queue holds its events (or `max_retries` times, where that is set and `when_down` is `drop`).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import msgspec
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from requests.adapters import BaseAdapter

from forwarder.contracts import Done, Later, Outcome, Refused, StreamSettings
from forwarder.errors import ConfigError
from forwarder.events.outgoing import OutgoingEvent
from forwarder.telemetry import Telemetry
from forwarder.wire.http_client import Fault, HttpClient, Reply
from forwarder.wire.pacing import TokenBucket, retry_after_s

MAX_EVENT_BYTES = 255 << 10  # k8saudit drops what is above 256 KiB, and says so only on its standard error
MAX_BODY_BYTES = 8 << 20  # k8saudit refuses bodies above 12 MiB; kube-apiserver's own batches are far smaller
MAX_DELAY_S = 60.0
OPERATOR_DELAY_S = 30.0
EVENT_LIST = b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[%b]}'
TRUNCATED = "audit.k8s.io/truncated"  # kube-apiserver's own mark for an event whose bodies it left out

Positive = Annotated[float, msgspec.Meta(ge=0)]


class FalcoSettings(StreamSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """url: of k8saudit's webserver, with its path. batch_events: posted at once; kube-apiserver's default is 400.
    rate_limit_events_per_s: 0 is no limit. burst: how many may go at once after a pause, with a rate limit.
    max_retries: how often a batch is tried again before it is given up; 0 is for as long as the queue holds it.
    retry_increment_s: the first delay, and by how much each one is longer.
    keep_alive: whether the connection is kept between posts. ca_file: PEM file of the authority to trust instead of the
    system's. timeout_s: for one post in all; Falco answers late while it is behind.
    """

    stream: Literal["audit"] = "audit"
    url: str = "http://localhost:9765/k8s-audit"
    batch_events: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 400
    rate_limit_events_per_s: Positive = 0.0
    burst: Annotated[int, msgspec.Meta(ge=1)] = 50
    max_retries: Annotated[int, msgspec.Meta(ge=0)] = 0
    retry_increment_s: Positive = 1.0
    keep_alive: bool = True
    ca_file: str = ""
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=300)] = 10.0


class FalcoSink:
    """`adapter`, `clock` and `wall` stand in for the world in tests."""

    def __init__(
        self,
        name: str,
        settings: FalcoSettings,
        telemetry: Telemetry,
        *,
        adapter: BaseAdapter | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError."""
        url = urlsplit(settings.url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username:
            raise ConfigError(
                "`url` must begin with http:// or https://, name a host and no user", where=f"sinks.{name}"
            )
        self.name = name
        self.batch_events = settings.batch_events
        self._settings = settings
        self._wall = wall
        self._http = HttpClient(ca_file=settings.ca_file, keep_alive=settings.keep_alive, adapter=adapter)
        rate = settings.rate_limit_events_per_s
        self._bucket = TokenBucket(per_minute=rate * 60, burst=settings.burst, clock=clock) if rate > 0 else None
        self._tries = 0  # of the batch that is under way; it comes again, first, until it is through
        self._known = 0  # events at the front of the queue that were counted as come in already
        self._truncated = telemetry["forwarder_falco_truncated"].labels(name)
        self._counts = aks_counts(telemetry)

    def deliver(self, events: Sequence[OutgoingEvent]) -> Sequence[Outcome]:
        """One post, of as many events as fit and the rate limit lets through; the others are Later."""
        items = self._items(events)
        sent, waits_s = self._allowed(len(items))
        self._counts.add("events", max(0, sent - self._known))
        self._known = max(self._known, sent)
        if not sent:
            return [Later(waits_s)] * len(events)
        body = EVENT_LIST % b",".join(items[:sent])
        reply = self._http.call("POST", self._settings.url, body=body, deadline_s=self._settings.timeout_s)
        if isinstance(reply, Reply) and 200 <= reply.status < 300:
            return self._through(sent, len(events), "success", Done())
        return self._failed(reply, sent, len(events))

    def close(self) -> None:
        self._http.close()

    # --- private -----------------------------------------------------------------------------------------------------

    def _allowed(self, wanted: int) -> tuple[int, float]:
        """How many events the rate limit lets through now, and else how long to wait, seconds."""
        if self._bucket is None:
            return wanted, 0.0
        if self._tries:
            return min(wanted, self._known), 0.0  # the tokens of this batch were taken for its first try
        for number in range(wanted):
            if (waits_s := self._bucket.take()) > 0:
                return number, waits_s
        return wanted, 0.0

    def _items(self, events: Sequence[OutgoingEvent]) -> list[bytes]:
        """The first of them, as many as one body holds."""
        items: list[bytes] = []
        size = 0
        for event in events:
            item = self._item(event)
            if items and size + len(item) > MAX_BODY_BYTES:
                break
            items.append(item)
            size += len(item) + 1
        return items

    def _item(self, event: OutgoingEvent) -> bytes:
        line = event.json
        if len(line) > MAX_EVENT_BYTES:
            self._truncated.inc()
            return without_bodies(line)
        if event.original.stage_timestamp:
            return line
        fields = msgspec.json.decode(line)
        now = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return msgspec.json.encode({**fields, "stageTimestamp": fields.get("requestReceivedTimestamp") or now})

    def _through(self, sent: int, given: int, count: str, outcome: Outcome) -> list[Outcome]:
        self._tries = 0
        self._known = 0
        self._counts.add(count, sent)
        return [outcome] * sent + [Later(0.0)] * (given - sent)

    def _failed(self, reply: Reply | Fault, sent: int, given: int) -> list[Outcome]:
        self._tries += 1
        reason = reply.reason if isinstance(reply, Fault) else f"answers with {reply.status}"
        if isinstance(reply, Reply) and reply.status == 413:
            if sent == 1:
                return self._through(1, given, "errors", Refused(f"{self._settings.url} {reason}"))
            self.batch_events = max(1, sent // 2)
        limit = self._settings.max_retries
        if limit and self._tries > limit and self._settings.when_down == "drop":
            return self._through(sent, given, "errors", Refused(f"{self._settings.url}: {reason}, {limit} retries"))
        self._counts.add("retry", sent)
        delay_s = min(self._settings.retry_increment_s * self._tries, MAX_DELAY_S)
        if isinstance(reply, Reply):
            if 300 <= reply.status < 500 and reply.status not in (408, 413, 425, 429):
                delay_s, reason = OPERATOR_DELAY_S, f"{reason}; correct `sinks.{self.name}.url`"
            delay_s = max(delay_s, retry_after_s(reply.headers.get("Retry-After"), self._wall()) or 0.0)
        return [Later(delay_s, f"{self._settings.url}: {reason}")] * given


def without_bodies(line: bytes) -> bytes:
    """An audit event without request and response object, marked as kube-apiserver marks one that it truncated."""
    fields: dict[str, Any] = msgspec.json.decode(line)
    for name in ("requestObject", "responseObject"):
        fields.pop(name, None)
    annotations = fields.get("annotations")
    fields["annotations"] = {**(annotations if isinstance(annotations, dict) else {}), TRUNCATED: "true"}
    return msgspec.json.encode(fields)


# --- the metrics of aks-audit-log ------------------------------------------------------------------------------------

AKS_METRICS = {
    "events": "Audit events for Falco.",
    "events_errors": "Audit events that Falco did not get.",
    "events_success": "Audit events that Falco took.",
    "events_retry": "Audit events posted again.",
}


class AksCounts(Collector):
    """Counters under the names that aks-audit-log gave them; the client library would append `_total` to its own."""

    def __init__(self) -> None:
        self._values = dict.fromkeys(AKS_METRICS, 0)

    def add(self, name: str, events: int) -> None:
        """name: events, errors, success or retry."""
        self._values["events" if name == "events" else f"events_{name}"] += events

    def collect(self) -> Iterable[Metric]:
        for name, value in self._values.items():
            metric = Metric(f"falco_aks_audit_log_{name}", AKS_METRICS[name], "untyped")
            metric.add_sample(metric.name, {}, float(value))
            yield metric


_counts: "WeakKeyDictionary[Telemetry, AksCounts]" = WeakKeyDictionary()


def aks_counts(telemetry: Telemetry) -> AksCounts:
    """Those of a process; all its Falco sinks together."""
    if telemetry not in _counts:
        _counts[telemetry] = AksCounts()
        telemetry.registry.register(_counts[telemetry])
    return _counts[telemetry]
