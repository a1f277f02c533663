"""What an audit policy leaves of each rule, tried against a model of the API server on real and made-up events."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwarder.detection.coverage import Coverage, coverage, notes
from forwarder.detection.policy import Policy, read_policy
from forwarder.detection.rules import RuleSet
from forwarder.settings import parse_document


def parsed(policy: dict[str, Any]) -> Policy:
    return read_policy(
        parse_document(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy"} | policy), "p.yaml")
    )


def by_name(rules: RuleSet, policy: dict[str, Any]) -> dict[str, Coverage]:
    return {one.rule: one for one in coverage(rules, parsed(policy))}


def some(words: str) -> st.SearchStrategy[list[str]]:
    """None of them, mostly; else a few."""
    return st.one_of(st.just([]), st.lists(st.sampled_from(words.split()), min_size=1, max_size=3, unique=True))


GROUPS = ["", "apps", "batch", "rbac.authorization.k8s.io", "autoscaling", "networking.k8s.io", "authentication.k8s.io"]
WORDS = "* pods pods/* pods/exec pods/log pods/portforward */exec */scale */status deployments deployments/scale secrets configmaps nodes namespaces serviceaccounts/token clusterrolebindings jobs ingresses"
OBJECTS = st.fixed_dictionaries(
    {"group": st.sampled_from(GROUPS), "resources": some(WORDS)},
).flatmap(
    lambda one: st.just(one) if not one["resources"] else st.builds(lambda names: one | ({"resourceNames": names} if names else {}), some("checkout web-0 db-credentials node1"))
)  # fmt: skip
RULES = st.fixed_dictionaries({
    "level": st.sampled_from(["None", "None", "Metadata", "Metadata", "Request", "RequestResponse"]),
    "users": some("alice@corp.example bob kubernetes-admin system:anonymous system:apiserver system:kube-scheduler"),
    "userGroups": some("system:masters system:authenticated system:unauthenticated platform system:nodes dev"),
    "verbs": some("get list watch create update patch delete deletecollection"),
    "omitStages": some("RequestReceived ResponseStarted ResponseComplete Panic"),
}).flatmap(
    lambda rule: st.one_of(
        st.just(rule),
        st.builds(lambda urls: rule | {"nonResourceURLs": urls}, st.just(["/healthz*", "/version"]) | st.just(["*"])),
        st.builds(lambda objects, places: rule | {"resources": objects, "namespaces": places}, st.lists(OBJECTS, max_size=3), some("shop kube-system prod default payments")),
    )
)  # fmt: skip
POLICIES = st.builds(
    lambda rules, last, omit: {"rules": [*rules, *last], "omitStages": omit},
    st.lists(RULES, min_size=1, max_size=5),
    st.sampled_from([[], [{"level": "Metadata"}], [{"level": "Request"}], [{"level": "RequestResponse"}]]),
    some("RequestReceived ResponseStarted ResponseComplete Panic"),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(policy=POLICIES)
def test_what_is_said_to_be_fed_fires_and_what_is_said_to_never_fire_does_not(
    policy: dict[str, Any], shipped_rules: RuleSet, fired: Any
) -> None:
    """Whatever the policy: a fed rule loses no event, one that is never fed keeps none."""
    for one in coverage(shipped_rules, parsed(policy)):
        kept, lost = fired.left(one.rule, policy)
        if one.verdict == "fed":
            assert lost == [], one
        elif one.verdict == "never":
            assert kept == [], one
        assert (one.verdict == "fed") == (not one.findings)


def test_the_events_say_something_about_every_rule(shipped_rules: RuleSet, fired: Any) -> None:
    """Each shipped rule has events that fire it; a property over none would hold always."""
    assert all(fired.by_rule[rule.name] for rule in shipped_rules.rules)


@pytest.mark.parametrize(
    ("rule", "policy", "verdict", "words"),
    [
        ("kubectl-exec", [{"level": "Metadata"}], "fed", ""),
        ("kubectl-exec", [{"level": "Metadata", "verbs": ["create"]}], "partly", "get on pods/exec"),
        ("kubectl-exec", [{"level": "None", "resources": [{"resources": ["pods/*"]}]}, {"level": "Metadata"}], "never", "rule 1 (line 1) drops it"),
        ("kubectl-exec", [{"level": "None", "resources": [{"resources": ["*/exec"]}]}, {"level": "Metadata"}], "never", "drops it"),
        ("kubectl-exec", [{"level": "None", "resources": [{"resources": ["pods"]}]}, {"level": "Metadata"}], "fed", ""),
        ("kubectl-exec", [{"level": "Metadata"}, {"level": "None"}], "fed", ""),
        ("kubectl-exec", [{"level": "None", "nonResourceURLs": ["*"]}, {"level": "Metadata"}], "fed", ""),
        ("kubectl-exec", [{"level": "Metadata", "resources": [{"group": "apps"}]}], "never", "no rule of the policy"),
        ("kubectl-exec", [{"level": "None", "users": ["bob"]}, {"level": "Metadata"}], "partly", "by bob"),
        ("kubectl-exec", [{"level": "None", "userGroups": ["dev"]}, {"level": "Metadata"}], "partly", "by members of dev"),
        ("kubectl-exec", [{"level": "None", "userGroups": ["system:nodes"]}, {"level": "Metadata"}], "fed", ""),
        ("kubectl-exec", [{"level": "None", "namespaces": ["shop"]}, {"level": "Metadata"}], "partly", "in shop"),
        ("kubectl-exec", [{"level": "None", "namespaces": ["kube-system"]}, {"level": "Metadata"}], "fed", ""),
        ("kubectl-exec", [{"level": "Metadata", "omitStages": ["ResponseStarted"]}], "partly", "only when it ends"),
        ("kubectl-exec", [{"level": "Metadata", "omitStages": ["ResponseComplete"]}], "partly", "never completed"),
        ("kubectl-exec", [{"level": "Metadata", "omitStages": ["ResponseStarted", "ResponseComplete", "Panic"]}], "never", "omits the stage"),
        ("config-drift", [{"level": "Metadata", "omitStages": ["ResponseComplete"]}], "never", "omits the stage ResponseComplete"),
        ("config-drift", [{"level": "Metadata", "resources": [{"group": "apps"}]}], "partly", "pods"),
        ("pipeline-skip", [{"level": "Metadata"}], "never", "no bodies"),
        ("pipeline-skip", [{"level": "Request"}], "partly", "has already is not seen"),
        ("pipeline-skip", [{"level": "RequestResponse"}], "fed", ""),
        ("namespace-deletion", [{"level": "None", "namespaces": ["kube-system"]}, {"level": "Metadata"}], "partly", "in kube-system"),
        ("anonymous-access", [{"level": "None", "userGroups": ["system:unauthenticated"]}, {"level": "Metadata"}], "never", "drops it"),
    ],
)  # fmt: skip
def test_a_verdict_and_its_reason(
    rule: str, policy: list[dict[str, Any]], verdict: str, words: str, shipped_rules: RuleSet
) -> None:
    """Stage, level, verb, object, namespace, user and group; the first rule that matches counts."""
    found = by_name(shipped_rules, {"rules": policy})[rule]
    assert found.verdict == verdict
    said = " ".join(f"{finding.what} {finding.why}" for finding in found.findings)
    assert words in said if words else not said


def test_a_global_stage_counts_for_every_rule(shipped_rules: RuleSet) -> None:
    """`omitStages` of the policy and of its rules add up."""
    found = by_name(
        shipped_rules,
        {
            "omitStages": ["ResponseStarted"],
            "rules": [{"level": "Metadata", "omitStages": ["ResponseComplete", "Panic"]}],
        },
    )
    assert found["kubectl-exec"].verdict == "never"


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"level": "None", "userGroups": ["system:serviceaccounts"]}, {"level": "Metadata"}], "people who come through such an account"),
        ([{"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]}, {"level": "Metadata"}], ""),
        ([{"level": "RequestResponse"}], "writes the bodies of secrets into the log"),
        ([{"level": "RequestResponse"}], "writes the bodies of serviceaccounts/token"),
    ],
)  # fmt: skip
def test_what_else_an_operator_should_know(rules: list[dict[str, Any]], words: str, shipped_rules: RuleSet) -> None:
    """People behind machines that are dropped, and secrets in the log."""
    said = notes(shipped_rules, parsed({"omitStages": ["RequestReceived"], "rules": rules}))
    assert any(words in note for note in said) if words else said == []


def test_a_stage_that_nobody_reads_is_told(shipped_rules: RuleSet) -> None:
    """RequestReceived doubles the log."""
    assert any("RequestReceived" in note for note in notes(shipped_rules, parsed({"rules": [{"level": "Metadata"}]})))
