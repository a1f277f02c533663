"""Which rules an audit policy feeds: `fed` sees every request that it should, `partly` not all, `never` none.

    for one in coverage(load_rules(["rules"]), load_policy("audit-policy.yaml")):
        one.rule, one.verdict, one.findings

A rule is looked at by itself, as if no other rule were there that it yields to. For each kind of request that it could fire
on (`request_space`) the first matching rule of the policy is found by bit masks: bit i of a name's mask says that policy
rule i takes it, and the lowest bit that all sides of a request share is the rule that decides.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from forwarder.detection import request_space as space
from forwarder.detection.api_objects import NEVER_WITH_BODIES, ApiObject
from forwarder.detection.matcher import LONG_RUNNING
from forwarder.detection.policy import Asked, Decision, Policy
from forwarder.detection.request_space import Identity
from forwarder.detection.rules import Rule, RuleSet

Verdict = Literal["fed", "partly", "never"]
MAX_NAMED = 4  # of each kind in a finding; a policy that drops 60 resources is told by the first few


class Finding(msgspec.Struct, frozen=True):
    """Something that a rule does not see. lost: nothing is left of it; else a part, or it comes late.

    what: `get, create on pods/exec`. why: which policy rule, and what it does.
    """

    lost: bool
    what: str
    why: str


class Coverage(msgspec.Struct, frozen=True):
    """What a policy leaves of one rule."""

    rule: str
    verdict: Verdict
    findings: tuple[Finding, ...]


class _Kind(msgspec.Struct, frozen=True):
    """Requests that a policy cannot tell apart, and the names that stand for them.

    mask: of the policy rules that match. created: the object itself is created, so its name may be made by the server.
    """

    mask: int
    verb: str
    who: tuple[str, ...]
    where: tuple[str, ...]
    what: tuple[str, ...]
    long_running: bool = False
    created: bool = False


def coverage(ruleset: RuleSet, policy: Policy) -> list[Coverage]:
    """One for each rule, in the order of the files."""
    return [_of_rule(rule, policy, ruleset.ignore_namespaces) for rule in ruleset.rules]


def notes(ruleset: RuleSet, policy: Policy) -> list[str]:
    """What an operator should know besides: people behind machines, secrets in the log, lines that nobody reads."""
    said: list[str] = []
    people_count = any(rule.ignore_system for rule in ruleset.rules)
    for position, rule in enumerate(policy.rules):
        accounts = [name for name in [*rule.users, *rule.user_groups] if _is_service_account(name)]
        if rule.level == "None" and accounts and people_count:
            said.append(
                f"{policy.place(position)} drops {_listed(accounts)}: people who come through such an account "
                "(Rancher, Teleport, an OIDC proxy) are not seen"
            )
    exposed = {
        str(ApiObject(group, *_two(resource))): policy.place(decision.rule)
        for group, resource in NEVER_WITH_BODIES
        for verb in ("create", "update", "get")
        if (decision := _for_somebody(policy, ApiObject(group, *_two(resource)), verb)).level.startswith("Request")
    }
    for name, place in exposed.items():
        said.append(f"{place} writes the bodies of {name} into the log, in clear; level Metadata says enough")
    logged = [position for position, rule in enumerate(policy.rules) if rule.level != "None"]
    if any("RequestReceived" not in policy.decision(position).omitted for position in logged):
        said.append("RequestReceived is not in `omitStages`: no rule reads that stage, and it is up to half of the log")
    return said


def _of_rule(rule: Rule, policy: Policy, ignored: Iterable[str]) -> Coverage:
    total = 0
    seen: dict[tuple[bool, str], list[_Kind]] = {}
    kinds = list(_kinds(rule, policy, tuple(ignored)))
    for kind in kinds:
        total += 1
        position = (kind.mask & -kind.mask).bit_length() - 1
        problem = _problem(rule, policy, policy.decision(position), kind)
        if problem:
            seen.setdefault(problem, []).append(kind)
    lost = sum(len(found) for (is_lost, _), found in seen.items() if is_lost)
    verdict: Verdict = "never" if lost == total else "partly" if seen else "fed"
    findings = tuple(Finding(is_lost, _described(found, kinds), why) for (is_lost, why), found in seen.items())
    return Coverage(rule.name, verdict, findings)


def _kinds(rule: Rule, policy: Policy, ignored: tuple[str, ...]) -> Iterator[_Kind]:
    def masked(items: Iterable[str], takes: Callable[[int, str], bool]) -> dict[int, list[str]]:
        groups: dict[int, list[str]] = {}
        for item in items:
            groups.setdefault(_mask(policy, lambda position, item=item: takes(position, item)), []).append(item)  # type: ignore[misc]
        return groups

    who: dict[int, list[str]] = {}
    for one in space.identities(rule, policy):
        who.setdefault(_of_identity(policy, one), []).append(str(one))
    whats: dict[tuple[int, str, tuple[str, ...], bool, bool], list[str]] = {}
    for asked in space.objects(rule, policy):
        for verb in space.verbs(rule, asked.subresource):
            where = tuple(space.namespaces(rule, policy, ignored, asked, verb))
            long_running = verb in ("watch", "proxy") or asked.subresource in LONG_RUNNING
            created = verb == "create" and not asked.subresource
            for name in space.names(rule, policy, asked, verb):
                named = msgspec.structs.replace(asked, name=name)
                shown = asked if name in ("", space.SOMEWHERE) else named
                mask = _mask(policy, lambda i, named=named: policy.rules[i].takes_object(named))  # type: ignore[misc]
                whats.setdefault((mask, verb, where, long_running, created), []).append(str(shown))
    by_place: dict[tuple[str, ...], dict[int, list[str]]] = {}
    for (mask, verb, where, long_running, created), what in whats.items():
        if where not in by_place:
            by_place[where] = masked(where, lambda i, name: policy.rules[i].takes_namespace(name))
        verb_mask = _mask(policy, lambda i, verb=verb: policy.rules[i].takes_verb(verb))  # type: ignore[misc]
        for who_mask, people in who.items():
            for where_mask, places in by_place[where].items():
                together = mask & verb_mask & who_mask & where_mask
                yield _Kind(
                    together, verb, tuple(people), tuple(places), tuple(dict.fromkeys(what)), long_running, created
                )
    if space.wants_urls(rule):
        paths = masked(space.urls(policy), lambda i, path: policy.rules[i].takes_url(path))
        for verb in space.url_verbs(rule):
            verb_mask = _mask(policy, lambda i, verb=verb: policy.rules[i].takes_verb(verb))  # type: ignore[misc]
            for who_mask, people in who.items():
                for mask, found in paths.items():
                    shown_paths = tuple("any other URL" if path == f"/{space.SOMEWHERE}" else path for path in found)
                    yield _Kind(mask & verb_mask & who_mask, verb, tuple(people), (), shown_paths)


def _problem(rule: Rule, policy: Policy, decision: Decision, kind: _Kind) -> tuple[bool, str] | None:
    """(whether all is lost, why), or None."""
    if decision.level == "None":
        return (
            True,
            f"{policy.place(decision.rule)} drops it" if decision.rule >= 0 else "no rule of the policy matches it",
        )
    place = policy.place(decision.rule)
    stages = {"ResponseComplete"}
    if kind.long_running and "allowed" in rule.outcomes:
        stages |= {"ResponseStarted", "Panic"}
    if "failed" in rule.outcomes:
        stages.add("Panic")
    if stages <= decision.omitted:
        return True, f"{place} omits the stage {_listed(sorted(stages))}"
    if space.needs_body(rule):
        if decision.level == "Metadata":
            return True, f"{place} has level Metadata, and that has no bodies to find the annotation in"
        if decision.level == "Request":
            return False, f"{place} has level Request: an annotation that the object has already is not seen"
    if rule.match.names and kind.created and decision.level != "RequestResponse":
        return False, f"{place} has level {decision.level}: a name that the server makes (generateName) is not seen"
    missing = stages & decision.omitted
    if "ResponseComplete" in missing:
        told = "is reported when it opens, and never completed" if kind.long_running else "is seen only where it panics"
        return False, f"{place} omits ResponseComplete: it {told}"
    if "ResponseStarted" in missing:
        return False, f"{place} omits ResponseStarted: it is reported only when it ends"
    return (False, f"{place} omits Panic: what crashes in the server is not seen") if missing else None


def _mask(policy: Policy, takes: Callable[[int], bool]) -> int:
    return sum(1 << position for position in range(len(policy.rules)) if takes(position))


def _of_identity(policy: Policy, one: Identity) -> int:
    return _mask(policy, lambda i: policy.rules[i].takes_user(one.user, one.groups))


def _for_somebody(policy: Policy, asked: ApiObject, verb: str) -> Decision:
    request = Asked(
        user=space.SOMEBODY, groups=("system:authenticated",), verb=verb, namespace=space.SOMEWHERE, object=asked
    )
    return policy.decide(request)


def _is_service_account(name: str) -> bool:
    """Whether it names service accounts outside kube-system, where what impersonates people is installed."""
    parts = name.split(":")
    return (
        parts[0] == "system"
        and parts[1:2] in (["serviceaccounts"], ["serviceaccount"])
        and parts[2:3] != ["kube-system"]
    )


# --- words -----------------------------------------------------------------------------------------------------------


def _described(found: list[_Kind], everything: list[_Kind]) -> str:
    """`get on pods/exec, in kube-public, by members of dev`: a side is named only where the others of it are not meant."""
    verbs = _distinct([(kind.verb,) for kind in found])
    what = _distinct([kind.what for kind in found])
    text = f"{_listed(verbs)} on {_listed(what)}"
    alike = [kind for kind in everything if not set(what).isdisjoint(kind.what)]
    where = _distinct([kind.where for kind in found])
    if set(where) != set(_distinct([kind.where for kind in alike])):
        text += f", in {_listed(['other namespaces' if name == space.SOMEWHERE else name or 'no namespace' for name in where])}"
    who = _distinct([kind.who for kind in found])
    if set(who) != set(_distinct([kind.who for kind in alike])):
        people = ["anybody else" if name.startswith(space.SOMEBODY) else name for name in who]
        text += f", by {_listed(list(dict.fromkeys(people)))}"
    return text


def _distinct(names: Iterable[tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(name for some in names for name in some))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"


def _two(resource: str) -> tuple[str, str]:
    name, _, subresource = resource.partition("/")
    return name, subresource
