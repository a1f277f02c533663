"""Hands friction events to Falcosidekick, in the form that Falco itself sends, and so to its many outputs.

    sinks:
      falcosidekick:
        url: http://falcosidekick:2801/
        minimum_severity: medium
        # source: k8saudit               # what its PolicyReport output wants; Falco's own audit events say k8s_audit

One event is one request; there are no batches. Falcosidekick answers before it has passed anything on, and knows no ids:
at-least-once up to it, the event's id is the field `friction.id`. Its limits are kept here: every field is text (others
make it drop the connection), there is always one, and where all of it together is longer than 4096 characters it would
cut each field to 507, so long ones are cut here, visibly and at the end. A session's end is not told again.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from requests.adapters import BaseAdapter

from forwarder.alerts.filters import FilterSettings, check, wanted
from forwarder.contracts import Done, Later, Outcome, Refused
from forwarder.errors import ConfigError
from forwarder.events.friction import FrictionEvent
from forwarder.telemetry import Telemetry
from forwarder.wire import healert
from forwarder.wire.http_client import Fault, HttpClient, Reply
from forwarder.wire.pacing import Backoff, retry_after_s

BACKOFF_BASE_S, BACKOFF_CAP_S = 0.5, 30.0
OPERATOR_DELAY_S = 30.0
MAX_PAYLOAD_CHARS = 4096  # of all fields together, beyond which Falcosidekick cuts those above 512 to 507
MAX_FIELD_CHARS = 500
SAFE_PAYLOAD_CHARS = 3000  # it counts its own rendering, which has quotes, times and custom fields of its configuration

Priority = Literal["Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"]


class FalcosidekickSettings(FilterSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """url: of Falcosidekick, with its port. source: what events say they come from; the default is k8s_audit, as Falco's do.
    high, medium, low: the priority of each severity; Critical, Warning and Notice.
    ca_file: PEM file of the authority to trust instead of the system's. client_cert_file, client_key_file: PEM files, where
    it asks for a certificate (tlsserver.mutualtls). timeout_s: for one request in all, seconds; the default is 10.
    required: whether acks wait when too many events wait for this sink; by default the oldest become dead letters.
    """

    url: str = "http://localhost:2801/"
    source: str = "k8s_audit"
    high: Priority = "Critical"
    medium: Priority = "Warning"
    low: Priority = "Notice"
    ca_file: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    timeout_s: float = 10.0
    required: bool = False


class FalcosidekickSink:
    """`adapter`, `clock`, `wall` and `chance` stand in for the world in tests."""

    takes_updates = False

    def __init__(
        self,
        name: str,
        settings: FalcosidekickSettings,
        telemetry: Telemetry | None = None,
        *,
        adapter: BaseAdapter | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Raises ConfigError."""
        _check(name, settings)
        self.name = name
        self.required = settings.required
        self._settings = settings
        self._clock, self._wall = clock, wall
        pair = (settings.client_cert_file, settings.client_key_file) if settings.client_cert_file else None
        self._http = HttpClient(ca_file=settings.ca_file, client_cert=pair, adapter=adapter)
        self._backoff = Backoff(base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S, chance=chance)
        self._not_before = float("-inf")
        self._reason = ""

    def wants(self, event: FrictionEvent, stored_s: float) -> bool:
        return wanted(event, stored_s, self._settings)

    def deliver(self, events: Sequence[FrictionEvent]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for event in events:
            if (waits_s := self._not_before - self._clock()) > 0:
                outcomes.append(Later(waits_s, self._reason))
            else:
                outcomes.append(self._send(event))
        return outcomes

    def close(self) -> None:
        self._http.close()

    def _send(self, event: FrictionEvent) -> Outcome:
        body = msgspec.json.encode(payload(event, self._settings))
        reply = self._http.call("POST", self._settings.url, body=body, deadline_s=self._settings.timeout_s)
        if isinstance(reply, Reply) and 200 <= reply.status < 300:
            self._backoff.reset()
            return Done()
        if isinstance(reply, Reply) and reply.status in (400, 413, 422):
            return Refused(healert.words(reply))
        return self._later(reply)

    def _later(self, reply: Reply | Fault) -> Later:
        delay_s = self._backoff.next_s()
        if isinstance(reply, Fault):
            self._reason = f"{self._settings.url}: {reply.reason}"
        else:
            self._reason = f"{self._settings.url} answers with {reply.status}"
            if 300 <= reply.status < 500 and reply.status not in (408, 425, 429):
                delay_s = OPERATOR_DELAY_S
                self._reason += f"; correct `sinks.{self.name}.url`"
            delay_s = max(delay_s, retry_after_s(reply.headers.get("Retry-After"), self._wall()) or 0.0)
        self._not_before = self._clock() + delay_s
        return Later(delay_s, self._reason)


# --- the form --------------------------------------------------------------------------------------------------------


def payload(event: FrictionEvent, settings: FalcosidekickSettings) -> dict[str, Any]:
    """The event as Falco would have sent it; every output field is text, named as in Falco's k8saudit where it has a name."""
    fields = {
        "ka.auditid": event.audit_id,
        "ka.stage": event.stage,
        "ka.verb": event.verb,
        "ka.user.name": event.actor,
        "ka.impuser.name": event.acting_as,
        "ka.target.resource": event.resource,
        "ka.target.subresource": event.subresource,
        "ka.target.namespace": event.namespace,
        "ka.target.name": event.name,
        "ka.response.code": str(event.response_code) if event.response_code else "",
        "ka.sourceips": ",".join(event.source_ips),
        "ka.useragent": event.user_agent,
        "ka.cluster.name": event.cluster,
        "k8s.ns.name": event.namespace,
        "k8s.pod.name": event.name if event.resource == "pods" else "",
        "container.name": event.container,
        "friction.id": event.id,
        "friction.entity_ref": event.entity_ref,
        "friction.severity": event.severity,
        "friction.points": str(event.points),
        "friction.workflow": event.workflow,
        "friction.outcome": event.outcome,
        "friction.command": event.command,
        "friction.via": event.via,
    }
    fields = {name: value for name, value in fields.items() if value}
    output = f"{event.timestamp}: {settings_priority(event, settings)} {event.description}"
    if len(output) + sum(len(name) + len(value) for name, value in fields.items()) > SAFE_PAYLOAD_CHARS:
        fields = {name: _cut(value) for name, value in fields.items()}
        output = _cut(output)
    return {
        "time": event.timestamp,
        "rule": event.type,
        "priority": settings_priority(event, settings),
        "source": settings.source,
        "hostname": event.node or event.cluster,
        "output": output,
        "tags": sorted({*event.tags, *(["test"] if event.test else []), "friction"}),
        "output_fields": fields,
    }


def settings_priority(event: FrictionEvent, settings: FalcosidekickSettings) -> Priority:
    """Falco's word for the event's severity."""
    return {"high": settings.high, "medium": settings.medium, "low": settings.low}[event.severity]


def _cut(value: str) -> str:
    return value if len(value) <= MAX_FIELD_CHARS else value[: MAX_FIELD_CHARS - 1] + "…"


def _check(name: str, settings: FalcosidekickSettings) -> None:
    where = f"sinks.{name}"
    check(name, settings)
    url = urlsplit(settings.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError("`url` must begin with http:// or https:// and name a host", where=where)
    if url.username or url.password:
        raise ConfigError("`url` carries a password, which Falcosidekick does not ask for", where=where)
    if bool(settings.client_cert_file) is not bool(settings.client_key_file):
        raise ConfigError("`client_cert_file` and `client_key_file` go together", where=where)
    if not settings.source.strip():
        raise ConfigError(
            "`source` must not be empty: Falcosidekick would take the events for system calls", where=where
        )
    if not 0.1 <= settings.timeout_s <= 300:
        raise ConfigError("`timeout_s` must be between 0.1 and 300", where=where)
