"""The kinds of requests that a rule could fire on."""

import json
from typing import Any

import pytest

from forwarder.detection import request_space as space
from forwarder.detection.api_objects import ApiObject
from forwarder.detection.policy import Policy, read_policy
from forwarder.detection.rules import MatchSpec, Rule
from forwarder.settings import parse_document


def rule(ignore_system: bool = True, **match: Any) -> Rule:
    return Rule(
        name="r", description="", severity="low", points=3, workflow="deploy", ignore_system=ignore_system,
        match=MatchSpec(**match), unless=(), tags=(), tests=(), file="f", line=1,
    )  # fmt: skip


def policy(**of_rule: Any) -> Policy:
    data = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "None"} | of_rule]}
    return read_policy(parse_document(json.dumps(data), "p"))


def test_people_are_in_the_groups_that_the_policy_names_and_machines_in_theirs() -> None:
    """A person may be an administrator, but no node."""
    found = space.identities(
        rule(), policy(userGroups=["system:masters", "system:nodes"], users=["bob", "system:apiserver"])
    )
    assert {one.user for one in found} == {"bob", "somebody", "somebody@example.com", "system:anonymous"}
    assert {group for one in found for group in one.groups if one.user != "system:anonymous"} == {
        "system:authenticated",
        "system:masters",
    }
    everybody = space.identities(rule(ignore_system=False), policy(users=["system:apiserver"]))
    assert {"system:apiserver", "system:node:any"} <= {one.user for one in everybody}


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        ({"users": ["*@corp.example"]}, {"@corp.example", "any@corp.example"}),
        ({"users": ["system:anonymous"]}, set()),
        ({"groups": ["dev-*"]}, {"somebody", "somebody@example.com"}),
    ],
)
def test_globs_have_examples(match: dict[str, Any], wanted: set[str]) -> None:
    """A policy knows no globs, so names that one matches stand for it; anonymous is a machine to nobody."""
    found = {one.user for one in space.identities(rule(**match), policy())}
    assert found == (wanted or {"system:anonymous"})


def test_what_no_filling_can_match_has_no_example() -> None:
    """Nothing is guessed."""
    assert list(space.examples("web-[0-9]?*")) == ["web-0x", "web-0xany"]
    assert list(space.examples("[!a]x")) == []


def test_a_session_may_be_opened_by_get_and_by_create() -> None:
    """Websocket and SPDY."""
    assert space.verbs(rule(), "exec") == ("get", "create")
    assert space.verbs(rule(verb="patch"), "exec") == ("patch",)


@pytest.mark.parametrize(
    ("asked", "verb", "places"),
    [
        (ApiObject("", "pods"), "get", ["shop", "somewhere"]),
        (ApiObject("", "pods"), "list", ["shop", "somewhere", ""]),
        (ApiObject("", "nodes"), "get", [""]),
        (ApiObject("", "namespaces"), "create", [""]),
        (ApiObject("", "namespaces"), "delete", ["kube-system", "shop", "somewhere"]),
        (ApiObject("any.example.com", "anything"), "get", ["shop", "somewhere", ""]),
    ],
)
def test_where_an_object_lies(asked: ApiObject, verb: str, places: list[str]) -> None:
    """Ignored namespaces count for what is in them, not for the Namespace object."""
    found = space.namespaces(rule(), policy(namespaces=["kube-system", "shop"]), ["kube-*"], asked, verb)
    assert found == places


def test_names_are_in_the_url_only_where_an_object_exists() -> None:
    """A create has its name in the body, which no policy sees."""
    named = policy(resources=[{"resources": ["pods"], "resourceNames": ["web-0"]}])
    assert space.names(rule(), named, ApiObject("", "pods"), "create") == [""]
    assert space.names(rule(), named, ApiObject("", "pods"), "get") == ["web-0", "somewhere"]
    assert space.names(rule(), named, ApiObject("", "pods", "exec"), "create") == ["web-0", "somewhere"]
    assert space.names(rule(names=["web-*"]), named, ApiObject("", "pods"), "list") == ["", "web-0", "web-", "web-any"]


def test_objects_of_a_rule() -> None:
    """Its own in their groups; every known one, and whatever a policy names, where it says none."""
    assert space.objects(rule(resource="deployments", subresource="scale"), policy()) == [
        ApiObject("apps", "deployments", "scale")
    ]
    found = space.objects(rule(resource="*"), policy(resources=[{"group": "example.com", "resources": ["widgets"]}]))
    assert {
        ApiObject("example.com", "widgets"),
        ApiObject("any.example.com", "anything"),
        ApiObject("", "pods", "exec"),
    } <= set(found)
    assert {one.group for one in space.objects(rule(resource="widgets"), policy())} == {"any.example.com"}
    assert {one.group for one in space.objects(rule(api_groups=["apps"]), policy())} == {"apps"}


@pytest.mark.parametrize(
    ("annotation", "body"),
    [(None, False), ("authorization.k8s.io/decision=allow", False), ("policy.admission.k8s.io/bypass=true", True)],
)
def test_known_audit_annotations_need_no_body(annotation: str | None, body: bool) -> None:
    """kube-apiserver writes them into the event itself."""
    assert space.needs_body(rule(annotation=annotation)) is body


def test_urls() -> None:
    """Only a rule that is about anything at all is about /version."""
    assert space.wants_urls(rule(users=["bob"]))
    assert not space.wants_urls(rule(resource="*"))
    assert space.urls(policy(nonResourceURLs=["/healthz*", "/version"])) == [
        "/healthzsomewhere",
        "/version",
        "/somewhere",
    ]
