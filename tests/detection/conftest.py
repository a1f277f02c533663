"""What kube-apiserver writes under an audit policy: a model of its own, on plain data, that shares no code with the product."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forwarder.detection.detector import Detector
from forwarder.detection.loader import load_rules
from forwarder.detection.rules import Rule, RuleSet
from forwarder.events.sample import SampleLog

Event = dict[str, Any]
PATH = re.compile(r"/(?:api|apis/(?P<group>[^/]+))/v[0-9a-z]+(?:/watch)?/(?P<rest>[^?]+)")


def attributes(event: Event) -> dict[str, Any]:
    """What the API server knows of a request before it runs: from the URL, never from a body."""
    found = PATH.match(event["requestURI"])
    if not found or "objectRef" not in event:
        return {"object": None, "path": event["requestURI"].partition("?")[0]}
    rest = found["rest"].split("/")
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in ("status", "finalize"):
            rest = rest[2:]
    resource, name, subresource = (*rest, "", "")[:3]
    return {"object": (found["group"] or "", resource, subresource, name), "namespace": namespace}


def rule_holds(rule: dict[str, Any], event: Event, asked: dict[str, Any]) -> bool:
    """k8s.io/apiserver/pkg/audit/policy, said again."""
    if rule.get("users") and event["user"].get("username") not in rule["users"]:
        return False
    if rule.get("userGroups") and not any(group in rule["userGroups"] for group in event["user"].get("groups", [])):
        return False
    if rule.get("verbs") and event["verb"] not in rule["verbs"]:
        return False
    if not rule.get("resources") and not rule.get("namespaces"):
        if not rule.get("nonResourceURLs"):
            return True
        if asked["object"] is not None:
            return False
        patterns = [re.escape(url).replace(r"\*", ".*") for url in rule["nonResourceURLs"]]
        return any(re.fullmatch(pattern, asked["path"]) for pattern in patterns)
    if asked["object"] is None or (rule.get("namespaces") and asked["namespace"] not in rule["namespaces"]):
        return False
    group, resource, subresource, name = asked["object"]
    both = resource + ("/" + subresource if subresource else "")
    words = {both, "*", resource + "/*"} | ({"*/" + subresource} if subresource else set())
    for one in rule.get("resources") or [{"group": group}]:
        if one.get("group", "") != group:
            continue
        if not one.get("resources"):
            return True
        named = not one.get("resourceNames") or name in one["resourceNames"]
        if named and words & set(one["resources"]):
            return True
    return False


def apiserver_writes(policy: dict[str, Any], event: Event) -> Event | None:
    """The event as it stands in the log, or None."""
    asked = attributes(event)
    for rule in policy["rules"]:
        if rule_holds(rule, event, asked):
            omitted = [*policy.get("omitStages", []), *rule.get("omitStages", [])]
            if rule["level"] == "None" or event["stage"] in omitted:
                return None
            hidden = {"Metadata": ("requestObject", "responseObject"), "Request": ("responseObject",)}.get(
                rule["level"], ()
            )
            return {key: value for key, value in event.items() if key not in hidden}
    return None


class Fired:
    """Real and made-up events that fire a rule when everything is logged, and what is left of them under a policy."""

    def __init__(self, rules: RuleSet) -> None:
        self._detectors = {rule.name: Detector(alone(rules, rule)) for rule in rules.rules}
        self._fires: dict[tuple[str, int, bool, bool], bool] = {}
        self.events = [event for event in every_event(rules) if authenticated(event)]
        everything = Detector(RuleSet(rules=tuple(no_yield(rule) for rule in rules.rules), ignore_namespaces=rules.ignore_namespaces, warnings=(), files=()))  # fmt: skip
        self.by_rule: dict[str, list[int]] = {rule.name: [] for rule in rules.rules}
        for number, event in enumerate(self.events):
            for friction in everything.detect(json.dumps(event).encode()):
                self.by_rule[friction.type].append(number)

    def left(self, rule: str, policy: dict[str, Any]) -> tuple[list[Event], list[Event]]:
        """(events that fire the rule under the policy, events that do not any more)."""
        kept: list[Event] = []
        lost: list[Event] = []
        for number in self.by_rule[rule]:
            written = apiserver_writes(policy, self.events[number])
            (kept if written is not None and self._still_fires(rule, number, written) else lost).append(
                self.events[number]
            )
        return kept, lost

    def _still_fires(self, rule: str, number: int, written: Event) -> bool:
        key = (rule, number, "requestObject" in written, "responseObject" in written)
        if key not in self._fires:
            self._fires[key] = bool(self._detectors[rule].detect(json.dumps(written).encode()))
        return self._fires[key]


def alone(rules: RuleSet, rule: Rule) -> RuleSet:
    return RuleSet(rules=(no_yield(rule),), ignore_namespaces=rules.ignore_namespaces, warnings=(), files=())


def no_yield(rule: Rule) -> Rule:
    return Rule(**{field: getattr(rule, field) for field in rule.__struct_fields__} | {"unless": ()})


def every_event(rules: RuleSet) -> list[Event]:
    """The rules' own tests, a real log, and a stretch of a made-up one; people who come through a machine left out."""
    events = [test.event for rule in rules.rules for test in rule.tests]
    events += [json.loads(line) for line in Path("tests/data/control-plane/audit.log").read_bytes().splitlines()]
    events += [json.loads(line) for line in SampleLog(5, start_time=1_772_359_200.0, friction_share=0.2).lines(1500)]
    return [
        event
        for event in events
        if not (event.get("impersonatedUser") and event["user"]["username"].startswith("system:"))
    ]


def authenticated(event: Event) -> Event:
    """With the group that every authenticated user is in; hand-written events leave it out."""
    user = event["user"]
    group = "system:unauthenticated" if user.get("username") == "system:anonymous" else "system:authenticated"
    user["groups"] = list(dict.fromkeys([*(g for g in user.get("groups", []) if g != "system:unauthenticated"), group]))
    return event


@pytest.fixture(scope="session")
def shipped_rules() -> RuleSet:
    """Both shipped sets."""
    return load_rules(["rules/friction.yaml", "rules/extended.yaml"])


@pytest.fixture(scope="session")
def fired(shipped_rules: RuleSet) -> Fired:
    return Fired(shipped_rules)


@pytest.fixture(scope="session")
def writes() -> Callable[[dict[str, Any], Event], Event | None]:
    """`writes(policy, event)`: what kube-apiserver would write."""
    return apiserver_writes
