"""Falcosidekick's input contract, enforced by a stub that is stricter than the program, and what becomes of each answer."""

import re
from datetime import datetime
from typing import Any

import pytest
import requests

from forwarder.contracts import Done, Later, Refused
from forwarder.errors import ConfigError
from forwarder.events.friction import POINTS
from forwarder.sinks.falcosidekick import FalcosidekickSettings, FalcosidekickSink, payload

PRIORITIES = {"emergency", "alert", "critical", "error", "warning", "notice", "informational", "info", "debug"}
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")


def complaint(body: Any) -> str:
    """What is wrong with a body, by the contract; empty when it is good."""
    fields = body.get("output_fields")
    checks = {
        "priority": str(body.get("priority", "")).lower() in PRIORITIES,
        "rule": bool(body.get("rule")) and body["rule"] != "Test rule",
        "time": bool(RFC_3339.fullmatch(body.get("time", ""))) and datetime.fromisoformat(body["time"]).year > 1,
        "output_fields": isinstance(fields, dict) and bool(fields),
        "output_fields are text": isinstance(fields, dict) and all(isinstance(value, str) for value in fields.values()),
        "source": bool(body.get("source")),
        "tags": all(isinstance(tag, str) for tag in body.get("tags", [])),
        "no other keys": set(body)
        <= {"priority", "rule", "time", "output_fields", "output", "source", "tags", "hostname"},
    }
    return ", ".join(name for name, good in checks.items() if not good)


def strict(asked) -> Any:
    if asked.method != "POST" or asked.headers["Content-Type"] != "application/json" or complaint(asked.json):
        return 400, b"Please send a valid request body\n"
    return 200, b""


def sink(adapter, **settings: Any) -> FalcosidekickSink:
    return FalcosidekickSink("sidekick", FalcosidekickSettings(**settings), adapter=adapter, chance=lambda: 1.0)


@pytest.mark.parametrize("severity", list(POINTS))
def test_every_event_meets_the_contract(network, event, severity) -> None:
    """All that we ever send is taken."""
    net = network(strict)
    events = [
        event(1, severity=severity, command="sh", namespace="shop", name="cart-1", source_ips=("10.0.0.7",)),
        event(2, severity=severity, resource="nodes", namespace="", tags=("mitre",), test=True),
        event(3, severity=severity, response_code=403, outcome="denied", timestamp="2025-06-15T12:00:00.123456Z"),
    ]
    assert sink(net).deliver(events) == [Done()] * 3
    assert [complaint(asked.json) for asked in net.asked] == ["", "", ""]


def test_severities_are_priorities_and_may_be_others(event) -> None:
    """high is Critical, medium Warning, low Notice."""
    words = [payload(event(1, severity=one), FalcosidekickSettings())["priority"] for one in ("high", "medium", "low")]
    assert words == ["Critical", "Warning", "Notice"]
    assert payload(event(1), FalcosidekickSettings(high="Error"))["priority"] == "Error"


def test_the_fields_are_those_of_falcos_own_audit_events(event) -> None:
    """So that templates and routes for k8saudit work; what is empty is left out."""
    made = payload(
        event(1, namespace="shop", name="cart-1", response_code=101, cluster="prod"), FalcosidekickSettings()
    )
    fields = made["output_fields"]
    assert (fields["k8s.ns.name"], fields["k8s.pod.name"]) == ("shop", "cart-1")
    assert (fields["ka.user.name"], fields["ka.verb"], fields["ka.response.code"]) == ("jane", "create", "101")
    assert (fields["ka.cluster.name"], made["hostname"]) == ("prod", "prod")
    assert fields["friction.id"] == event(1).id
    assert "ka.impuser.name" not in fields
    assert "k8s.pod.name" not in payload(event(1, resource="secrets"), FalcosidekickSettings())["output_fields"]
    assert made["source"] == "k8s_audit"
    assert payload(event(1), FalcosidekickSettings(source="k8saudit"))["source"] == "k8saudit"


def test_long_fields_are_cut_here_before_falcosidekick_would(event) -> None:
    """It cuts above 4096 characters in all; a short event keeps a long command whole."""
    assert (
        payload(event(1, command="x" * 2000), FalcosidekickSettings())["output_fields"]["friction.command"]
        == "x" * 2000
    )
    made = payload(event(1, command="x" * 4000, user_agent="y" * 600), FalcosidekickSettings())
    assert all(len(value) <= 500 for value in made["output_fields"].values())
    assert made["output_fields"]["friction.command"].endswith("…")


def test_its_refusal_is_a_dead_letter_with_its_words(network, event) -> None:
    """And the next event goes out."""
    answers = [(400, b"Please send a valid request body\n"), (200, b"")]
    outcomes = sink(network(lambda _: answers.pop(0))).deliver([event(1), event(2)])
    assert outcomes == [Refused("400: Please send a valid request body "), Done()]


@pytest.mark.parametrize(
    ("answer", "delay_s", "words"),
    [
        ((503, b"", {"Retry-After": "9"}), 9.0, "answers with 503"),
        ((404, b""), 30.0, "answers with 404; correct `sinks.sidekick.url`"),
        ((302, b"", {"Location": "http://elsewhere"}), 30.0, "answers with 302"),
        (requests.ConnectionError("no"), 0.5, "the connection was closed early"),
    ],
    ids=["busy", "another-service", "redirect", "dropped"],
)
def test_trouble_makes_this_and_the_following_wait(network, event, answer, delay_s, words) -> None:
    """One attempt, not one for each event that waits."""
    net = network(lambda _: answer)
    outcomes = sink(net).deliver([event(1), event(2)])
    assert len(net.asked) == 1
    assert outcomes[0].delay_s == delay_s
    assert all(isinstance(outcome, Later) and words in outcome.reason for outcome in outcomes)


def test_filters(event) -> None:
    """Severity, rules, namespaces and age, as for people: its outputs are people's."""
    one = sink(None, minimum_severity="high")
    stamp = 1_749_988_800.0
    assert one.wants(event(1), stamp)
    assert not one.wants(event(1, severity="low"), stamp)
    assert not one.wants(event(1), stamp + 3601)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "sidekick:2801"}, "must begin with http"),
        ({"url": "http://u:p@sidekick:2801"}, "carries a password"),
        ({"client_cert_file": "/x"}, "go together"),
        ({"source": " "}, "`source` must not be empty"),
        ({"timeout_s": 0}, "`timeout_s`"),
    ],
)
def test_settings_that_cannot_work(settings, words) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=words):
        sink(None, **settings)
