"""The sample log: the same seed gives the same bytes, lines are a real apiserver's in shape, and the list is exact."""

import json
import re
from collections import Counter
from itertools import islice

import pytest

from forwarder.events.sample import MAX_OPEN_WATCHES, SampleLog

START = 1_795_000_000.0
KEY_ORDER = [
    "kind", "apiVersion", "level", "auditID", "stage", "requestURI", "verb", "user", "impersonatedUser", "sourceIPs",
    "userAgent", "objectRef", "responseStatus", "requestObject", "responseObject", "requestReceivedTimestamp",
    "stageTimestamp", "annotations",
]  # fmt: skip


@pytest.fixture(scope="module")
def log():
    return SampleLog(7, start_time=START, friction_share=0.02)


@pytest.fixture(scope="module")
def lines(log):
    return list(log.lines(6000))


@pytest.fixture(scope="module")
def events(lines):
    return [json.loads(line) for line in lines]


def test_the_same_seed_gives_the_same_bytes():
    """Tests and benchmarks on two machines see one log; another seed is another one."""
    first, again, other = (list(SampleLog(seed, start_time=START).lines(500)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_keys_come_in_the_apiservers_order(events):
    """A screen that relies on the order of audit/v1 would otherwise be measured on something else."""
    for event in events:
        keys = list(event)
        assert keys == [key for key in KEY_ORDER if key in event]


def test_text_is_escaped_as_go_does_it(lines):
    """No raw & < > in any line, and each of their escapes in some."""
    text = b"\n".join(lines)
    assert not re.search(rb"[&<>]", text)
    for escape in (rb"\u0026", rb"\u003c", rb"\u003e"):
        assert escape in text


def test_lines_come_in_the_order_of_their_stage(events):
    """An apiserver writes a line when the stage is reached; a request is received before."""
    times = [event["stageTimestamp"] for event in events]
    assert times == sorted(times)
    assert all(event["requestReceivedTimestamp"] <= event["stageTimestamp"] for event in events)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time) for time in times)


def test_the_mix_is_that_of_a_real_log(lines, events):
    """About 2.8 kB a line, two thirds at Metadata, an eighth at Request, a fifth with both bodies."""
    assert 2500 < sum(map(len, lines)) / len(lines) < 3100
    levels = Counter(event["level"] for event in events)
    assert 0.6 < levels["Metadata"] / len(events) < 0.75
    assert 0.08 < levels["Request"] / len(events) < 0.16
    assert 0.16 < levels["RequestResponse"] / len(events) < 0.26


def test_bodies_stand_only_where_the_level_has_them(events):
    """Metadata lines carry no body, Request lines no response."""
    for event in events:
        if event["level"] != "RequestResponse":
            assert "responseObject" not in event
        if event["level"] == "Metadata":
            assert "requestObject" not in event


def test_no_mark_of_a_template_is_left(lines):
    """Every slot is filled."""
    assert not [line for line in lines if re.search(rb"@[a-z_]+@", line)]


def test_every_rule_is_tripped_in_many_ways(log):
    """The list covers the five rules, both protocols of exec, scale, creation and impersonation."""
    actions = log.actions
    assert {action.rule for action in actions} == {
        "kubectl-exec", "pipeline-skip", "config-drift", "port-forward", "emergency-access",
    }  # fmt: skip
    assert {action.verb for action in actions if action.rule == "kubectl-exec"} == {"get", "create"}
    assert {"", "scale"} <= {action.subresource for action in actions if action.rule == "config-drift"}
    assert any(action.acting_as for action in actions)
    assert any(action.actor == "system:admin" for action in actions)


def test_the_list_says_what_stands_in_the_lines(log, events):
    """Each action is one request: its lines carry its actor, object and verb, and sessions have two stages."""
    by_id = {}
    for event in events:
        by_id.setdefault(event["auditID"], []).append(event)
    assert len({(action.audit_id, action.received) for action in log.actions}) == len(log.actions)
    for action in log.actions:
        first, *rest = by_id[action.audit_id]
        assert (first["user"]["username"], first["verb"]) == (action.actor, action.verb)
        assert first["requestReceivedTimestamp"] == action.received
        assert first["objectRef"]["resource"] == action.resource
        session = action.subresource in ("exec", "portforward")
        assert [event["stage"] for event in rest] == (["ResponseComplete"] if session else [])
        assert (action.revision, action.duration_s is not None) == (1, session)


def test_the_share_of_friction_is_what_was_asked_for():
    """`friction_share` counts requests; 0 gives machines only."""
    quiet = SampleLog(3, start_time=START, friction_share=0)
    assert all(json.loads(line)["user"]["username"].startswith("system:") for line in quiet.lines(2000))
    assert quiet.actions == []
    busy = SampleLog(3, start_time=START, friction_share=0.1)
    list(busy.lines(5000))
    assert 250 < len(busy.actions) < 650


def test_near_misses_are_of_every_kind(events):
    """Denied, failed, robots, ignored namespaces, writes to status, binding and eviction, and kubectl's reads."""
    seen = set()
    for event in events:
        reference = event.get("objectRef") or {}
        code, user, namespace = event["responseStatus"]["code"], event["user"]["username"], reference.get("namespace")
        person = not user.startswith("system:") or user == "system:admin"
        seen |= {
            "denied" if code == 403 else "",
            "no session"
            if (event["stage"], reference.get("subresource"), code) == ("ResponseStarted", "exec", 500)
            else "",
            "robot exec" if reference.get("subresource") == "exec" and not person else "",
            "robot secret" if reference.get("resource") == "secrets" and event["verb"] == "get" and not person else "",
            "kube-system" if namespace == "kube-system" and person else "",
            "read" if (reference.get("resource"), event["verb"], person) == ("deployments", "get", True) else "",
            f"machine {reference.get('subresource')}" if not person else "",
        }
    expected = {"denied", "no session", "robot exec", "robot secret", "kube-system", "read"}
    assert expected | {"machine status", "machine binding", "machine eviction"} <= seen


def test_an_endless_log_is_bounded(log):
    """However long it runs, no more than a fixed number of watches is open at a time."""
    endless = SampleLog(5, start_time=START, lines_per_s=100_000, friction_share=0)
    for _ in range(40_000):
        endless.line()
    assert endless.open_requests == MAX_OPEN_WATCHES


def test_a_live_log_has_the_time_of_the_clock():
    """With a clock, lines carry the present time and still never go back."""
    now = [START]
    live = SampleLog(2, start_time=START, lines_per_s=1000, clock=lambda: now[0])
    times = []
    for _ in range(20):
        now[0] += 1
        times += [json.loads(live.line())["stageTimestamp"] for _ in range(3)]
    assert times == sorted(times)
    assert len({time[:19] for time in times}) == 20


def test_what_is_open_can_be_closed(log):
    """Closing gives the last stage of every session and watch, and completes the list."""
    short = SampleLog(4, start_time=START, friction_share=0.2)
    list(islice((short.line() for _ in iter(int, 1)), 300))
    assert any(action.revision == 0 for action in short.actions)
    while short.open_requests:
        assert json.loads(short.close_one())["stage"] == "ResponseComplete"
    assert all(action.revision == 1 for action in short.actions)
    short.forget_actions()
    assert short.actions == []
