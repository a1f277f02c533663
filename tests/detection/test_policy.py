"""Reading an audit policy, and what it decides; the model in conftest.py says the same in other words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forwarder.detection.api_objects import ApiObject
from forwarder.detection.policy import Asked, Policy, load_policy, read_policy
from forwarder.errors import ConfigError
from forwarder.settings import parse_document, read_document

GOOD: dict[str, Any] = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}


def read(policy: dict[str, Any]) -> Policy:
    return read_policy(parse_document(json.dumps(policy, indent=1), "policy.yaml"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "Polic"}, "needs `kind: Policy`"),
        ({"apiVersion": "audit.k8s.io/v1beta1"}, "write `apiVersion: audit.k8s.io/v1`"),
        ({"rules": []}, "no rules in it"),
        ({"rules": [{}]}, "lacks the key `level`"),
        ({"rules": [{"level": "metadata"}]}, "`rules.0.level`"),
        ({"rules": [{"level": "None", "verb": ["get"]}]}, "did you mean `verbs`"),
        ({"omitStages": ["Received"]}, "omitStages"),
        ({"rules": [{"level": "None", "resources": [{"group": "*"}]}]}, "rule 1: there is no wildcard for groups"),
        ({"rules": [{"level": "None", "resources": [{"group": "apps/v1"}]}]}, "write it without its version"),
        ({"rules": [{"level": "None", "resources": [{"group": "", "resourceNames": ["x"]}]}]}, "needs `resources`"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["healthz"]}]}, "begins with `/`"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["/a*b"]}]}, "last character"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["/x"], "namespaces": ["a"]}]}, "not both"),
    ],
)
def test_what_an_apiserver_refuses_or_passes_over_is_refused(change: dict[str, Any], words: str) -> None:
    """With the place; kube-apiserver itself only warns of an unknown key, and goes on without it."""
    with pytest.raises(ConfigError) as caught:
        read(GOOD | change)
    assert words in str(caught.value)
    assert "policy.yaml" in str(caught.value)


def test_a_real_policy_is_read_with_its_lines() -> None:
    """Rules are told by number and line."""
    policy = load_policy("tests/data/control-plane/policy.yaml")
    assert len(policy.rules) == 5
    assert policy.place(1) == "rule 2 (line 7)"
    assert policy.decision(-1).level == "None"


@pytest.mark.parametrize(
    ("words", "matched"),
    [
        (["*"], {"pods", "pods/exec", "services"}),
        (["pods"], {"pods"}),
        (["pods/*"], {"pods", "pods/exec"}),
        (["*/exec"], {"pods/exec"}),
        (["pods/exec", "services"], {"pods/exec", "services"}),
        ([], {"pods", "pods/exec", "services"}),
    ],
)
def test_wildcards_of_resources(words: list[str], matched: set[str]) -> None:
    """`*` is everything, `pods/*` the pods too, `*/exec` subresources only."""
    policy = read(GOOD | {"rules": [{"level": "Metadata", "resources": [{"group": "", "resources": words}]}]})
    found = set()
    for word in ("pods", "pods/exec", "services"):
        resource, _, subresource = word.partition("/")
        asked = Asked(user="u", groups=(), verb="get", object=ApiObject("", resource, subresource))
        if policy.decide(asked).level == "Metadata":
            found.add(word)
    assert found == matched


def test_it_agrees_with_the_model_on_a_real_log(writes: Callable[..., Any]) -> None:
    """Every line of a control plane's log, under its own policy and the shipped one."""
    for path in ("tests/data/control-plane/policy.yaml", "deploy/audit-policy.yaml"):
        policy = load_policy(path)
        data = read_document(path).data
        for line in Path("tests/data/control-plane/audit.log").read_bytes().splitlines():
            event = json.loads(line)
            reference = event.get("objectRef")
            named = reference and not (event["verb"] == "create" and not reference.get("subresource"))
            asked = Asked(
                user=event["user"]["username"],
                groups=tuple(event["user"].get("groups", ())),
                verb=event["verb"],
                namespace=reference.get("namespace", "")
                if reference and (named or reference["resource"] != "namespaces")
                else "",
                object=reference
                and ApiObject(
                    reference.get("apiGroup", ""),
                    reference["resource"],
                    reference.get("subresource", ""),
                    reference.get("name", "") if named else "",
                ),
                path=event["requestURI"].partition("?")[0],
            )
            decision = policy.decide(asked)
            written = writes(data, event)
            assert (decision.level != "None" and event["stage"] not in decision.omitted) == (written is not None), (
                event["requestURI"]
            )
