"""From one audit event to friction events: stages, revisions, outcomes, ids, times, redaction."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.detection.detector import Detector
from forwarder.detection.loader import load_rules
from forwarder.errors import MalformedEvent

EXEC: dict[str, Any] = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "level": "Metadata",
    "auditID": "41a79aad-ca3c-456d-81fb-8d94e58afded",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/shop/pods/web-6b499f964d-f7s8w/exec?command=sh&command=-c&command=id&container=app&tty=true",
    "verb": "get",
    "user": {"username": "alice@corp.example", "groups": ["dev"]},
    "sourceIPs": ["10.0.0.7", "192.168.1.1"],
    "userAgent": "kubectl/v1.34.1",
    "objectRef": {
        "resource": "pods",
        "namespace": "shop",
        "name": "web-6b499f964d-f7s8w",
        "apiVersion": "v1",
        "subresource": "exec",
    },
    "responseStatus": {"code": 101},
    "requestReceivedTimestamp": "2026-03-02T10:15:01.000000Z",
    "stageTimestamp": "2026-03-02T10:15:04.500000Z",
}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(load_rules(["rules/friction.yaml"]), cluster="prod-eu-1")


def line(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in (EXEC | changes).items() if v is not ...}).encode()


def test_everything_that_the_line_tells_is_in_the_event(detector: Detector) -> None:
    """Field by field."""
    (event,) = detector.detect(line())
    assert (event.entity_ref, event.type, event.severity, event.points, event.workflow) == (
        "component:shop/web",
        "kubectl-exec",
        "high",
        10,
        "deploy",
    )
    assert event.description == "kubectl exec on pods/web-6b499f964d-f7s8w (ns:shop) by alice@corp.example"
    assert (event.service, event.namespace, event.name, event.container) == (
        "web",
        "shop",
        "web-6b499f964d-f7s8w",
        "app",
    )
    assert (event.command, event.tty, event.outcome, event.response_code) == ("sh -c id", True, "allowed", 101)
    assert (event.timestamp, event.duration_s, event.stage, event.revision) == (
        "2026-03-02T10:15:01.000000Z",
        3.5,
        "ResponseComplete",
        1,
    )
    assert (event.audit_id, event.cluster, event.user_agent) == (EXEC["auditID"], "prod-eu-1", "kubectl/v1.34.1")
    assert event.source_ips == ("10.0.0.7", "192.168.1.1")
    assert (event.partial, event.test, event.tags) == (False, False, ())


@pytest.mark.parametrize(
    ("stage", "code", "revisions", "outcome"),
    [
        ("RequestReceived", None, [], None),
        ("ResponseStarted", 101, [0], "allowed"),
        ("ResponseStarted", 403, [], None),
        ("ResponseStarted", 500, [], None),
        ("ResponseComplete", 101, [1], "allowed"),
        ("ResponseComplete", 403, [], None),
        ("ResponseComplete", 500, [], None),
        ("Panic", 500, [1], "failed"),
    ],
)
def test_stages(detector: Detector, stage: str, code: int | None, revisions: list[int], outcome: str | None) -> None:
    """A start with an error opened nothing; a panic ends what was reported as open."""
    events = detector.detect(line(stage=stage, responseStatus={"code": code} if code else ...))
    assert [event.revision for event in events] == revisions
    assert [event.outcome for event in events] == ([outcome] if outcome else [])


def test_a_panic_of_a_short_request_is_no_friction(detector: Detector) -> None:
    """Nothing was reported before it, and nothing was changed."""
    reference = {"resource": "deployments", "namespace": "shop", "name": "web", "apiGroup": "apps"}
    assert not detector.detect(line(verb="patch", objectRef=reference, stage="Panic", responseStatus={"code": 500}))


def test_both_revisions_have_one_id_and_other_requests_others(detector: Detector) -> None:
    """Cluster, auditID, time of receipt and rule make it; stage does not."""
    (start,) = detector.detect(line(stage="ResponseStarted"))
    (end,) = detector.detect(line())
    (later,) = detector.detect(line(requestReceivedTimestamp="2026-03-02T10:15:01.000001Z"))
    (other,) = detector.detect(line(auditID="another"))
    (elsewhere,) = detector.detect(line(), cluster="prod-us-1")
    assert start.id == end.id
    assert len({end.id, later.id, other.id, elsewhere.id}) == 4
    assert elsewhere.cluster == "prod-us-1"


def test_ids_never_change(detector: Detector) -> None:
    """Stored events would be counted a second time; this value may only change with a migration."""
    (event,) = detector.detect(line())
    assert event.id == "d6d7fbd0-2ba4-5bf9-b9dd-185019171e9c"


def test_both_stages_of_a_cut_line_have_one_id(detector: Detector) -> None:
    """Cut before its own time of receipt, the salvaged head without stage and level stands in for it."""
    started = line(stage="ResponseStarted", responseStatus={"code": 101}).partition(b', "requestReceivedTimestamp"')[0]
    ended = line().partition(b', "requestReceivedTimestamp"')[0]
    (first,) = detector.detect(started, time_s=1_772_446_501)
    (second,) = detector.detect(ended, time_s=1_772_446_502)
    assert first.partial
    assert first.id == second.id
    assert (first.revision, second.revision) == (0, 1)
    assert first.timestamp == "2026-03-02T10:15:01.000000Z"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-03-02T10:15:01.123456Z", "2026-03-02T10:15:01.123456Z"),
        ("2026-03-02T10:15:01Z", "2026-03-02T10:15:01.000000Z"),
        ("2026-03-02T12:15:01.5+02:00", "2026-03-02T10:15:01.500000Z"),
        ("2026-03-02T10:15:01.123456789Z", "2026-03-02T10:15:01.123456Z"),
        ("yesterday", "2026-03-02T10:15:04.500000Z"),
        ("2026-13-45T99:00:00Z", "2026-03-02T10:15:04.500000Z"),
    ],
)
def test_times_are_utc_with_microseconds(detector: Detector, given: str, kept: str) -> None:
    """What cannot be read gives way to the stage's time."""
    assert detector.detect(line(requestReceivedTimestamp=given))[0].timestamp == kept


@pytest.mark.parametrize(
    ("status", "annotations", "rules"),
    [
        ({"code": 403}, {}, ["denied-session"]),
        ({"code": 401}, {}, ["denied-session"]),
        (..., {"authorization.k8s.io/decision": "forbid"}, ["denied-session"]),
        (..., {"authorization.k8s.io/decision": "allow"}, ["kubectl-exec"]),
        ({"code": 404}, {}, []),
        ({"code": 101}, {}, ["kubectl-exec"]),
    ],
)
def test_outcomes(status: Any, annotations: dict[str, str], rules: list[str]) -> None:
    """By code; without one by the authorizer's decision."""
    both = Detector(load_rules(["rules/friction.yaml", "rules/extended.yaml"]))
    assert [event.type for event in both.detect(line(responseStatus=status, annotations=annotations))] == rules


def test_a_list_of_events_gives_the_events_of_each(detector: Detector) -> None:
    """A bad one among them is told apart and costs the others nothing."""
    items = [EXEC, {"nonsense": 1}, EXEC | {"auditID": "b"}]
    whole = json.dumps({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": items}).encode()
    examined = detector.examine(whole)
    assert [event.audit_id for event in examined.events] == [EXEC["auditID"], "b"]
    assert [bad.reason for bad in examined.malformed] == ["not_an_audit_event"]


@pytest.mark.parametrize("bad", [b"", b"hello", b"[1]", b'"text"', b"{}", b'{"verb":"get"}'])
def test_what_is_no_audit_event_is_said(detector: Detector, bad: bytes) -> None:
    """With a reason that names no payload."""
    with pytest.raises(MalformedEvent) as caught:
        detector.detect(bad)
    assert caught.value.reason.isidentifier()
    assert detector.examine(bad).malformed


def test_the_doctors_event_is_a_test_event(detector: Detector) -> None:
    """Marked, so that it counts for nothing; no client of an apiserver can set a top-level field, so none can hide behind it."""
    (event,) = detector.detect(line(apiVersion="forwarder.test/v1"))
    assert (event.type, event.test) == ("forwarder-doctor", True)
    hidden = line(userAgent="forwarder-doctor", auditID='x","apiVersion":"forwarder.test/v1')
    assert [(event.type, event.test) for event in detector.detect(hidden)] == [("kubectl-exec", False)]


def test_control_characters_never_reach_an_event(detector: Detector) -> None:
    """Names and agents are chosen by attackers; sinks print them."""
    nasty = "\x1b[2Jevil\x00\r\n\u202e"
    reference = EXEC["objectRef"] | {"name": f"web{nasty}"}
    user = {"username": f"alice{nasty}"}
    (event,) = detector.detect(
        line(objectRef=reference, user=user, userAgent=nasty, auditID=f"a{nasty}", sourceIPs=[nasty])
    )
    for value in (
        event.description,
        event.actor,
        event.name,
        event.user_agent,
        event.audit_id,
        event.service,
        *event.source_ips,
    ):
        assert value.isprintable() or value == "", value


@pytest.mark.parametrize(
    ("command", "hidden"),
    [
        ("mysql --password=hunter2secret", "hunter2secret"),
        ("curl -u bob:hunter2secret http://x", "hunter2secret"),
        ("sh -c 'export TOKEN=hunter2secret; run'", "hunter2secret"),
    ],
)
def test_credentials_in_a_command_are_hidden(detector: Detector, command: str, hidden: str) -> None:
    """The command stays readable, the secret is gone, from the description too."""
    uri = "/api/v1/namespaces/shop/pods/web/exec?" + "&".join(
        f"command={word}" for word in command.replace("'", "").split(" ", 2)
    )
    (event,) = detector.detect(line(requestURI=uri))
    assert hidden not in event.command + event.description
    assert command.split(maxsplit=1)[0] in event.command


@pytest.mark.parametrize(
    "user",
    [
        "https://dex.example.com#CgcyMzQyNzQ5EgZnaXRodWI",
        "CiQwOGE4Njg0Yi1kYjg4LTRiNzMtOTBhOS0zY2QxNjYxZjU0NjYSBWxvY2Fs",
        "oidc:0123456789abcdef0123456789abcde1",
    ],
)
def test_people_whose_names_look_random_stay_apart(detector: Detector, user: str) -> None:
    """A subject of Dex is base64; hidden, all who log in through it would be one person."""
    (event,) = detector.detect(line(user={"username": user}, impersonatedUser={"username": user + "2"}))
    assert (event.actor, event.acting_as) == (user, user + "2")
    assert event.description.endswith(f"by {user}")


def deployment(resource: str = "deployments", subresource: str = "", verb: str = "patch", query: str = "") -> bytes:
    reference = {"resource": resource, "namespace": "shop", "name": "web", "subresource": subresource}
    return line(
        verb=verb, requestURI=f"/apis/apps/v1/namespaces/shop/{resource}/web{query}", objectRef=reference,
        responseStatus={"code": 200},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "fires"),
    [
        (deployment(query="?fieldManager=x&dryRun=All"), False),
        (deployment(subresource="scale", query="?dryRun=All"), False),
        (deployment(query="?dryRun=all"), True),
        (deployment(query="?xdryRun=All&dryRun="), True),
        (deployment("pods", "exec", "create", "?command=id&dryRun=All"), True),
    ],
)
def test_a_dry_run_changes_nothing(detector: Detector, asked: bytes, fires: bool) -> None:
    """`kubectl diff` patches every object that way. Only what the apiserver takes for a dry run is one."""
    assert bool(detector.detect(asked)) is fires
    assert any(trace.fired for trace in detector.explain(asked)) is fires


@pytest.mark.parametrize(
    ("resource", "verb"),
    [
        pytest.param("deployments", "delete", id="a delete with a body does not read the query"),
        pytest.param("secrets", "patch", id="the answer holds the secret"),
    ],
)
def test_a_dry_run_is_no_way_to_hide(resource: str, verb: str) -> None:
    """Two requests that take or give something, whatever their query says."""
    detector = Detector(load_rules(["rules/friction.yaml", "rules/extended.yaml"]))
    assert detector.detect(deployment(resource, "", verb, "?dryRun=All"))


def test_a_command_through_the_kubelet_is_told() -> None:
    """nodes/proxy reaches the kubelet's /exec, which pods/exec rules do not see."""
    detector = Detector(load_rules(["rules/extended.yaml"]))
    reference = {"resource": "nodes", "name": "node-1", "subresource": "proxy"}
    uri = "/api/v1/nodes/node-1/proxy/exec/shop/web/app?command=cat&command=/etc/shadow&output=1"
    (event,) = detector.detect(line(objectRef=reference, requestURI=uri))
    assert (event.type, event.command) == ("node-proxy", "cat /etc/shadow")


def test_a_long_user_agent_hides_nothing_where_lines_are_cut(detector: Detector) -> None:
    """Managed clouds cut at 16 KiB; the client decides how long its agent is, and objectRef stands behind it."""
    cut = line(userAgent="x" * 20_000)[: 16 << 10]
    assert detector.screen(cut, 0, len(cut))
    (event,) = detector.detect(cut)
    assert (event.type, event.actor, event.entity_ref, event.subresource, event.command, event.partial) == (
        "kubectl-exec", "alice@corp.example", "component:shop/web", "exec", "sh -c id", True
    )  # fmt: skip


@pytest.mark.parametrize("mark", [b"", b"[Truncated...]"], ids=["cut", "cut and marked"])
def test_both_stages_of_a_line_cut_anywhere_are_one_request(detector: Detector, mark: bytes) -> None:
    """One id and one meaning, wherever the limit falls: the longer stage name must not cost the other line its last field."""
    order = ("auditID", "stage", "requestURI", "verb", "user", "sourceIPs", "userAgent", "objectRef", "responseStatus",
             "requestReceivedTimestamp", "stageTimestamp")  # fmt: skip
    started, complete = (
        json.dumps({key: (EXEC | {"stage": stage})[key] for key in order}, separators=(",", ":")).encode()
        for stage in ("ResponseStarted", "ResponseComplete")
    )
    for limit in range(complete.index(b'"user"'), len(started)):
        (first,) = detector.detect(started[:limit] + mark)
        (second,) = detector.detect(complete[:limit] + mark)
        assert (first.id, first.type, first.actor) == (second.id, second.type, second.actor), complete[:limit]
        assert (second.verb, second.resource, second.subresource, second.entity_ref) == (
            "get", "pods", "exec", "component:shop/web"
        )  # fmt: skip
        assert second.actor in ("alice@corp.example", "unknown")


def test_explain_gives_a_reason_for_each_rule(detector: Detector) -> None:
    """In the order of the file."""
    traces = {trace.rule: (trace.fired, trace.reason) for trace in detector.explain(line())}
    assert traces["kubectl-exec"] == (True, "every condition holds")
    assert traces["config-drift"] == (False, "subresource is exec")
    assert traces["emergency-access"] == (False, "resource is pods")
    denied = {trace.rule: trace.reason for trace in detector.explain(line(responseStatus={"code": 403}))}
    assert denied["kubectl-exec"] == "outcome is denied"
    early = detector.explain(line(stage="RequestReceived"))
    assert {trace.reason for trace in early} == {"stage RequestReceived never fires"}


@pytest.mark.parametrize("path", sorted(Path("tests/data/audit-samples").glob("*.json")), ids=lambda path: path.stem)
def test_samples_of_an_old_apiserver_are_read(path: Path) -> None:
    """Sorted keys, and a `metadata` that newer ones do not write."""
    both = Detector(load_rules(["rules/friction.yaml", "rules/extended.yaml"]))
    text = path.read_bytes().strip()
    fired = {
        "anonymous_creates_namespace_foo": ["namespace-creation"], "attach_pod": ["pod-attach"], "create_clusterrolebinding": ["rbac-change"],
        "create_configmap": ["configmap-drift"], "create_deployment": ["config-drift"], "create_nginx_pod_privileged": [],
        "create_service": [], "create_serviceaccount": ["serviceaccount-change"], "delete_deployment": ["workload-deletion"],
        "delete_secret": ["secret-deletion"], "exec_pod": ["kubectl-exec"], "minikube_creates_namespace_foo": ["namespace-creation"],
    }  # fmt: skip
    assert [event.type for event in both.detect(text)] == fired[path.stem]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(EXEC)), JSON, max_size=4))
def test_wrong_types_never_crash(changes: dict[str, Any]) -> None:
    """Only MalformedEvent ever comes out, whatever stands in a field."""
    detector = Detector(load_rules(["rules/friction.yaml"]))
    try:
        detector.detect(json.dumps(EXEC | changes).encode())
    except MalformedEvent:
        pass


EKS_ROLE = {
    "username": "kubernetes-admin",
    "uid": "aws-iam-authenticator:1:AROA",
    "groups": ["system:authenticated"],
    "extra": {"sessionName": ["bob@corp.example"]},
}


def test_who_shares_a_role_of_eks_is_told_by_the_session(detector: Detector) -> None:
    """The person in the actor and the role beside it; what the person assumed on top of it wins the place."""
    (event,) = detector.detect(line(user=EKS_ROLE))
    assert (event.actor, event.acting_as) == ("bob@corp.example", "kubernetes-admin")
    assert event.description.endswith("by bob@corp.example")
    (event,) = detector.detect(line(user=EKS_ROLE, impersonatedUser={"username": "carol"}))
    assert (event.actor, event.acting_as) == ("bob@corp.example", "carol")


@pytest.mark.parametrize(
    ("condition", "fires"),
    [
        ("users: [kubernetes-admin]", True),
        ("users: [bob@corp.example]", False),
        ("ignore_users: [kubernetes-admin]", False),
        ("ignore_users: [bob@corp.example]", True),
    ],
)
def test_conditions_on_users_look_at_the_role(tmp_path: Path, condition: str, fires: bool) -> None:
    """In the screen as in the detector: a session's name is chosen by whoever assumes the role, and opens no way to hide."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n- name: shells\n  description: a shell of {actor}\n  severity: low\n  workflow: debug\n"
        f"  match: {{resource: pods, subresource: exec, {condition}}}\n"
    )
    ours = Detector(load_rules([str(rules)]))
    shell = json.dumps(json.loads(line(user=EKS_ROLE)), separators=(",", ":")).encode()
    assert ours.screen(shell, 0, len(shell)) is fires
    assert [event.actor for event in ours.detect(shell)] == ["bob@corp.example"] * fires
