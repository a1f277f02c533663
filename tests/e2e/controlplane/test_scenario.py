"""The scenario of kind/scenario.yaml against a real apiserver's audit log: exactly its events, while shells are still open."""

import json
from collections import Counter

import pytest

from forwarder.detection.actors import machine_test
from forwarder.detection.loader import load_rules
from forwarder.settings import shipped
from tests.e2e.controlplane.plane import NODE, lines_of
from tests.e2e.scenario import difference, expected_rows, load
from tests.e2e.stage import Stage

pytestmark = pytest.mark.e2e

LATENCY_S = 5.0  # ten times what is measured, and still sooner than anybody would look
LONG_LINE_BYTES = 600_000
NOT_PLAYED = {"pod-proxy": "needs a pod that answers HTTP at an address that is no loopback"}


def test_every_shipped_rule_has_an_action():
    """A rule that nobody plays could be dead, and the audit policy starve it; the exceptions carry their reason."""
    rules = {rule.name for rule in load_rules([shipped("rules/friction.yaml"), shipped("rules/extended.yaml")]).rules}
    played = {event.type for action in load().actions for event in action.events}
    assert rules - played == set(NOT_PLAYED)
    assert played <= rules


def test_a_comparison_names_what_is_missing_and_what_nobody_expected():
    """An event with another name, one too many and one too few are three lines; an equal list is none."""
    scenario = load()
    action = next(action for action in scenario.actions if action.name == "a secret read")
    rows = expected_rows(scenario, action, {})
    event = {
        "type": "emergency-access",
        "actor": "alice@corp.example",
        "entity_ref": "component:shop/token",
        "verb": "get",
        "resource": "secrets",
    }
    event |= {"outcome": "allowed", "name": "token"}
    assert difference(rows, [event]) == ""
    assert difference(rows, [event, event]).startswith("+ unexpected")
    assert difference(rows, []).startswith("- missing")
    assert difference(rows, [event | {"name": "other"}]).count("\n") == 1


def test_every_action_gives_exactly_its_events(cluster, plane, scenario, kubectl, tmp_path):
    """What people and machines do with kubectl, through apiserver, Fluent Bit, receiver and backend; the log rotates."""
    cluster.start()
    cluster.node_agent(from_head=True).start()
    folder = tmp_path / "stage"
    folder.mkdir()

    def events():
        return cluster.get("/api/v1/events?limit=1000")

    words = {"node": NODE, "image": "example.test/tools:1"}
    stage = Stage(scenario, kubeconfig=plane.kubeconfig, events=events, folder=folder, kubectl=kubectl, words=words)
    stage.prepare()
    stage.play()
    expected = stage.expected()
    cluster.settled(len(expected))
    found = events()
    differs = difference(expected, found)
    assert not differs, f"\n{differs}"
    everything_was_completed(found)
    scores_follow(cluster, found)
    nothing_leaked(cluster, scenario, json.dumps(found))
    the_log_was_as_hard_as_promised(plane, scenario)
    print(f"\n{len(expected)} events; from the start of kubectl to the open session in the backend:")
    print("".join(f"  {seconds:.2f} s  {name}\n" for name, seconds in stage.latencies_s.items()), end="")
    assert max(stage.latencies_s.values()) < LATENCY_S


def everything_was_completed(found):
    """Each session is one row, at its last revision, with code and duration."""
    assert {event["revision"] for event in found} == {1}
    subresources = ("exec", "attach", "portforward")
    sessions = [event for event in found if event.get("subresource") in subresources and event["outcome"] == "allowed"]
    assert {event["response_code"] for event in sessions} == {101}
    assert [event for event in sessions if event["duration_s"] is None] == []


def scores_follow(cluster, found):
    """The API counts, per service, what the list holds."""
    listed = Counter(event["entity_ref"] for event in found)
    counted = {entity["entity_ref"]: entity["count"] for entity in cluster.get("/api/v1/entities?limit=1000")}
    assert counted == dict(listed)


def nothing_leaked(cluster, scenario, events):
    """No secret of the scenario is in an event, in what we logged, or in a file that we wrote."""
    written = {"events": events.encode()}
    for path in [*cluster.folder.glob("*.log"), *cluster.folder.glob("*.db*")]:
        written[path.name] = path.read_bytes()
    assert {"receive.log", "backend.log", "outbox.db"} <= set(written)
    leaks = [(name, secret) for name, data in written.items() for secret in scenario.secrets if secret.encode() in data]
    assert leaks == []


def the_log_was_as_hard_as_promised(plane, scenario):
    """It was rotated by the apiserver, holds a line of 600 kB, hostile headers, secrets, and what machines did."""
    files = plane.audit_files()
    assert len(files) > 1
    assert max(len(line) for file in files for line in file.read_bytes().splitlines()) > LONG_LINE_BYTES
    lines = lines_of(files)
    ids = Counter(line["auditID"] for line in lines if line.get("objectRef", {}).get("resource") == "secrets")
    assert ids["11111111-1111-4111-8111-111111111111"] == 2
    assert sum('"stage":"RequestReceived"' in audit_id for audit_id in ids) == 1
    assert sum('"verb":"list"' in line.get("userAgent", "") for line in lines) == 1
    is_machine = machine_test()
    by_machines = Counter(
        (line["verb"], line["objectRef"]["resource"], line["objectRef"].get("subresource", ""))
        for line in lines
        if "objectRef" in line
        and is_machine(line["user"]["username"])
        and "impersonatedUser" not in line
        and line["responseStatus"]["code"] < 400
    )
    person_would_fire = [
        ("get", "pods", "exec"),
        ("get", "secrets", ""),
        ("patch", "deployments", ""),
        ("delete", "configmaps", ""),
    ]
    assert [what for what in person_would_fire if not by_machines[what]] == []
    assert by_machines["create", "pods", ""] >= 5, "what controllers made of the deployments"
