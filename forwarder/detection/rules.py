"""The rule language: what a rules file may say, and what a loaded rule is.

    config:
      ignore_namespaces: [monitoring, "ci-*"]   # globs; kube-system and its like and the own namespace are always added
    rules:
      - name: kubectl-exec
        description: "kubectl exec on {resource}/{name} (ns:{namespace}) by {actor}"
        severity: high
        workflow: deploy
        ignore_system: true
        match: {resource: pods, subresource: exec}
        unless: [another-rule]
        tests:
          - {name: a person opens a shell, event: {...}, fires: true}

All conditions of a rule hold (AND), lists are alternatives, an absent key means any. All matching rules fire, except
that a rule yields to any rule of its `unless` that fired. `unless: ["*"]` yields to every rule that has no such star.
A Healert rules.yaml is a subset of this.
"""

from typing import Any, Literal

import msgspec

from forwarder.events.friction import POINTS, Severity

WORKFLOWS = ("deploy", "incident", "debug", "rollback", "release")
TOKENS = ("actor", "resource", "subresource", "namespace", "name", "verb", "cluster", "acting_as", "command", "outcome")
OUTCOMES = ("allowed", "denied", "failed")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy",
         "post", "put", "head", "options")  # fmt: skip
SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease")  # ignored unless a file says otherwise


class MatchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `match` of a rule as written.

    resource(s): plural, lower case; `*` is any object, but not a non-resource URL. ignore_resources: exact, beside `*`.
    subresource(s): `none` is the object itself. verb(s): audit verbs. annotation: `key=value`, looked for in the event's
    annotations, then in the response's object, then in the request's. namespace_contains: case does not matter.
    namespaces, ignore_namespaces, users, ignore_users, groups, names: globs. api_groups: exact, `core` is the empty one.
    outcome: allowed (default), denied, failed, or a list. impersonated: whether the request assumed another identity.
    """

    resource: str | None = None
    resources: list[str] = []
    ignore_resources: list[str] = []
    subresource: str | None = None
    subresources: list[str] = []
    verb: str | None = None
    verbs: list[str] = []
    annotation: str | None = None
    namespace_contains: str | None = None
    namespaces: list[str] = []
    ignore_namespaces: list[str] = []
    users: list[str] = []
    ignore_users: list[str] = []
    groups: list[str] = []
    names: list[str] = []
    api_groups: list[str] = []
    outcome: str | list[str] = "allowed"
    impersonated: bool | None = None


class RuleTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole audit event, and whether the rule fires on it when its whole set is loaded. `expect`: fields of the event."""

    name: str
    event: dict[str, Any]
    fires: bool
    expect: dict[str, Any] = {}


class RuleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule as written. points: 1..100, default by severity (high 10, medium 6, low 3)."""

    name: str
    description: str
    severity: Severity
    match: MatchSpec
    workflow: str = "deploy"
    points: int | None = None
    ignore_system: bool = False
    unless: list[str] = []
    tags: list[str] = []
    tests: list[RuleTest] = []


class RuleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Holds for all rules of all files. ignore_namespaces: globs, on top of kube-system, kube-public and kube-node-lease,
    which are always ignored, as in Healert. watch_system_namespaces: true takes these three off the list again.
    """

    ignore_namespaces: list[str] = []
    watch_system_namespaces: bool = False


class RuleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rules file."""

    rules: list[RuleSpec]
    config: RuleConfig = RuleConfig()


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded rule: every list a set, single and plural keys joined, `None` where a condition is absent."""

    name: str
    description: str
    severity: Literal["high", "medium", "low"]
    points: int
    workflow: str
    ignore_system: bool
    match: MatchSpec
    unless: tuple[str, ...]
    tags: tuple[str, ...]
    tests: tuple[RuleTest, ...]
    file: str
    line: int

    @property
    def resources(self) -> frozenset[str]:
        return _joined(self.match.resource, self.match.resources)

    @property
    def subresources(self) -> frozenset[str]:
        """`none`, the object itself, is the empty text here."""
        return frozenset(
            "" if word == "none" else word for word in _joined(self.match.subresource, self.match.subresources)
        )

    @property
    def verbs(self) -> frozenset[str]:
        return _joined(self.match.verb, self.match.verbs)

    @property
    def outcomes(self) -> frozenset[str]:
        outcome = self.match.outcome
        return frozenset([outcome] if isinstance(outcome, str) else outcome)

    @property
    def annotation(self) -> tuple[str, str] | None:
        if self.match.annotation is None:
            return None
        key, _, value = self.match.annotation.partition("=")
        return key, value


class RuleSet(msgspec.Struct, frozen=True, kw_only=True):
    """Rules in the order of their files; warnings are for people, the set is good."""

    rules: tuple[Rule, ...]
    ignore_namespaces: tuple[str, ...]
    warnings: tuple[str, ...]
    files: tuple[str, ...]

    def order(self) -> tuple[Rule, ...]:
        """The rules so that each stands behind all that it may yield to."""
        by_name = {rule.name: rule for rule in self.rules}
        done: dict[str, Rule] = {}

        def place(rule: Rule) -> None:
            if rule.name not in done:
                for name in rule.unless:
                    if name in by_name:
                        place(by_name[name])
                done[rule.name] = rule

        for starred in (False, True):
            for rule in self.rules:
                if ("*" in rule.unless) is starred:
                    place(rule)
        return tuple(done.values())


def default_points(severity: str) -> int:
    """high 10, medium 6, low 3."""
    return POINTS[severity]


def _joined(one: str | None, many: list[str]) -> frozenset[str]:
    return frozenset([*([one] if one is not None else []), *many])
