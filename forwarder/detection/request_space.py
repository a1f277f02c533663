"""Every kind of request that a rule could fire on, as far as an audit policy can tell requests apart.

Rules use globs, policies compare exactly: so one stand-in for all names that neither mentions, besides each name that one
of them does, is enough to try a policy on. Each side of a request (who, verb, where, what) is listed on its own.

Assumed: only nodes are in the group system:nodes, and only service accounts in system:serviceaccounts; everybody who was
authenticated is in system:authenticated. A person whom a machine impersonates is authenticated as the machine: such
requests are not in here, see `coverage`.
"""

import re
from collections.abc import Callable, Iterable, Iterator

import msgspec

from forwarder.detection.actors import ROBOTS, globs, machine_test
from forwarder.detection.api_objects import (
    ANY_GROUP,
    ANY_RESOURCE,
    CLUSTER_WIDE,
    GROUPS,
    NAMESPACED,
    URL_VERBS,
    ApiObject,
    subresources_of,
    verbs_of,
)
from forwarder.detection.policy import Policy
from forwarder.detection.rules import Rule

SOMEBODY = "somebody"  # stands for every person whom neither the rule nor the policy names
SOMEWHERE = "somewhere"  # and for every such namespace, name and path
ANONYMOUS = "system:anonymous"
_MACHINE_GROUP = re.compile(r"system:(nodes|serviceaccounts|bootstrappers|unauthenticated)(:.*)?")

# Audit annotations, which kube-apiserver and its admission plugins write into the event itself, at every level.
_EVENT_ANNOTATION = re.compile(
    r"((authorization|authentication|audit|imagepolicywebhook\.image-policy)\.k8s\.io"
    r"|pod-security\.kubernetes\.io|(mutation|patch)\.webhook\.admission\.k8s\.io|validation\.policy\.admission\.k8s\.io"
    r"|apiserver\.latency\.k8s\.io|k8s\.io)/.*"
)

is_machine = machine_test(ROBOTS)


class Identity(msgspec.Struct, frozen=True):
    """An authenticated user."""

    user: str
    groups: tuple[str, ...]

    def __str__(self) -> str:
        named = [group for group in self.groups if group not in ("system:authenticated", "system:unauthenticated")]
        return self.user if self.user != SOMEBODY or not named else f"members of {named[0]}"


def needs_body(rule: Rule) -> bool:
    """Whether only a body can show what the rule asks for. Known audit annotations stand in the event itself."""
    return rule.annotation is not None and not _EVENT_ANNOTATION.fullmatch(rule.annotation[0])


def wants_urls(rule: Rule) -> bool:
    """Whether a request for a non-resource URL (`/version`) could fire it."""
    match = rule.match
    about_objects = (rule.resources, rule.subresources, match.namespaces, match.names, match.api_groups)
    return not any(about_objects) and match.namespace_contains is None and not needs_body(rule)


def identities(rule: Rule, policy: Policy) -> list[Identity]:
    """Who could fire it: each user and each group that the policy names, and somebody whom it does not."""
    wanted = globs(rule.match.users) if rule.match.users else _any
    ignored = globs(rule.match.ignore_users)
    member = globs(rule.match.groups) if rule.match.groups else _any
    users = dict.fromkeys(user for one in policy.rules for user in one.users)
    users |= dict.fromkeys(example for glob in rule.match.users for example in examples(glob))
    users |= dict.fromkeys((SOMEBODY, f"{SOMEBODY}@example.com", ANONYMOUS, "system:kube-scheduler", "system:node:any"))
    users |= dict.fromkeys(("system:serviceaccount:default:any", "system:serviceaccount:kube-system:any"))
    groups = dict.fromkeys(group for one in policy.rules for group in one.user_groups)
    groups |= dict.fromkeys(example for glob in rule.match.groups for example in examples(glob))
    found: list[Identity] = []
    for user in users:
        if not wanted(user) or ignored(user) or (rule.ignore_system and is_machine(user)):
            continue
        own = _own_groups(user)
        sets = [own, *([(*own, group) for group in groups if _may_join(user, group, own)])]
        found += [Identity(user, names) for names in sets if any(map(member, names))]
    return found


def verbs(rule: Rule, subresource: str) -> tuple[str, ...]:
    """The verbs with which it could fire on such an object; those that the rule names, should the API have none of them."""
    possible = verbs_of(subresource)
    if not rule.verbs:
        return possible
    return tuple(verb for verb in possible if verb in rule.verbs) or tuple(sorted(rule.verbs))


def url_verbs(rule: Rule) -> tuple[str, ...]:
    """The same for non-resource URLs."""
    return tuple(verb for verb in URL_VERBS if not rule.verbs or verb in rule.verbs)


def urls(policy: Policy) -> list[str]:
    """Each non-resource URL that the policy names, one below each that it ends in `*`, and another."""
    named = [
        url.rstrip("*") + (SOMEWHERE if url.endswith("*") else "")
        for one in policy.rules
        for url in one.non_resource_urls
    ]
    return list(dict.fromkeys([*named, f"/{SOMEWHERE}"]))


def objects(rule: Rule, policy: Policy) -> list[ApiObject]:
    """What it could fire on, without names: its own resources, or all known ones and those that the policy names."""
    named = [
        (one.group, *_halves(word)) for pr in policy.rules for one in pr.resources for word in one.resources or ("*",)
    ]
    own = sorted(rule.resources - {"*"})
    resources = own or [*GROUPS, *(word for _, word, _ in named if word != "*"), ANY_RESOURCE]
    found: dict[ApiObject, None] = {}
    for resource in dict.fromkeys(resources):
        known = [*subresources_of(resource)]
        if resource not in GROUPS:
            known += [sub for _, word, sub in named if word in ("*", resource) and sub != "*"]
        wanted = [sub for sub in dict.fromkeys(known) if not rule.subresources or sub in rule.subresources]
        if not wanted and (own or resource == ANY_RESOURCE):
            wanted = sorted(rule.subresources)  # none that is known: what the rule says must be right then
        for group in _groups(rule, resource, named):
            found |= dict.fromkeys(ApiObject(group, resource, sub) for sub in wanted)
    return list(found)


def _groups(rule: Rule, resource: str, named: list[tuple[str, str, str]]) -> list[str]:
    """The API groups in which it could fire on a resource."""
    asked = ["" if group == "core" else group for group in rule.match.api_groups]
    known = list(GROUPS.get(resource, ()))
    if resource in rule.resources:
        return asked or known or list(dict.fromkeys([*(group for group, _, _ in named), ANY_GROUP]))
    if resource == ANY_RESOURCE:
        return asked or list(dict.fromkeys([*(group for group, _, _ in named), ANY_GROUP]))
    groups = known or list(dict.fromkeys(group for group, word, _ in named if word == resource))
    return [group for group in groups if not asked or group in asked]


def _halves(word: str) -> tuple[str, str]:
    resource, _, subresource = word.partition("/")
    return resource, subresource


def names(rule: Rule, policy: Policy, asked: ApiObject, verb: str) -> list[str]:
    """The names that a request for it may have in its URL: none for a create or a deletecollection of the object itself."""
    if not asked.subresource and verb in ("create", "deletecollection"):
        return [""]
    wanted = globs(rule.match.names) if rule.match.names else _any
    named = [name for pr in policy.rules for one in pr.resources for name in one.resource_names]
    mentioned = [*named, *(example for glob in rule.match.names for example in examples(glob)), SOMEWHERE]
    found = [name for name in dict.fromkeys(mentioned) if wanted(name)]
    return ["", *found] if verb in ("list", "watch") else found


def namespaces(rule: Rule, policy: Policy, ruleset_ignored: Iterable[str], asked: ApiObject, verb: str) -> list[str]:
    """Where it could fire; "" is cluster-wide. A request for a Namespace object carries the object's name as namespace."""
    match = rule.match
    no_name = not asked.subresource and verb in ("create", "list", "watch", "deletecollection")
    if asked.resource in CLUSTER_WIDE and (asked.resource != "namespaces" or no_name):
        candidates = [""]
    else:
        mentioned = [name for one in policy.rules for name in one.namespaces if name]
        globbed = [example for glob in match.namespaces for example in examples(glob)]
        part = [match.namespace_contains] if match.namespace_contains else []
        candidates = [*mentioned, *globbed, *part, SOMEWHERE]
        if asked.resource not in NAMESPACED | {"namespaces"} or verb in ("list", "watch"):
            candidates.append("")
    ignored = globs([*match.ignore_namespaces, *ruleset_ignored])
    wanted = globs(match.namespaces) if match.namespaces else _any
    text = (match.namespace_contains or "").casefold()
    return [
        name
        for name in dict.fromkeys(candidates)
        if wanted(name)
        and text in name.casefold()
        and (asked.resource == "namespaces" or not name or not ignored(name))
    ]


def examples(glob: str) -> Iterator[str]:
    """Two texts that a glob matches; none where they would have to be guessed."""
    for filling in ("", "any"):
        text = re.sub(r"\[!?([^\]])[^\]]*\]", r"\1", glob.replace("*", filling).replace("?", "x"))
        if globs([glob])(text):
            yield text


def _own_groups(user: str) -> tuple[str, ...]:
    if user == ANONYMOUS:
        return ("system:unauthenticated",)
    parts = user.split(":")
    if user.startswith("system:serviceaccount:") and len(parts) == 4:
        return ("system:serviceaccounts", f"system:serviceaccounts:{parts[2]}", "system:authenticated")
    return ("system:nodes", "system:authenticated") if user.startswith("system:node:") else ("system:authenticated",)


def _may_join(user: str, group: str, own: tuple[str, ...]) -> bool:
    """Whether an administrator could have put the user into the group."""
    return (
        group not in own
        and user != ANONYMOUS
        and not user.startswith("system:serviceaccount:")
        and not _MACHINE_GROUP.fullmatch(group)
    )


_any: Callable[[str], bool] = lambda name: True  # noqa: E731 - a condition that is absent
