"""An audit policy (audit.k8s.io/v1 Policy): read as strictly as kube-apiserver would like to, and its decisions.

    policy = load_policy("audit-policy.yaml")
    policy.decide(Asked(user="alice", groups=("system:authenticated",), verb="get", namespace="shop", object=…))

The first rule that matches a request decides; where none does, the level is None. Everything in a policy is compared
exactly, but for `*`, `*/subresource`, `resource/*` and the end of a non-resource URL. There is no wildcard for groups.
The user is the authenticated one: policies are applied before impersonation.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from forwarder.detection.api_objects import ApiObject
from forwarder.errors import ConfigError
from forwarder.settings import Document, KeyPath, convert, read_document

Level = Literal["None", "Metadata", "Request", "RequestResponse"]
Stage = Literal["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]

API_VERSION = "audit.k8s.io/v1"
_GROUP = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class GroupResources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Objects of one API group; `resources` empty is all of them, with their subresources."""

    group: str = ""
    resources: list[str] = []
    resource_names: list[str] = []

    def matches(self, asked: ApiObject) -> bool:
        """Whether it names this object."""
        if self.group != asked.group:
            return False
        if not self.resources:
            return True
        if self.resource_names and asked.name not in self.resource_names:
            return False
        combined = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
        return any(
            word in (combined, "*", f"{asked.resource}/*") or (asked.subresource and word == f"*/{asked.subresource}")
            for word in self.resources
        )


class PolicyRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One rule; all that it names must hold, an empty list is any."""

    level: Level
    users: list[str] = []
    user_groups: list[str] = []
    verbs: list[str] = []
    resources: list[GroupResources] = []
    namespaces: list[str] = []
    non_resource_urls: list[str] = msgspec.field(default_factory=list, name="nonResourceURLs")
    omit_stages: list[Stage] = []
    omit_managed_fields: bool | None = None

    def takes_user(self, user: str, groups: Iterable[str]) -> bool:
        """Whether it is about this user."""
        if self.users and user not in self.users:
            return False
        return not self.user_groups or not set(self.user_groups).isdisjoint(groups)

    def takes_verb(self, verb: str) -> bool:
        """Whether it is about this verb."""
        return not self.verbs or verb in self.verbs

    def takes_namespace(self, namespace: str) -> bool:
        """Whether it is about objects there; "" is cluster-wide, or a list over all namespaces."""
        return not self.namespaces or namespace in self.namespaces

    def takes_object(self, asked: ApiObject) -> bool:
        """Whether it is about this object, wherever it is."""
        if self.resources:
            return any(resources.matches(asked) for resources in self.resources)
        return bool(self.namespaces) or not self.non_resource_urls

    def takes_url(self, path: str) -> bool:
        """Whether it is about this non-resource URL."""
        if self.resources or self.namespaces:
            return False
        return not self.non_resource_urls or any(
            word in ("*", path) or (word.endswith("*") and path.startswith(word.rstrip("*")))
            for word in self.non_resource_urls
        )


class _PolicyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    api_version: str
    kind: str
    rules: list[PolicyRule]
    metadata: Any = None
    omit_stages: list[Stage] = []
    omit_managed_fields: bool = False


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request as policies see it. object: None for a non-resource URL, whose `path` counts then."""

    user: str
    groups: tuple[str, ...]
    verb: str
    namespace: str = ""
    object: ApiObject | None = None
    path: str = ""


class Decision(msgspec.Struct, frozen=True):
    """rule: its position, or -1 where no rule matches. omitted: stages that are not written."""

    rule: int
    level: Level
    omitted: frozenset[str]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy; lines: where each rule begins in its file."""

    rules: tuple[PolicyRule, ...]
    omit_stages: tuple[Stage, ...] = ()
    omit_managed_fields: bool = False
    file: str = ""
    lines: tuple[int, ...] = ()

    def decide(self, asked: Asked) -> Decision:
        """What is written of a request, and which rule says so."""
        for position, rule in enumerate(self.rules):
            if rule.takes_user(asked.user, asked.groups) and rule.takes_verb(asked.verb):
                if asked.object is None:
                    found = rule.takes_url(asked.path)
                else:
                    found = rule.takes_namespace(asked.namespace) and rule.takes_object(asked.object)
                if found:
                    return self.decision(position)
        return self.decision(-1)

    def decision(self, position: int) -> Decision:
        """What the rule at `position` says; -1 is none."""
        if position < 0:
            return Decision(-1, "None", frozenset(self.omit_stages))
        rule = self.rules[position]
        return Decision(position, rule.level, frozenset([*self.omit_stages, *rule.omit_stages]))

    def place(self, position: int) -> str:
        """`rule 2 (line 14)`; positions are counted from 0, people count from 1."""
        line = f" (line {self.lines[position]})" if position < len(self.lines) else ""
        return f"rule {position + 1}{line}"


def load_policy(path: str | Path) -> Policy:
    """The policy in a file. Raises ConfigError."""
    return read_policy(read_document(path))


def read_policy(document: Document) -> Policy:
    """A parsed document as a policy. Raises ConfigError for whatever kube-apiserver refuses, or passes over in silence."""
    data = document.data
    if not isinstance(data, dict) or data.get("kind") != "Policy":
        raise ConfigError("no audit policy: it needs `kind: Policy`", where=document.file)
    if data.get("apiVersion") != API_VERSION:
        raise ConfigError(
            f"write `apiVersion: {API_VERSION}`; kube-apiserver knows no other", where=document.where(("apiVersion",))
        )
    parsed = convert(document, _PolicyFile)
    if not parsed.rules:
        raise ConfigError(
            "no rules in it; kube-apiserver does not start with such a policy", where=document.where(("rules",))
        )
    for position, rule in enumerate(parsed.rules):
        _check(rule, document, ("rules", position))
    return Policy(
        rules=tuple(parsed.rules),
        omit_stages=tuple(parsed.omit_stages),
        omit_managed_fields=parsed.omit_managed_fields,
        file=document.file,
        lines=tuple(document.lines.get(("rules", position), 0) for position in range(len(parsed.rules))),
    )


def _check(rule: PolicyRule, document: Document, path: KeyPath) -> None:
    def refuse(message: str, *keys: str | int) -> ConfigError:
        return ConfigError(f"rule {int(path[1]) + 1}: {message}", where=document.where((*path, *keys)))

    if rule.non_resource_urls and (rule.resources or rule.namespaces):
        raise refuse("a rule is about objects or about non-resource URLs, not both", "nonResourceURLs")
    for url in rule.non_resource_urls:
        if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
            raise refuse(f"`{url}`: a URL begins with `/`, and `*` may only be its last character", "nonResourceURLs")
    for position, resources in enumerate(rule.resources):
        here = ("resources", position)
        if resources.group == "*":
            raise refuse(
                "there is no wildcard for groups; without `resources` a rule is about all of them", *here, "group"
            )
        if resources.group and not _GROUP.fullmatch(resources.group):
            raise refuse(f"`{resources.group}` is no API group; write it without its version", *here, "group")
        if resources.resource_names and not resources.resources:
            raise refuse("`resourceNames` needs `resources`", *here, "resourceNames")
