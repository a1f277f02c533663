"""The smallest audit policy that feeds a set of rules at the least volume, as YAML with a comment on every rule.

What no rule could fire on comes first (level None), while that can be said without wildcards: URLs that are no objects, the
control plane's own identities, ignored namespaces. Then bodies where a rule reads them; then Metadata, grouped by verbs.
What no policy rule matches is not written: that is kube-apiserver's default, so there is no last rule.

Bodies of `api_objects.NEVER_WITH_BODIES` are left out, also where a rule with an `annotation` would read them: a log with
secret data in it is worse than an annotation on a Secret that nobody sees. The policy says so in a comment.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from forwarder.detection import request_space as space
from forwarder.detection.actors import globs
from forwarder.detection.api_objects import GROUPS, NEVER_WITH_BODIES, ApiObject, subresources_of
from forwarder.detection.policy import Level
from forwarder.detection.policy_text import Part, yaml_of
from forwarder.detection.rules import VERBS, Rule, RuleSet

CONTROL_PLANE_USERS = (
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:cloud-controller-manager",
    "system:kube-proxy",
    "system:k3s-controller",
    "system:rke2-controller",
)
CONTROL_PLANE_GROUPS = {
    "system:nodes": "system:node:",
    "system:serviceaccounts:kube-system": "system:serviceaccount:kube-system:",
}
"""Group -> how its users' names begin. These and the users above write most of a log, and people do not act through them:
what impersonates people (Rancher, Teleport, OIDC proxies) is installed in namespaces of its own."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that a rule must see, at which level. objects, users, namespaces: None is any; verbs too.

    An object here is (group, resource as policies write it); urls: non-resource URLs as well.
    """

    rule: str
    level: Level
    verbs: frozenset[str] | None
    objects: frozenset[tuple[str, str]] | None
    users: frozenset[str] | None
    namespaces: frozenset[str] | None
    urls: bool = False


def suggest(ruleset: RuleSet, *, drop_service_accounts: bool = False) -> str:
    """The policy as YAML. drop_service_accounts: of all namespaces; only where no service account acts for people."""
    demands = [_demand(rule) for rule in ruleset.rules]
    parts = [
        *_without_object(demands),
        *_of_the_control_plane(ruleset, drop_service_accounts),
        *_in_ignored_namespaces(ruleset, demands),
        *_written(demands),
    ]
    return yaml_of(parts, _header(ruleset, demands, drop_service_accounts))


def _header(ruleset: RuleSet, demands: list[Demand], drop_service_accounts: bool) -> list[str]:
    count = f"{len(ruleset.rules)} rule{'s' if len(ruleset.rules) != 1 else ''}"
    said = [
        f"What {count} of friction-forwarder read, and no more. `forwarder policy suggest` wrote it; `policy check` tries it.",
        "The first rule that matches a request decides; what none matches is not written.",
    ]
    if any(demand.level == "RequestResponse" for demand in demands):
        names = ", ".join(str(ApiObject(group, *_halves(word))) for group, word in NEVER_WITH_BODIES)
        said.append(
            f"No bodies of {names}: an annotation on one of these is not seen, and their secrets stay out of the log."
        )
    if drop_service_accounts:
        said.append("Right only where no service account acts for people (as Rancher, Teleport or an OIDC proxy does).")
    return said


def _halves(word: str) -> tuple[str, str]:
    resource, _, subresource = word.partition("/")
    return resource, subresource


def _demand(rule: Rule) -> Demand:
    match = rule.match
    literal_namespaces = match.namespaces and not any(map(_is_glob, match.namespaces))
    return Demand(
        rule=rule.name,
        level="RequestResponse" if space.needs_body(rule) or (match.names and _may_create(rule)) else "Metadata",
        verbs=rule.verbs or None,
        objects=_objects(rule),
        users=frozenset(match.users)
        if match.users and not any(map(_is_glob, match.users)) and not _via(rule)
        else None,
        namespaces=frozenset(match.namespaces) if literal_namespaces else None,
        urls=space.wants_urls(rule),
    )


def _via(rule: Rule) -> bool:
    """Whether a machine could bring somebody whom the rule names: the policy sees the machine."""
    return any(user != space.ANONYMOUS and not space.is_machine(user) for user in rule.match.users)


def _may_create(rule: Rule) -> bool:
    return (not rule.verbs or "create" in rule.verbs) and (not rule.subresources or "" in rule.subresources)


def _objects(rule: Rule) -> frozenset[tuple[str, str]] | None:
    """The objects by name; None where they cannot be named, because a policy knows no wildcard for groups."""
    found: set[tuple[str, str]] = set()
    if not rule.resources or "*" in rule.resources:
        return None
    for resource in rule.resources:
        groups: Iterable[str] = ["" if group == "core" else group for group in rule.match.api_groups]
        groups = groups or GROUPS.get(resource, ())
        if not groups:
            return None
        found |= {(group, word) for group in groups for word in _words(resource, rule.subresources)}
    return frozenset(found)


def _words(resource: str, subresources: frozenset[str]) -> list[str]:
    """How a policy names these parts of a resource; parts that Kubernetes does not have are left out, where others are."""
    known = subresources_of(resource)
    wanted = [sub for sub in sorted(subresources) if sub in known] or sorted(subresources)
    if not wanted:
        return [f"{resource}/*"]  # the object and every subresource, future ones too
    return [f"{resource}/{sub}" if sub else resource for sub in wanted]


# --- what is left out ------------------------------------------------------------------------------------------------


def _without_object(demands: list[Demand]) -> Iterator[Part]:
    """Only where a later rule would take them in: one that names objects is not about URLs anyway."""
    if any(demand.objects is None for demand in demands) and not any(demand.urls for demand in demands):
        yield Part(comment="URLs that are no objects: health checks, discovery, metrics.", level="None", urls=("*",))


def _of_the_control_plane(ruleset: RuleSet, drop_service_accounts: bool) -> Iterator[Part]:
    users = [user for user in CONTROL_PLANE_USERS if not any(_fires_on(rule, user) for rule in ruleset.rules)]
    groups = [name for name, prefix in CONTROL_PLANE_GROUPS.items() if not _fires_below(ruleset, prefix)]
    if drop_service_accounts and not _fires_below(ruleset, "system:serviceaccount:"):
        groups = [*(name for name in groups if "serviceaccounts" not in name), "system:serviceaccounts"]
    if users:
        comment = "The control plane itself. No rule fires on these, and nobody acts through them."
        yield Part(comment=comment, level="None", users=tuple(users))
    if groups:
        who = "every service account" if drop_service_accounts else "what runs in kube-system"
        yield Part(comment=f"Likewise kubelets and {who}.", level="None", groups=tuple(groups))


def _fires_on(rule: Rule, user: str) -> bool:
    return not rule.ignore_system and (not rule.match.users or globs(rule.match.users)(user))


def _fires_below(ruleset: RuleSet, prefix: str) -> bool:
    """Whether some rule could fire on a user whose name begins with `prefix`; in doubt it could."""
    for rule in ruleset.rules:
        heads = [re.split(r"[*?\[]", user)[0] for user in rule.match.users] or [""]
        if not rule.ignore_system and any(head.startswith(prefix) or prefix.startswith(head) for head in heads):
            return True
    return False


def _in_ignored_namespaces(ruleset: RuleSet, demands: list[Demand]) -> Iterator[Part]:
    """Left out, but not the Namespace objects themselves: deleting kube-system is no noise."""
    ignored = tuple(name for name in ruleset.ignore_namespaces if not _is_glob(name))
    if not ignored:
        return
    kept = [(demand, _namespaces_of(rule, demand)) for rule, demand in zip(ruleset.rules, demands, strict=True)]
    for part in _written([replace(demand, objects=objects) for demand, objects in kept if objects]):
        yield replace(part, comment=f"Namespaces themselves, though each counts as lying in itself. {part.comment}")
    yield Part(comment="Namespaces that the rules ignore.", level="None", namespaces=ignored)


def _namespaces_of(rule: Rule, demand: Demand) -> frozenset[tuple[str, str]]:
    """The Namespace objects, with their subresources, where the rule and its demand are about them."""
    if demand.objects is None:
        groups = {"" if group == "core" else group for group in rule.match.api_groups} or {""}
        return frozenset((group, "namespaces/*") for group in groups if group == "" or "namespaces" in rule.resources)
    return frozenset((group, "namespaces/*") for group, word in demand.objects if _halves(word)[0] == "namespaces")


def _is_glob(text: str) -> bool:
    return any(char in text for char in "*?[")


# --- what is written -------------------------------------------------------------------------------------------------


def _written(demands: list[Demand]) -> Iterator[Part]:
    """Most detailed first, so that no later rule takes anything away from an earlier one."""
    bodies = [demand for demand in demands if demand.level == "RequestResponse"]
    guarded = [replace(demand, objects=_guarded(demand)) for demand in bodies]
    yield from _merged([demand for demand in guarded if demand.objects], "Metadata", "Never the bodies of these.")
    yield from _merged(bodies, "RequestResponse", "With bodies: what is asked for may stand there only.")
    yield from _merged(_uncovered(demands), "Metadata", "")


def _guarded(demand: Demand) -> frozenset[tuple[str, str]]:
    """Of what the demand is about, the objects whose bodies are left out."""
    asked = demand.objects
    return frozenset(
        (group, word)
        for group, word in NEVER_WITH_BODIES
        if asked is None or (group, word) in asked or (group, f"{_halves(word)[0]}/*") in asked
    )


def _uncovered(demands: list[Demand]) -> list[Demand]:
    """Those for level Metadata, without the verbs that a wider demand asks for anyway."""
    left: list[Demand] = []
    for demand in demands:
        if demand.level != "Metadata":
            continue
        wider = [other.verbs for other in demands if _covers(other, demand)]
        if None in wider:
            continue
        taken = frozenset(verb for verbs in wider for verb in verbs or ())
        if demand.verbs is None or demand.verbs - taken:
            left.append(replace(demand, verbs=demand.verbs - taken if demand.verbs is not None else None))
    return left


def _covers(wide: Demand, narrow: Demand) -> bool:
    """Whether `wide`, verbs apart, is about everything that `narrow` is about; and about more, or with bodies."""
    if narrow.urls and not wide.urls:
        return False
    outer: tuple[frozenset[Any] | None, ...] = (wide.objects, wide.users, wide.namespaces)
    inner: tuple[frozenset[Any] | None, ...] = (narrow.objects, narrow.users, narrow.namespaces)
    holds = all(one is None or (other is not None and other <= one) for one, other in zip(outer, inner, strict=True))
    return holds and (outer != inner or wide.level != narrow.level)


def _merged(demands: list[Demand], level: Level, comment: str) -> Iterator[Part]:
    """As few rules as say exactly this: for each set of users and places, objects with the same verbs together."""
    sides: dict[tuple[frozenset[str] | None, frozenset[str] | None], list[Demand]] = {}
    for demand in demands:
        sides.setdefault((demand.users, demand.namespaces), []).append(demand)
    for (users, places), alike in sides.items():
        verbs_of: dict[tuple[str, str] | None, frozenset[str] | None] = {}
        feeds: dict[tuple[str, str] | None, set[str]] = {}
        for demand in alike:
            for one in demand.objects if demand.objects is not None else (None,):
                before = verbs_of.get(one, frozenset())
                verbs_of[one] = None if before is None or demand.verbs is None else before | demand.verbs
                feeds.setdefault(one, set()).add(demand.rule)
        together: dict[tuple[bool, frozenset[str] | None], list[tuple[str, str] | None]] = {}
        for one, verbs in verbs_of.items():
            together.setdefault((one is None, verbs), []).append(one)
        for (_, verbs), objects in together.items():
            rules = sorted(set().union(*(feeds[one] for one in objects)))
            yield Part(
                comment=f"{comment} For {', '.join(rules)}.".strip(),
                level=level,
                users=tuple(sorted(users or ())),
                namespaces=tuple(sorted(places or ())),
                verbs=tuple(sorted(verbs or (), key=VERBS.index)),
                objects=tuple(sorted(one for one in objects if one is not None)),
            )
