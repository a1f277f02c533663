"""The suggested policy: it feeds what it should, and drops the rest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwarder.detection.api_objects import ApiObject
from forwarder.detection.coverage import coverage
from forwarder.detection.detector import Detector
from forwarder.detection.loader import load_rules
from forwarder.detection.policy import Asked, read_policy
from forwarder.detection.rules import MatchSpec, Rule, RuleSet
from forwarder.detection.suggestion import suggest
from forwarder.settings import parse_document

GUARDED = {"secrets", "configmaps", "serviceaccounts/token", "tokenreviews"}  # what is never written with bodies
Writes = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any] | None]


def document(text: str) -> Any:
    return parse_document(text, "suggested.yaml")


def lost_objects(rules: RuleSet, text: str) -> set[str]:
    """What the check misses under the suggested policy, over all rules."""
    found = [finding for one in coverage(rules, read_policy(document(text))) for finding in one.findings]
    return {word for finding in found for word in finding.what.partition(" on ")[2].partition(", in")[0].split(", ")}


def test_the_shipped_policy_is_the_suggestion_for_the_shipped_rules(shipped_rules: RuleSet) -> None:
    """deploy/audit-policy.yaml; to renew it: forwarder policy suggest --rules rules/friction.yaml --rules rules/extended.yaml"""
    assert Path("deploy/audit-policy.yaml").read_text("utf-8") == suggest(shipped_rules)


def test_it_feeds_the_shipped_rules_but_for_annotations_on_secrets(shipped_rules: RuleSet) -> None:
    """Every rule is fed; pipeline-skip is not on objects whose bodies would put secrets into the log."""
    found = coverage(shipped_rules, read_policy(document(suggest(shipped_rules))))
    assert {one.rule for one in found if one.verdict != "fed"} == {"pipeline-skip"}
    assert lost_objects(shipped_rules, suggest(shipped_rules)) <= GUARDED


def test_no_event_of_a_real_log_is_lost_and_most_of_its_volume_is(shipped_rules: RuleSet, writes: Writes) -> None:
    """A control plane's log of 53 actions: the same friction events, revision by revision, from an eighth of the lines."""
    policy = document(suggest(shipped_rules)).data
    detector = Detector(shipped_rules)
    lines = Path("tests/data/control-plane/audit.log").read_bytes().splitlines()
    kept_lines = kept_bytes = 0
    for line in lines:
        written = writes(policy, json.loads(line))
        text = json.dumps(written, separators=(",", ":")).encode() if written else b""
        kept_lines += bool(written)
        kept_bytes += len(text)
        before = [(event.type, event.revision, event.actor) for event in detector.detect(line)]
        assert before == (
            [(event.type, event.revision, event.actor) for event in detector.detect(text)] if text else []
        )
    assert kept_lines < len(lines) / 8
    assert kept_bytes < sum(map(len, lines)) / 10


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_any_choice_of_shipped_rules_is_fed(data: st.DataObject, shipped_rules: RuleSet, fired: Any) -> None:
    """By the check, and by every event that fires one of them."""
    chosen = data.draw(
        st.lists(st.sampled_from(shipped_rules.rules), min_size=1, max_size=6, unique_by=lambda rule: rule.name)
    )
    rules = RuleSet(rules=tuple(chosen), ignore_namespaces=shipped_rules.ignore_namespaces, warnings=(), files=())
    text = suggest(rules)
    assert lost_objects(rules, text) <= GUARDED
    for rule in chosen:
        _, lost = fired.left(rule.name, document(text).data)
        assert all(rule.annotation and event["objectRef"]["resource"] in GUARDED for event in lost), rule.name


WORDS = st.sampled_from
MATCHES = st.builds(
    MatchSpec,
    resources=st.lists(WORDS(["pods", "deployments", "secrets", "namespaces", "nodes", "widgets", "events", "*"]), max_size=2, unique=True),
    subresources=st.lists(WORDS(["none", "exec", "scale", "status"]), max_size=2, unique=True),
    verbs=st.lists(WORDS(["get", "list", "watch", "create", "patch", "delete"]), max_size=3, unique=True),
    annotation=WORDS([None, None, "example.com/x=1", "authorization.k8s.io/decision=allow"]),
    namespaces=st.lists(WORDS(["prod", "shop", "team-*"]), max_size=2, unique=True),
    users=st.lists(WORDS(["bob", "*@corp.example", "system:anonymous", "system:apiserver", "system:node:*", "system:serviceaccount:kube-system:x"]), max_size=2, unique=True),
    groups=st.lists(WORDS(["system:masters", "dev-*"]), max_size=1),
    names=st.lists(WORDS(["web", "db-*"]), max_size=1),
    api_groups=st.lists(WORDS(["core", "apps", "example.com"]), max_size=1),
    outcome=WORDS(["allowed", "denied", ["allowed", "failed"]]),
)  # fmt: skip


def rule_of(match: MatchSpec, number: int, ignore_system: bool) -> Rule:
    return Rule(
        name=f"rule-{number}", description="", severity="low", points=3, workflow="deploy", ignore_system=ignore_system,
        match=match, unless=(), tags=(), tests=(), file="f", line=number,
    )  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=st.lists(st.tuples(MATCHES, st.booleans()), min_size=1, max_size=4), drop=st.booleans())
def test_rules_of_any_shape_are_fed(made: list[tuple[MatchSpec, bool]], drop: bool) -> None:
    """What is suggested is a good policy, and the check misses nothing under it but guarded bodies."""
    rules = RuleSet(
        rules=tuple(rule_of(match, number, ignore) for number, (match, ignore) in enumerate(made)),
        ignore_namespaces=("kube-system", "team-*"),
        warnings=(),
        files=(),
    )
    text = suggest(rules, drop_service_accounts=drop)
    possible = {
        one.rule
        for one in coverage(
            rules,
            read_policy(document("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: RequestResponse}]}")),
        )
        if one.verdict == "fed"
    }
    for one in coverage(rules, read_policy(document(text))):
        for finding in one.findings if one.rule in possible else ():
            assert "Metadata" in finding.why, (one, text)  # a body that is guarded; never a request that is dropped
            what = finding.what.partition(" on ")[2].partition(", ")[0]
            assert any(what.startswith(name.partition("/")[0]) for name in GUARDED), (one, text)


@pytest.mark.parametrize(
    ("groups", "written"), [([], True), (["core", "apps"], True), (["apps"], False)], ids=["any", "core", "not theirs"]
)
def test_namespaces_are_written_for_rules_of_their_group_only(groups: list[str], written: bool) -> None:
    """A rule about everything in `apps` is about no Namespace object."""
    one = rule_of(MatchSpec(resources=["*"], api_groups=groups), 0, False)
    text = suggest(RuleSet(rules=(one,), ignore_namespaces=("kube-system",), warnings=(), files=()))
    assert ("namespaces/*" in text) is written


def test_one_rule_needs_one_rule() -> None:
    """Nothing is dropped by name that nothing would write anyway... but machines and ignored namespaces, which would be."""
    rules = load_rules(["rules/friction.yaml"])
    only = RuleSet(rules=(rules.rules[0],), ignore_namespaces=(), warnings=(), files=())
    policy = document(suggest(only)).data
    assert [rule["level"] for rule in policy["rules"]] == ["None", "None", "Metadata"]
    assert policy["rules"][-1]["resources"] == [{"group": "", "resources": ["pods/exec"]}]
    assert "omitManagedFields" not in policy


def test_service_accounts_are_dropped_on_demand_only(shipped_rules: RuleSet) -> None:
    """Somebody may act through one; who knows better may say so, and the policy tells."""
    assert "[system:serviceaccounts]" not in suggest(shipped_rules).replace("'", "")
    text = suggest(shipped_rules, drop_service_accounts=True)
    assert "system:serviceaccounts'" in text
    assert "Right only where no service account acts for people" in text


def test_a_machine_that_a_rule_names_is_not_dropped() -> None:
    """By its name, by a glob, or because the rule is about everybody."""
    for users in (["system:apiserver"], ["system:*"], []):
        match = MatchSpec(resource="pods", users=users)
        rules = RuleSet(rules=(rule_of(match, 1, False),), ignore_namespaces=(), warnings=(), files=())
        dropped = [rule for rule in document(suggest(rules)).data["rules"] if rule["level"] == "None"]
        assert not any("system:apiserver" in rule.get("users", ()) for rule in dropped)


def test_deleting_an_ignored_namespace_is_written(shipped_rules: RuleSet, writes: Writes) -> None:
    """A request for kube-system's own object lies, for a policy, in kube-system; a pod there is left out."""
    policy = document(suggest(shipped_rules)).data
    event = {
        "stage": "ResponseComplete",
        "verb": "delete",
        "user": {"username": "alice", "groups": ["system:authenticated"]},
    }
    itself = event | {"requestURI": "/api/v1/namespaces/kube-system", "objectRef": {"resource": "namespaces"}}
    pod = event | {"requestURI": "/api/v1/namespaces/kube-system/pods/x", "objectRef": {"resource": "pods"}}
    assert writes(policy, itself)
    assert writes(policy, pod) is None


@pytest.mark.parametrize("resource", sorted(GUARDED))
def test_secrets_are_never_written_with_bodies(resource: str, shipped_rules: RuleSet) -> None:
    """Also where a rule would like to see an annotation on them."""
    policy = read_policy(document(suggest(shipped_rules)))
    name, _, subresource = resource.partition("/")
    group = "authentication.k8s.io" if name == "tokenreviews" else ""
    asked = Asked(
        user="alice",
        groups=("system:authenticated",),
        verb="create",
        namespace="shop",
        object=ApiObject(group, name, subresource),
    )
    assert policy.decide(asked).level == "Metadata"
