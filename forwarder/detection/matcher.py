"""Rules compiled: static conditions by which the rules are sorted beforehand, dynamic ones asked per event.

Static conditions read only `Static` (is it a machine, who, verb, resource, subresource, namespace); a line's fast path
can read those in place. Everything else is dynamic and needs the decoded event. Machine or person, verb and resource
are two look-ups, so the cost of a line depends on the rules that name what it is about, not on how many are loaded, and
nobody can make it larger by inventing names. There is nothing to remember here; the screen remembers answers.

Every predicate answers with the reason why the rule does not match, or None: `explain` and matching share one truth.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from forwarder.detection.actors import Actor, globs
from forwarder.detection.rules import Rule, RuleSet
from forwarder.events.audit import AuditEvent, annotations_of

LONG_RUNNING = frozenset(
    {"attach", "exec", "log", "portforward", "proxy"}
)  # subresources; the verbs are watch and proxy


class Static(msgspec.Struct, frozen=True, gc=False):
    """What static conditions may read. `resource` is None for a non-resource URL. `actor` as actors.resolve gives it."""

    machine: bool
    actor: str
    verb: str
    resource: str | None
    subresource: str
    namespace: str


class Request(msgspec.Struct, frozen=True):
    """What dynamic conditions may read."""

    event: AuditEvent
    actor: Actor
    outcome: str
    name: str


Reason = str | None
StaticTest = Callable[[Static], Reason]
DynamicTest = Callable[[Request], Reason]


class Compiled(msgspec.Struct, frozen=True):
    """A rule and its predicates, cheapest first. static: all of them; it is the sum of what Index sorts rules by and of
    `of_user`, which reads the actor only, and `of_object`.
    """

    rule: Rule
    static: tuple[StaticTest, ...]
    of_user: tuple[StaticTest, ...]
    of_object: tuple[StaticTest, ...]
    dynamic: tuple[DynamicTest, ...]

    def static_reason(self, static: Static) -> Reason:
        for test in self.static:
            reason = test(static)
            if reason is not None:
                return reason
        return None

    def dynamic_reason(self, request: Request) -> Reason:
        for test in self.dynamic:
            reason = test(request)
            if reason is not None:
                return reason
        return None


class Opening:
    """The rules that a machine, or a person, can match with one verb; their other static conditions are still to be asked."""

    __slots__ = ("_about", "_named", "_other", "_rules", "_users")

    def __init__(self, rules: Sequence[Compiled]) -> None:
        """rules: in evaluation order."""
        self._rules = rules
        self._other = tuple(position for position, r in enumerate(rules) if _takes_any(r.rule.resources))
        self._named: dict[str | None, list[int]] = {}
        for position, compiled in enumerate(rules):
            for resource in compiled.rule.resources:
                self._named.setdefault(resource, []).append(position)
        self._about: dict[str | None, tuple[Compiled, ...]] = {}  # filled when asked for, as names come up
        # what they ask of the user, each question once; None where some rule takes everybody
        users = {(*c.rule.match.users, "", *c.rule.match.ignore_users): c.of_user for c in rules}
        self._users = None if not all(users.values()) else tuple(users.values())

    def _asked(self, resource: str | None) -> tuple[Compiled, ...]:
        """The rules that take this resource."""
        key = resource if resource in self._named else None
        found = self._about.get(key)
        if found is None:
            positions = sorted({*self._named.get(key, ()), *self._other})
            found = self._about[key] = tuple(self._rules[position] for position in positions)
        return found

    def candidates(self, static: Static) -> tuple[Compiled, ...]:
        """Those whose static conditions hold, in evaluation order."""
        rules = self._asked(static.resource)
        if not rules:
            return rules
        return tuple([r for r in rules if _holds(r.of_object, static) and _holds(r.of_user, static)])

    def possible(self, static: Static) -> bool:
        """Whether any could match some request of this actor, whatever its object."""
        if self._users is None:
            return True
        return any(_holds(tests, static) for tests in self._users)


class Index:
    """All rules of a set, in evaluation order: a rule stands behind those that it may yield to."""

    def __init__(self, ruleset: RuleSet, own_namespace: str = "") -> None:
        ignored = (*ruleset.ignore_namespaces, *([own_namespace] if own_namespace else []))
        self.rules = tuple(compile_rule(rule, ignored) for rule in ruleset.order())
        self.file_order = {rule.name: position for position, rule in enumerate(ruleset.rules)}
        verbs = {verb for compiled in self.rules for verb in compiled.rule.verbs}
        self._openings = {(machine, verb): self._sorted(machine, verb) for machine in (False, True) for verb in verbs}
        self._other_verbs = {machine: self._sorted(machine, None) for machine in (False, True)}

    def _sorted(self, machine: bool, verb: str | None) -> Opening:
        """The opening of a verb; of None that of every verb which no rule names."""
        return Opening(
            [
                compiled
                for compiled in self.rules
                if not (machine and compiled.rule.ignore_system)
                and (not compiled.rule.verbs or verb in compiled.rule.verbs)
            ]
        )

    def opening(self, machine: bool, verb: str) -> Opening:
        """What is left of the rules where it is known who asks, and how."""
        return self._openings.get((machine, verb)) or self._other_verbs[machine]

    def candidates(self, static: Static) -> tuple[Compiled, ...]:
        """The rules whose static conditions hold, in evaluation order."""
        return self.opening(static.machine, static.verb).candidates(static)

    def fired(self, static: Static, request: Request) -> list[Rule]:
        """The rules that fire on a request, in the order of their files."""
        matched: list[Rule] = []
        for compiled in self.candidates(static):
            if compiled.dynamic_reason(request) is None and not _yields(compiled.rule, matched):
                matched.append(compiled.rule)
        if len(matched) > 1:
            matched.sort(key=lambda rule: self.file_order[rule.name])
        return matched


def static_of(event: AuditEvent, actor: Actor) -> Static:
    """The static facts of a decoded event."""
    reference = event.object_ref
    if reference is None:
        return Static(actor.machine, actor.name, event.verb, None, "", "")
    return Static(actor.machine, actor.name, event.verb, reference.resource, reference.subresource, reference.namespace)


def long_running(event: AuditEvent) -> bool:
    """Whether kube-apiserver audits this request in two stages, ResponseStarted and ResponseComplete."""
    subresource = event.object_ref.subresource if event.object_ref else ""
    return event.verb in ("watch", "proxy") or subresource in LONG_RUNNING


def yields_to(rule: Rule, matched: Iterable[Rule]) -> str:
    """The name of the first fired rule that `rule` yields to, or ""."""
    for other in matched:
        if other.name in rule.unless or ("*" in rule.unless and "*" not in other.unless):
            return other.name
    return ""


def _yields(rule: Rule, matched: Sequence[Rule]) -> bool:
    return bool(rule.unless and matched and yields_to(rule, matched))


def _takes_any(resources: frozenset[str]) -> bool:
    return not resources or "*" in resources


def _holds(tests: tuple[StaticTest, ...], static: Static) -> bool:
    for test in tests:  # noqa: SIM110 - `all` makes a generator, which costs as much as a test
        if test(static) is not None:
            return False
    return True


# --- conditions ------------------------------------------------------------------------------------------------------


def compile_rule(rule: Rule, ignored_namespaces: tuple[str, ...]) -> Compiled:
    """The predicates of one rule; ignored_namespaces: on top of its own."""
    match = rule.match
    of_object: list[StaticTest] = []
    of_user: list[StaticTest] = []
    sorted_by: list[StaticTest] = []  # Index has sorted rules by it, and by verb and machine, and need not ask again
    if rule.resources:
        (of_object if "*" in rule.resources else sorted_by).append(_resource(rule.resources))
    if match.ignore_resources:
        of_object.append(_not_resources(match.ignore_resources))
    if rule.subresources:
        of_object.append(_subresource(rule.subresources))
    ignored = (*ignored_namespaces, *match.ignore_namespaces)
    if ignored:
        of_object.append(_not_namespaces(ignored))
    if match.namespaces:
        of_object.append(_namespaces(match.namespaces))
    if match.namespace_contains is not None:
        of_object.append(_namespace_contains(match.namespace_contains))
    static = [*sorted_by, *of_object]
    if rule.verbs:
        static.append(_verb(rule.verbs))
    if rule.ignore_system:
        static.append(_person)
    if match.users:
        of_user.append(_users(match.users))
    if match.ignore_users:
        of_user.append(_not_users(match.ignore_users))
    dynamic: list[DynamicTest] = [_outcomes(rule.outcomes)]
    if match.impersonated is not None:
        dynamic.append(_impersonated(match.impersonated))
    if match.names:
        dynamic.append(_names(match.names))
    if match.api_groups:
        dynamic.append(_api_groups(match.api_groups))
    if match.groups:
        dynamic.append(_groups(match.groups))
    if rule.annotation is not None:
        dynamic.append(_annotation(*rule.annotation))
    return Compiled(rule, (*static, *of_user), tuple(of_user), tuple(of_object), tuple(dynamic))


def _resource(wanted: frozenset[str]) -> StaticTest:
    if "*" in wanted:
        return lambda s: None if s.resource is not None else "it is a non-resource URL"
    return lambda s: None if s.resource in wanted else f"resource is {s.resource or 'none'}"


def _verb(wanted: frozenset[str]) -> StaticTest:
    return lambda s: None if s.verb in wanted else f"verb is {s.verb}"


def _not_resources(words: Sequence[str]) -> StaticTest:
    ignored = frozenset(words)
    return lambda s: f"resource {s.resource} is ignored" if s.resource in ignored else None


def _subresource(wanted: frozenset[str]) -> StaticTest:
    return lambda s: None if s.subresource in wanted else f"subresource is {s.subresource or 'none'}"


def _person(s: Static) -> Reason:
    return f"{s.actor} is a machine" if s.machine else None


def _not_namespaces(patterns: Sequence[str]) -> StaticTest:
    ignored = globs(patterns)

    def test(s: Static) -> Reason:
        # a Namespace object carries its own name as namespace, yet is cluster-scoped: deleting kube-system is no noise
        if s.resource == "namespaces" or not s.namespace:
            return None
        return f"namespace {s.namespace} is ignored" if ignored(s.namespace) else None

    return test


def _namespaces(patterns: Sequence[str]) -> StaticTest:
    wanted = globs(patterns)
    return lambda s: None if wanted(s.namespace) else f"namespace is {s.namespace or 'none'}"


def _namespace_contains(text: str) -> StaticTest:
    part = text.casefold()
    return lambda s: None if part in s.namespace.casefold() else f"namespace {s.namespace or 'none'} lacks {text!r}"


def _users(patterns: Sequence[str]) -> StaticTest:
    wanted = globs(patterns)
    return lambda s: None if wanted(s.actor) else f"actor is {s.actor}"


def _not_users(patterns: Sequence[str]) -> StaticTest:
    ignored = globs(patterns)
    return lambda s: f"actor {s.actor} is ignored" if ignored(s.actor) else None


def _outcomes(wanted: frozenset[str]) -> DynamicTest:
    def test(r: Request) -> Reason:
        if r.outcome in wanted:
            return None
        # the handler of an open session panicked: its start was reported, so its end belongs to the same event
        if r.event.stage == "Panic" and "allowed" in wanted and long_running(r.event):
            return None
        return f"outcome is {r.outcome}"

    return test


def _impersonated(wanted: bool) -> DynamicTest:
    def test(r: Request) -> Reason:
        if (r.event.impersonated_user is not None) is wanted:
            return None
        return "nobody was impersonated" if wanted else "somebody was impersonated"

    return test


def _names(patterns: Sequence[str]) -> DynamicTest:
    wanted = globs(patterns)
    return lambda r: None if wanted(r.name) else f"name is {r.name or 'none'}"


def _api_groups(words: Sequence[str]) -> DynamicTest:
    wanted = frozenset("" if word == "core" else word for word in words)

    def test(r: Request) -> Reason:
        group = r.event.object_ref.api_group if r.event.object_ref else ""
        return None if group in wanted else f"API group is {group or 'core'}"

    return test


def _groups(patterns: Sequence[str]) -> DynamicTest:
    wanted = globs(patterns)
    return lambda r: None if any(map(wanted, r.actor.groups)) else "the actor is in none of the groups"


def _annotation(key: str, value: str) -> DynamicTest:
    def test(r: Request) -> Reason:
        event = r.event
        if event.annotations.get(key) == value:
            return None
        name = key.rpartition("/")[2].encode()
        for body in (event.response_object, event.request_object):
            # a JSON Patch writes `/` as `~1`, an escape may write any letter as \uXXXX: only the part behind it is looked for
            if (name in bytes(body) or b"\\u" in bytes(body)) and annotations_of(body).get(key) == value:
                return None
        return f"no annotation {key}={value}"

    return test
