"""Delivers friction events to a friction backend: our own, or any that speaks the Healert API.

    sinks:
      backend:
        url: https://backend.example:8000     # without /events; credentials belong into api_key
        api_key_file: /run/secrets/backend    # or api_key: ${HEALERT_API_KEY}
        ca_file: /etc/forwarder/ca.crt        # where the system's authorities do not know its certificate

What the backend can do is learned from GET /health, again after every failure and every REPROBE_S. Ours takes batches,
knows events by id and completes them by revision: each is counted there exactly once, however often it is sent. A plain
Healert backend gets what it knows: first revisions only, one by one, below its 60 a minute, at least once; the id stands
at the end of the description where there is room, so that a double can be told. Events marked as a test are not sent to
it, since it would score them.

Nothing is given up because the backend fails: it is tried again, at most 30 s apart (30 to 60 s where a person has to
act: key, address), or when it asks for it. Only what it refuses in so many words (400, 422) becomes a dead letter.
A backend that shows receivers is sent this one's ledger every quarter of a minute, beside the events (wire/report.py).
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from requests.adapters import BaseAdapter

from forwarder.contracts import Done, Later, Outcome, Refused
from forwarder.errors import ConfigError
from forwarder.events import friction
from forwarder.events.friction import FrictionEvent
from forwarder.telemetry import Telemetry
from forwarder.wire import healert
from forwarder.wire.http_client import Fault, HttpClient, Reply
from forwarder.wire.pacing import Backoff, TokenBucket, retry_after_s
from forwarder.wire.report import Reporter

log = logging.getLogger(__name__)

BACKOFF_BASE_S, BACKOFF_CAP_S = 0.5, 30.0  # a restart takes seconds; after half a minute an operator expects life again
OPERATOR_DELAYS_S = (30.0, 60.0)  # a wrong key or address does not mend itself; some backends lock out who insists
REPROBE_S = 300.0  # an upgraded backend is noticed even when nothing failed in between
PLAIN_PER_MINUTE, PLAIN_BURST = (
    55.0,
    5,
)  # a plain backend takes 60 a minute from one address, counted from when it likes
MAX_BATCH_EVENTS = 1000  # what our backend takes at once

# The bounds of the Healert API, characters. Longer texts are cut: the event counts, its last words do not.
PLAIN_BOUNDS = {"actor": 200, "service": 200, "namespace": 200, "workflow": 200, "description": 500}


class BackendSinkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """url: of the backend, http or https, without /events. api_key: its bearer key; empty where it asks for none.
    ca_file: PEM file of the authority to trust instead of the system's; empty is the system's.
    timeout_s: how long one call may take in all, seconds; the default is 10. batch_events: sent at once, at most 1000.
    report_as: this receiver's name in the reports that our backend shows; empty is the host's name.
    required: whether acknowledgements wait when too many events wait for this backend (default), or the oldest go.
    """

    url: str = "http://localhost:8000"
    api_key: str | None = None
    ca_file: str = ""
    timeout_s: float = 10.0
    batch_events: int = 200
    required: bool = True
    report_as: str = ""

    def __repr__(self) -> str:  # the key must not come out by way of a traceback or a debugger's log
        return f"BackendSinkSettings(url={self.url!r})"


class BackendState(msgspec.Struct, frozen=True, kw_only=True):
    """What the sink knows of its backend; None: not known yet. `problem`: why it cannot deliver now, else empty."""

    reachable: bool | None = None
    version: str = ""
    auth: str = ""
    key_accepted: bool | None = None
    capabilities: tuple[str, ...] = ()
    problem: str = ""


class BackendSink:
    """`state` may be read by any thread. `adapter`, `clock`, `wall` and `chance` stand in for the world in tests."""

    def __init__(
        self,
        name: str,
        settings: BackendSinkSettings,
        telemetry: Telemetry
        | None = None,  # what is reported to a backend that shows it; the delivery counts for itself
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
        self.takes_updates = True  # until the backend turns out to be a plain one
        self.batch_events = settings.batch_events
        self.state = BackendState()
        self._max_batch_events = settings.batch_events
        self._url = settings.url.rstrip("/")
        self._timeout_s = settings.timeout_s
        self._clock, self._wall, self._chance = clock, wall, chance
        self._http = HttpClient(token=settings.api_key or "", ca_file=settings.ca_file, adapter=adapter)
        self._reporter: Reporter | None = None
        if telemetry is not None:
            reports = HttpClient(token=settings.api_key or "", ca_file=settings.ca_file, adapter=adapter)
            self._reporter = Reporter(
                self._url, reports, telemetry, receiver=settings.report_as, timeout_s=settings.timeout_s
            )
        self._backoff = Backoff(base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S, chance=chance)
        self._bucket = TokenBucket(per_minute=PLAIN_PER_MINUTE, burst=PLAIN_BURST, clock=clock)
        self._probe_at = float("-inf")  # when to ask what the backend can do
        self._not_before = float("-inf")  # no call earlier than this
        self._complained: set[str] = set()  # what an operator was told since it last worked

    # --- the sink ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Learn what the backend can do, before the first event."""
        self.probe()

    def deliver(self, events: Sequence[FrictionEvent]) -> list[Outcome]:
        takes_updates = self.takes_updates
        if self._clock() >= self._not_before and self._clock() >= self._probe_at:
            self.probe()
        if (waits_s := self._not_before - self._clock()) > 0:
            return [Later(waits_s, self.state.problem)] * len(events)
        if self.takes_updates != takes_updates:
            return [Later(0.0)] * len(events)  # the updates among them are for the delivery to sort out first
        return self._send_all(events) if self.takes_updates else self._send_plain(events)

    def probe(self) -> BackendState:
        """Ask the backend what it is, and whether it takes our key; one GET and one POST that stores nothing."""
        reply = self._call("GET", "/health")
        health = healert.answer(reply, healert.Health)
        if health is None or health.status != "ok":
            self._later(reply)
            return self.state
        # An empty object is refused for its form (422), but only after the key was found right (else 401).
        reply = self._call("POST", "/events", b"{}")
        self.state = BackendState(
            reachable=True,
            version=healert.plain(health.version, 50),
            auth=healert.plain(health.auth, 50),
            key_accepted={400: True, 422: True, 401: False, 403: False}.get(getattr(reply, "status", 0)),
            capabilities=tuple(healert.plain(word, 50) for word in health.capabilities[:50]),
        )
        if not isinstance(reply, Reply) or reply.status not in (400, 422):
            self._later(reply)
            return self.state
        self._worked()
        self._probe_at = self._clock() + REPROBE_S
        self.takes_updates = set(health.capabilities) >= healert.BATCH_CAPABILITIES
        if self._reporter is not None and healert.REPORTS_CAPABILITY in health.capabilities:
            self._reporter.start()
        self.batch_events = min(self.batch_events, self._max_batch_events) if self.takes_updates else PLAIN_BURST
        return self.state

    def close(self) -> None:
        if self._reporter is not None:
            self._reporter.close()
        self._http.close()

    # --- our backend -------------------------------------------------------------------------------------------------

    def _send_all(self, events: Sequence[FrictionEvent], *, part: bool = False) -> list[Outcome]:
        reply = self._call("POST", "/events", b"[" + b",".join(map(friction.encode, events)) + b"]")
        answer = healert.answer(reply, healert.Results)
        if answer is not None and len(answer.results) == len(events):
            self._worked()
            self.batch_events = min(self._max_batch_events, self.batch_events * 2)
            return [_outcome(result) for result in answer.results]
        if isinstance(reply, Reply):
            if reply.status in (400, 413, 422):
                return self._refused(reply, events, part=part)
            if reply.status == 500:
                return self._stumbled(reply, events)
        return [self._later(reply)] * len(events)

    def _refused(self, reply: Reply, events: Sequence[FrictionEvent], *, part: bool) -> list[Outcome]:
        """The backend refused the request as a whole."""
        if len(events) == 1:
            return [Refused(healert.words(reply))]
        if reply.status != 413 and not part:
            self.probe()  # a backend that was replaced by a plain one refuses every list
            if not self.takes_updates or self._clock() < self._not_before:
                return [Later(max(0.0, self._not_before - self._clock()), self.state.problem)] * len(events)
        middle = len(events) // 2
        first = self._send_all(events[:middle], part=True)
        if (waits_s := self._not_before - self._clock()) > 0:  # it broke down on the way: ask no more
            return [*first, *[Later(waits_s, self.state.problem)] * (len(events) - middle)]
        return [*first, *self._send_all(events[middle:], part=True)]

    def _stumbled(self, reply: Reply, events: Sequence[FrictionEvent]) -> list[Outcome]:
        """500: out of order altogether, or because of one of these events; fewer at once will show which."""
        if len(events) > 1:
            self.batch_events = max(1, len(events) // 4)
            return [self._later(reply)] * len(events)
        later = self._later(reply)
        self._not_before = float("-inf")  # this event waits; the next may well be taken
        return [later]

    # --- a plain Healert backend -------------------------------------------------------------------------------------

    def _send_plain(self, events: Sequence[FrictionEvent]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for event in events:
            if event.test:
                outcomes.append(Done())
            elif (waits_s := self._not_before - self._clock()) > 0:
                outcomes.append(Later(waits_s, self.state.problem))
            elif (waits_s := self._bucket.take()) > 0:
                turns = len(events) - len(outcomes)
                paced = [Later(waits_s + turn * self._bucket.interval_s) for turn in range(turns)]
                return [*outcomes, *paced]
            else:
                outcomes.append(self._send_one(event))
        return outcomes

    def _send_one(self, event: FrictionEvent) -> Outcome:
        reply = self._call("POST", "/events", plain_body(event))
        answer = healert.answer(reply, healert.Recorded)
        if answer is not None and answer.status == "ok":
            self._worked()
            return Done()
        if isinstance(reply, Reply) and reply.status in (400, 413, 422):
            return Refused(healert.words(reply))
        return self._later(reply)

    # --- how it went -------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, body: bytes | None = None) -> Reply | Fault:
        return self._http.call(method, self._url + path, body=body, deadline_s=self._timeout_s)

    def _worked(self) -> None:
        self._backoff.reset()
        self._complained.clear()
        if self.state.problem or not self.state.reachable:
            self.state = msgspec.structs.replace(self.state, reachable=True, key_accepted=True, problem="")

    def _later(self, reply: Reply | Fault) -> Later:
        """No call before the delay is over, and then first of all the question what is there."""
        problem, operator = self._problem(reply)
        delay_s = self._backoff.next_s()
        if operator:
            shortest_s, longest_s = OPERATOR_DELAYS_S
            delay_s = shortest_s + (longest_s - shortest_s) * self._chance()
            if problem not in self._complained:
                self._complained.add(problem)
                log.error("sink %s: %s; events wait in the outbox", self.name, problem)
        elif isinstance(reply, Reply) and reply.status in (429, 503):
            delay_s = max(delay_s, retry_after_s(reply.headers.get("Retry-After"), self._wall()) or 0.0)
        self._not_before = self._clock() + delay_s
        self._probe_at = float("-inf")
        refused = isinstance(reply, Reply) and reply.status in (401, 403)
        self.state = msgspec.structs.replace(
            self.state,
            reachable=isinstance(reply, Reply),
            key_accepted=False if refused else self.state.key_accepted,
            problem=problem,
        )
        return Later(delay_s, problem)

    def _problem(self, reply: Reply | Fault) -> tuple[str, bool]:
        """What is wrong, in words, and whether only a person can mend it."""
        where = f"`sinks.{self.name}"
        if isinstance(reply, Fault):
            return f"{self._url}: {reply.reason}", False
        match reply.status:
            case 401 | 403:
                return f"{self._url} refuses the key ({reply.status}); set {where}.api_key` (HEALERT_API_KEY)", True
            case 404 | 405:
                return f"{self._url} knows no friction events ({reply.status}); correct {where}.url`", True
            case status if 300 <= status < 400:
                return f"{self._url} redirects ({status}), which is not followed; set {where}.url` to the target", True
            case 408 | 425 | 429:
                return f"{self._url} asks for patience ({reply.status})", False
            case status if 200 <= status < 300:
                return f"{self._url} does not answer like a friction backend; correct {where}.url`", True
            case status if 400 <= status < 500:
                return f"{self._url} does not take our requests ({status}); is there a proxy before it?", True
            case status:
                return f"{self._url} is out of order ({status})", False


# --- private ---------------------------------------------------------------------------------------------------------


def plain_body(event: FrictionEvent) -> bytes:
    """The event as a plain Healert backend knows it, within its bounds."""
    fields: dict[str, Any] = {
        "entity_ref": event.entity_ref,
        "type": event.type,
        "severity": event.severity,
        "timestamp": event.timestamp,
        "points": event.points,
    }
    for name, limit in PLAIN_BOUNDS.items():
        text: str = getattr(event, name)
        fields[name] = text if len(text) <= limit else text[: limit - 1] + "…"
    mark = f" [{event.id}]"
    if len(event.description) + len(mark) <= PLAIN_BOUNDS["description"]:
        fields["description"] += mark
    return msgspec.json.encode(fields)


def _check(name: str, settings: BackendSinkSettings) -> None:
    where = f"sinks.{name}"
    try:
        url = urlsplit(settings.url)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if not valid or not settings.url.isprintable() or " " in settings.url:
        raise ConfigError("`url` is no address; write http://HOST:PORT or https://HOST", where=where)
    if "@" in url.netloc:
        # It would stand in every log line and error text that names the backend.
        raise ConfigError("`url` carries credentials; put the key into `api_key` or `api_key_file`", where=where)
    if url.query or url.fragment:
        raise ConfigError("`url` ends at the path; leave out everything from `?` or `#` on", where=where)
    key = settings.api_key or ""
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            "`api_key` has characters that no HTTP header can carry (a space? a line break?)", where=where
        )
    if settings.ca_file and not Path(settings.ca_file).is_file():
        raise ConfigError(f"`ca_file`: there is no file {settings.ca_file}", where=where)
    if not 0.1 <= settings.timeout_s <= 300:
        raise ConfigError("`timeout_s` must be between 0.1 and 300", where=where)
    if not 1 <= settings.batch_events <= MAX_BATCH_EVENTS:
        raise ConfigError(f"`batch_events` must be between 1 and {MAX_BATCH_EVENTS}", where=where)


def _outcome(result: healert.Result) -> Outcome:
    if result.status in ("recorded", "updated", "duplicate"):
        return Done()
    if result.status == "refused":
        return Refused(healert.plain(result.detail or "no reason given"))
    return Later(BACKOFF_CAP_S, "an answer that this version does not know")
