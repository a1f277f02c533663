"""Falco's k8saudit as a stub that is as strict as it is: batches, sizes, retries, rate, and the metrics people know."""

import json
from typing import Any

import pytest

from forwarder.contracts import Done, Later, Refused
from forwarder.errors import ConfigError
from forwarder.events.audit import decode
from forwarder.events.outgoing import OutgoingEvent
from forwarder.sinks import falco
from forwarder.sinks.falco import MAX_BODY_BYTES, FalcoSettings, FalcoSink
from forwarder.telemetry import Telemetry

STAMP = "2025-06-18T12:00:00.000000Z"


def outgoing(number: int = 1, **fields: Any) -> OutgoingEvent:
    event = {"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": f"a-{number}",
             "stage": "ResponseComplete", "requestURI": "/api/v1/pods", "verb": "list", "user": {"username": "jane"},
             "objectRef": {"resource": "pods"}, "requestReceivedTimestamp": STAMP, "stageTimestamp": STAMP}  # fmt: skip
    line = json.dumps({name: value for name, value in (event | fields).items() if value is not None}).encode()
    return OutgoingEvent(decode(line), line, "prod")


class Falco:
    """What k8saudit accepts, and what it drops although it says 200."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.dropped = 0
        self.script: list[Any] = []

    def __call__(self, asked: Any) -> Any:
        if self.script and (answer := self.script.pop(0)) is not None:
            return answer
        size = len(json.dumps(asked.json))
        if asked.method != "POST" or "application/json" not in asked.headers["Content-Type"] or size > 12 << 20:
            return 400, b"bad request"
        assert asked.json["kind"] == "EventList"
        for item in asked.json["items"]:
            if len(json.dumps(item, separators=(",", ":"))) > 256 << 10 or not item.get("stageTimestamp"):
                self.dropped += 1
            else:
                self.events.append(item)
        return 200, b""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def peer() -> Falco:
    return Falco()


@pytest.fixture
def make(network, peer):
    def build(telemetry: Telemetry | None = None, clock: Clock | None = None, **settings: Any) -> FalcoSink:
        return FalcoSink(
            "falco", FalcoSettings(**settings), telemetry or Telemetry(), adapter=network(peer), clock=clock or Clock()
        )

    return build


def metrics(telemetry: Telemetry) -> dict[str, float]:
    lines = telemetry.exposition().decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.partition(" ") for line in lines) if name.startswith("falco_")
    }


def test_a_batch_is_one_event_list(make, peer) -> None:
    """As kube-apiserver's webhook posts it."""
    assert make().deliver([outgoing(1), outgoing(2)]) == [Done(), Done()]
    assert [event["auditID"] for event in peer.events] == ["a-1", "a-2"]


def test_what_k8saudit_would_drop_in_silence_reaches_it(make, peer) -> None:
    """An event above 256 KiB goes without its bodies; one without a stageTimestamp gets one."""
    telemetry = Telemetry()
    big = outgoing(1, requestObject={"spec": {"x": ["words and"] * (30 << 10)}}, annotations={"a": "b"})
    cut = outgoing(2, stageTimestamp=None)
    bare = outgoing(3, stageTimestamp=None, requestReceivedTimestamp=None)
    assert make(telemetry).deliver([big, cut, bare]) == [Done()] * 3
    assert peer.dropped == 0
    assert "requestObject" not in peer.events[0]
    assert peer.events[0]["annotations"] == {"a": "b", "audit.k8s.io/truncated": "true"}
    assert peer.events[1]["stageTimestamp"] == STAMP
    assert peer.events[2]["stageTimestamp"]
    assert telemetry.value("forwarder_falco_truncated") == 1


def test_a_body_ends_well_below_falcos_limit(make, peer) -> None:
    """What does not fit goes in the next post."""
    events = [outgoing(number, requestObject={"x": ["words and"] * (17 << 10)}) for number in range(60)]
    outcomes = make().deliver(events)
    sent = sum(isinstance(outcome, Done) for outcome in outcomes)
    assert MAX_BODY_BYTES // (201 << 10) - 2 <= sent < 60
    assert set(outcomes[sent:]) == {Later(0.0)}


def test_a_dead_falco_is_tried_at_growing_delays_and_counted_under_the_names_people_know(make, peer) -> None:
    """1 s, 2 s, 3 s; the four counters of aks-audit-log, without `_total`."""
    telemetry = Telemetry()
    sink = make(telemetry)
    peer.script = [(500, b"")] * 3
    events = [outgoing(1), outgoing(2)]
    delays = [sink.deliver(events)[0].delay_s for _ in range(3)]
    assert delays == [1.0, 2.0, 3.0]
    assert sink.deliver(events) == [Done()] * 2
    assert metrics(telemetry) == {
        "falco_aks_audit_log_events": 2,
        "falco_aks_audit_log_events_errors": 0,
        "falco_aks_audit_log_events_success": 2,
        "falco_aks_audit_log_events_retry": 6,
    }
    assert "falco_aks_audit_log_events_total" not in telemetry.exposition().decode()


def test_retries_may_be_limited_but_not_where_falco_is_waited_for(make, peer) -> None:
    """Then the batch is refused, which the stream counts and says; `block` promises more."""
    telemetry = Telemetry()
    peer.script = [(500, b"")] * 10
    sink = make(telemetry, max_retries=2)
    outcomes = [sink.deliver([outgoing(1)])[0] for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] == [Later, Later, Refused]
    assert metrics(telemetry)["falco_aks_audit_log_events_errors"] == 1
    waiting = make(max_retries=2, when_down="block")
    assert {type(waiting.deliver([outgoing(1)])[0]) for _ in range(5)} == {Later}


def test_the_rate_is_kept_and_a_retry_costs_nothing_of_it(make, peer) -> None:
    """10 a second with a burst of 5."""
    clock = Clock()
    sink = make(clock=clock, rate_limit_events_per_s=10, burst=5)
    events = [outgoing(number) for number in range(8)]
    peer.script = [(500, b"")]
    assert {type(outcome) for outcome in sink.deliver(events)} == {Later}
    outcomes = sink.deliver(events)
    assert sum(isinstance(outcome, Done) for outcome in outcomes) == 5
    (put_off,) = set(sink.deliver(events[5:]))
    assert put_off == Later(pytest.approx(0.1))
    clock.now += 0.3
    assert sink.deliver(events[5:]) == [Done()] * 3
    assert len(peer.events) == 8


@pytest.mark.parametrize(
    ("answer", "delay_s", "words"),
    [
        ((404, b""), 30.0, "correct `sinks.falco.url`"),
        ((503, b"", {"Retry-After": "7"}), 7.0, "answers with 503"),
    ],
)
def test_what_only_a_person_can_mend_is_tried_seldom(make, peer, answer, delay_s, words) -> None:
    """And its own wish is respected."""
    peer.script = [answer]
    (outcome,) = make().deliver([outgoing(1)])
    assert outcome.delay_s == delay_s
    assert words in outcome.reason


def test_a_proxy_with_a_smaller_limit(make, peer) -> None:
    """Fewer at once; one alone that is too large is refused."""
    sink = make()
    peer.script = [(413, b""), None, (413, b"")]
    sink.deliver([outgoing(1), outgoing(2)])
    assert sink.batch_events == 1
    assert sink.deliver([outgoing(1)]) == [Done()]
    assert isinstance(sink.deliver([outgoing(2)])[0], Refused)


def test_several_falcos_share_the_old_names(network) -> None:
    """One registry, one family."""
    telemetry = Telemetry()
    for name in ("a", "b"):
        FalcoSink(name, FalcoSettings(), telemetry, adapter=network(Falco())).deliver([outgoing(1)])
    assert metrics(telemetry)["falco_aks_audit_log_events"] == 2
    assert set(falco.AKS_METRICS) == {"events", "events_errors", "events_success", "events_retry"}


def test_a_url_that_cannot_be_meant() -> None:
    """By name."""
    with pytest.raises(ConfigError, match="`url` must begin with http"):
        FalcoSink("falco", FalcoSettings(url="falco:9765"), Telemetry())
