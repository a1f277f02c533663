"""One condition at a time, and rules that yield."""

from typing import Any

import msgspec
import pytest

from forwarder.detection.actors import machine_test, resolve
from forwarder.detection.detector import outcome
from forwarder.detection.matcher import Index, Request, Static, static_of
from forwarder.detection.rules import MatchSpec, Rule, RuleSet
from forwarder.events.audit import AuditEvent, ObjectRef, ResponseStatus, User


def rule(name: str = "a-rule", *, unless: tuple[str, ...] = (), ignore_system: bool = False, **match: Any) -> Rule:
    spec = msgspec.convert(match or {"resource": "pods"}, MatchSpec)
    return Rule(
        name=name, description="", severity="high", points=10, workflow="deploy", ignore_system=ignore_system,
        match=spec, unless=unless, tags=(), tests=(), file="f", line=1,
    )  # fmt: skip


def event(**changes: Any) -> AuditEvent:
    base = AuditEvent(
        kind="Event",
        api_version="audit.k8s.io/v1",
        stage="ResponseComplete",
        verb="patch",
        user=User(username="alice@corp.example", groups=("dev", "system:authenticated")),
        object_ref=ObjectRef(resource="deployments", namespace="shop-Production", name="web", api_group="apps"),
        response_status=ResponseStatus(code=200),
    )
    return msgspec.structs.replace(base, **changes)


def fired(rules: list[Rule], given: AuditEvent, *, ignore: tuple[str, ...] = (), own: str = "") -> list[str]:
    index = Index(RuleSet(rules=tuple(rules), ignore_namespaces=ignore, warnings=(), files=()), own)
    actor = resolve(given, machine_test())
    name = given.object_ref.name if given.object_ref else ""
    return [r.name for r in index.fired(static_of(given, actor), Request(given, actor, outcome(given), name))]


@pytest.mark.parametrize(
    ("match", "hits"),
    [
        ({"resource": "deployments"}, True),
        ({"resource": "pods"}, False),
        ({"resources": ["pods", "deployments"]}, True),
        ({"resource": "*"}, True),
        ({"resource": "*", "ignore_resources": ["pods"]}, True),
        ({"resource": "*", "ignore_resources": ["deployments"]}, False),
        ({"verb": "patch"}, True),
        ({"verb": "get"}, False),
        ({"verbs": ["get", "patch"]}, True),
        ({"subresource": "none", "verb": "patch"}, True),
        ({"subresource": "scale"}, False),
        ({"subresources": ["none", "scale"]}, True),
        ({"namespace_contains": "production"}, True),
        ({"namespace_contains": "staging"}, False),
        ({"namespaces": ["shop-*"]}, True),
        ({"namespaces": ["shop"]}, False),
        ({"verb": "patch", "ignore_namespaces": ["shop-*"]}, False),
        ({"users": ["*@corp.example"]}, True),
        ({"users": ["bob"]}, False),
        ({"verb": "patch", "ignore_users": ["alice@*"]}, False),
        ({"groups": ["dev"]}, True),
        ({"groups": ["ops*"]}, False),
        ({"names": ["w?b"]}, True),
        ({"names": ["api"]}, False),
        ({"api_groups": ["apps"]}, True),
        ({"api_groups": ["core"]}, False),
        ({"verb": "patch", "outcome": "denied"}, False),
        ({"verb": "patch", "outcome": ["denied", "allowed"]}, True),
        ({"impersonated": True}, False),
        ({"impersonated": False}, True),
        ({"annotation": "a/b=c"}, False),
    ],
    ids=str,
)
def test_a_condition(match: dict[str, Any], hits: bool) -> None:
    """Each key of `match`, hit and missed."""
    assert fired([rule(**match)], event()) == (["a-rule"] if hits else [])


def test_all_conditions_hold() -> None:
    """AND over keys, OR within a list."""
    assert fired([rule(resource="deployments", verb="patch", users=["alice@*"])], event())
    assert not fired([rule(resource="deployments", verb="patch", users=["bob"])], event())


def test_subresource_none_is_the_object_itself() -> None:
    """Without the key any subresource will do, as in a Healert file."""
    scale = event(object_ref=ObjectRef(resource="deployments", subresource="scale", namespace="shop", name="web"))
    assert fired([rule(resource="deployments")], scale)
    assert not fired([rule(resource="deployments", subresource="none")], scale)


def test_star_is_any_object_but_no_url() -> None:
    """/version has no objectRef."""
    url = event(object_ref=None, verb="get")
    assert not fired([rule(resource="*", verb="get")], url)
    assert fired([rule(verb="get")], url)


@pytest.mark.parametrize(
    "where",
    [
        {"annotations": {"team/bypass": "true"}},
        {"response_object": msgspec.Raw(b'{"metadata":{"annotations":{"team/bypass":"true"}}}')},
        {"request_object": msgspec.Raw(b'{"metadata":{"annotations":{"team/bypass":"true"}}}')},
        {"request_object": msgspec.Raw(b'{"metadata":{"annotations":{"team\\/b\\u0079pass":"true"}}}')},
        {"request_object": msgspec.Raw(b'[{"op":"add","path":"/metadata/annotations/team~1bypass","value":"true"}]')},
        {
            "request_object": msgspec.Raw(
                b'{"a":' + b"[" * 5000 + b"]" * 5000 + b',"metadata":{"annotations":{"team/bypass":"true"}}}'
            )
        },
    ],
    ids=["event", "response", "request", "escaped", "json-patch", "behind-a-deep-body"],
)
def test_an_annotation_is_found_wherever_it_can_stand(where: dict[str, Any]) -> None:
    """In the event, the response's object, the request's; no spelling or depth hides it."""
    assert fired([rule(annotation="team/bypass=true")], event(**where))
    assert not fired([rule(annotation="team/bypass=false")], event(**where))


@pytest.mark.parametrize(
    "body",
    [
        b'"skipped-too-big-size-object"',
        b"null",
        b"[]",
        b"{}",
        b'{"metadata":null}',
        b'{"metadata":{"annotations":null}}',
    ],
)
def test_a_body_that_is_none_has_no_annotation(body: bytes) -> None:
    """AKS puts a string where an object was."""
    assert not fired([rule(annotation="team/bypass=true")], event(response_object=msgspec.Raw(body)))


def test_ignored_namespaces_hold_for_all_rules_and_the_own_one_always() -> None:
    """Globs; a Namespace object is not in itself, so deleting an ignored one is seen."""
    assert not fired([rule(verb="patch")], event(), ignore=("shop-*",))
    assert not fired([rule(verb="patch")], event(), own="shop-Production")
    namespace = event(
        verb="delete", object_ref=ObjectRef(resource="namespaces", namespace="kube-system", name="kube-system")
    )
    assert fired([rule(verb="delete")], namespace, ignore=("kube-system",))


def test_ignore_system_skips_machines_only() -> None:
    """A person who assumes a machine's identity is still a person."""
    machine = event(user=User(username="system:serviceaccount:a:b"))
    person = event(impersonated_user=User(username="system:serviceaccount:a:b"))
    assert not fired([rule(verb="patch", ignore_system=True)], machine)
    assert fired([rule(verb="patch", ignore_system=True)], person)


def test_a_rule_yields_only_to_rules_that_fired() -> None:
    """In any order of the file; events come in the order of the file."""
    general = rule("general", unless=("special",), verb="patch")
    special = rule("special", verb="patch", names=["web"])
    assert fired([general, special], event()) == ["special"]
    assert fired([special, general], event()) == ["special"]
    other = event(object_ref=ObjectRef(resource="deployments", namespace="shop", name="api"))
    assert fired([general, special], other) == ["general"]


def test_a_rule_that_yielded_does_not_silence_others() -> None:
    """c yields to b, b yields to a: with a fired, b did not fire, so c does."""
    rules = [
        rule("rule-c", unless=("rule-b",), verb="patch"),
        rule("rule-b", unless=("rule-a",), verb="patch"),
        rule("rule-a", verb="patch"),
    ]
    assert fired(rules, event()) == ["rule-c", "rule-a"]


def test_a_star_yields_to_every_rule_without_one() -> None:
    """For rules that catch what nothing else tells."""
    rules = [rule("catch-all", unless=("*",), verb="patch"), rule("special", verb="patch", names=["web"])]
    assert fired(rules, event()) == ["special"]
    assert fired([rules[0]], event()) == ["catch-all"]


@pytest.mark.parametrize("machine", [False, True], ids=["person", "machine"])
def test_sorting_the_rules_leaves_the_answer_to_their_conditions(machine: bool) -> None:
    """By verb and resource, named or not: what is asked is only what is not known yet, and the order stays."""
    rules = [
        rule("any-object", unless=("get-pods",), resource="*"),
        rule("get-pods", resource="pods", verb="get"),
        rule("people-only", ignore_system=True, resource="pods"),
        rule("pods-and-nodes", resources=["pods", "nodes"], verbs=["get", "list"]),
        rule("any-verb-of-bob", users=["bob"]),
        rule("no-secrets", verb="get", ignore_resources=["secrets"]),
    ]
    index = Index(RuleSet(rules=tuple(rules), ignore_namespaces=("kube-*",), warnings=(), files=()))
    for verb in ("get", "list", "patch"):
        for resource in ("pods", "nodes", "secrets", "unheard-of", None):
            for actor in ("bob", "alice"):
                for namespace in ("", "kube-system", "shop"):
                    static = Static(machine, actor, verb, resource, "", namespace)
                    expected = [c for c in index.rules if c.static_reason(static) is None]
                    assert list(index.candidates(static)) == expected
                    asked = Static(machine, actor, verb, None, "", "")
                    assert index.opening(machine, verb).possible(asked) or not expected


def test_names_that_nobody_has_heard_of_are_not_kept() -> None:
    """An attacker who makes every request a new kind cannot fill the memory."""
    index = Index(
        RuleSet(rules=(rule(verb="patch"), rule("b", resource="pods")), ignore_namespaces=(), warnings=(), files=())
    )
    before = len(index._openings)
    for number in range(100):
        index.candidates(Static(False, f"u{number}", f"verb{number}", f"r{number}", "", f"n{number}"))
    assert len(index._openings) == before
