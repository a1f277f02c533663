"""Reads rules files, strictly: what cannot be meant is refused with file, line, rule and the nearest valid word.

A rule that silently matches nothing, or everything, is worse than a program that does not start.
"""

import difflib
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from forwarder.detection.rules import (
    OUTCOMES,
    SYSTEM_NAMESPACES,
    TOKENS,
    VERBS,
    WORKFLOWS,
    MatchSpec,
    Rule,
    RuleFile,
    RuleSet,
    RuleSpec,
    default_points,
)
from forwarder.errors import ConfigError
from forwarder.settings import Document, KeyPath, convert, nearest, read_document, shipped

MAX_RULES = 10_000  # cost per line does not depend on it, start-up and reload do

Refuse = Callable[..., ConfigError]
"""Makes the error: message, then the keys inside the rule at which it stands."""

_NAME = re.compile(r"[a-z0-9-]{3,50}")  # Healert's bound on an event's type
_ADMISSION_VERB = "connect"

# Kubernetes' own resources, for telling `Pod`, `deploy` and `configmap` from what was meant; others are taken as they are
RESOURCES = frozenset(
    """
    bindings configmaps endpoints events limitranges namespaces nodes persistentvolumeclaims persistentvolumes pods
    podtemplates replicationcontrollers resourcequotas secrets serviceaccounts services mutatingwebhookconfigurations
    validatingwebhookconfigurations validatingadmissionpolicies validatingadmissionpolicybindings
    customresourcedefinitions apiservices controllerrevisions daemonsets deployments replicasets statefulsets
    tokenreviews localsubjectaccessreviews selfsubjectaccessreviews selfsubjectreviews selfsubjectrulesreviews
    subjectaccessreviews horizontalpodautoscalers cronjobs jobs certificatesigningrequests leases endpointslices
    flowschemas prioritylevelconfigurations ingressclasses ingresses networkpolicies runtimeclasses
    poddisruptionbudgets clusterrolebindings clusterroles rolebindings roles priorityclasses csidrivers csinodes
    csistoragecapacities storageclasses volumeattachments
    """.split()
)
_SHORT = {
    "cm": "configmaps", "deploy": "deployments", "ds": "daemonsets", "hpa": "horizontalpodautoscalers", "ing": "ingresses",
    "netpol": "networkpolicies", "no": "nodes", "ns": "namespaces", "po": "pods", "pv": "persistentvolumes",
    "pvc": "persistentvolumeclaims", "rs": "replicasets", "sa": "serviceaccounts", "sts": "statefulsets", "svc": "services",
}  # fmt: skip
_SUBRESOURCES = frozenset(
    "approval attach binding ephemeralcontainers eviction exec finalize log none portforward proxy resize scale status "
    "token".split()
)


def load_rules(paths: Sequence[str | Path]) -> RuleSet:
    """The rules of all files, in order; a folder stands for its *.yaml and *.yml. Raises ConfigError."""
    files = [file for path in paths for file in _files(Path(path))]
    if not files:
        raise ConfigError("no rules file given; the shipped ones are rules/friction.yaml and rules/extended.yaml")
    rules: list[Rule] = []
    ignored: dict[str, None] = {}
    watched = False
    warnings: list[str] = []
    for file in files:
        document = read_document(file)
        parsed = _parsed(_with_rules(document))
        watched = watched or parsed.config.watch_system_namespaces
        if parsed.config.ignore_namespaces:
            if any(map(_is_any, parsed.config.ignore_namespaces)):
                raise ConfigError(
                    "`*` ignores every namespace; then nothing can be found",
                    where=document.where(("config", "ignore_namespaces")),
                )
            ignored |= dict.fromkeys(parsed.config.ignore_namespaces)
        for index, spec in enumerate(parsed.rules):
            rule = _rule(spec, document, ("rules", index), warnings)
            twin = next((other for other in rules if other.name == rule.name), None)
            if twin:
                raise ConfigError(
                    f"rule `{rule.name}` stands here a second time; the first is {twin.file}:{twin.line}",
                    where=document.where(("rules", index, "name")),
                )
            rules.append(rule)
            if len(rules) > MAX_RULES:
                raise ConfigError(f"more than {MAX_RULES} rules", where=document.where(("rules", index)))
    if not rules:
        raise ConfigError("no rules in it; without rules nothing can be found", where=str(files[0]))
    _check_unless(rules, warnings)
    return RuleSet(
        rules=tuple(rules),
        ignore_namespaces=tuple(ignored if watched else dict.fromkeys(SYSTEM_NAMESPACES) | ignored),
        warnings=tuple(warnings),
        files=tuple(str(file) for file in files),
    )


def load_selection(document: Document, path: KeyPath) -> list[Rule]:
    """The list at `path`, each item the `match` of a rule, as rules without names. Raises ConfigError.

    An item without `outcome` takes every outcome: what a stream carries is not what counts as friction.
    """
    items = document.data
    for step in path:
        items = items[step]
    rules: list[Rule] = []
    for index, item in enumerate(items):
        here = (*path, index)
        match = convert(document, MatchSpec, here)
        if "outcome" not in item:
            match = msgspec.structs.replace(match, outcome=list(OUTCOMES))
        spec = RuleSpec(name="selection", description="", severity="low", match=match)

        def refuse(message: str, *keys: str | int, here: KeyPath = here) -> ConfigError:
            name = ".".join(map(str, here))
            return ConfigError(f"`{name}`: {message}", where=document.where((*here, *keys[1:])))

        _check_match(spec, refuse)
        rules.append(_loaded(spec, document, here))
    return rules


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(
        file for file in path.iterdir() if file.suffix in (".yaml", ".yml") and not file.name.startswith(".")
    )
    if not found:
        raise ConfigError("a folder without *.yaml files", where=str(path))
    return found


def _with_rules(document: Document) -> Document:
    data = document.data
    if not isinstance(data, dict) or not isinstance(data.get("rules"), list):
        raise ConfigError("no rules file: it needs a list under `rules:`", where=document.file)
    return document


def _parsed(document: Document) -> RuleFile:
    try:
        return convert(document, RuleFile)
    except ConfigError as error:
        match = re.search(r"`rules\.(\d+)\.?([^`]*)`", str(error))
        if not match:
            raise
        item = document.data["rules"][int(match.group(1))]
        name = item.get("name") if isinstance(item, dict) else None
        said = f"rule `{name or f'number {int(match.group(1)) + 1}'}`: "
        here = re.sub(r"`rules\.\d+`: ", "", str(error)).replace(match.group(0), f"`{match.group(2)}`")
        where, _, message = here.partition(": ")
        raise ConfigError(said + message, where=where) from None


def _rule(spec: RuleSpec, document: Document, path: KeyPath, warnings: list[str]) -> Rule:
    def refuse(message: str, *keys: str | int) -> ConfigError:
        return ConfigError(f"rule `{spec.name}`: {message}", where=document.where((*path, *keys)))

    if not _NAME.fullmatch(spec.name):
        raise refuse("a name has 3 to 50 of a-z, 0-9 and `-`", "name")
    if spec.points is not None and not 1 <= spec.points <= 100:
        raise refuse(f"`points` is {spec.points}; it goes from 1 to 100", "points")
    if spec.workflow not in WORKFLOWS:
        warnings.append(
            f"{document.where((*path, 'workflow'))}: rule `{spec.name}`: workflow `{spec.workflow}` is none of "
            f"{', '.join(WORKFLOWS)}; it is kept as it is"
        )
    for token in re.findall(r"\{([^{}]*)\}", spec.description):
        if token not in TOKENS:
            raise refuse(f"`{{{token}}}` is no token{nearest(token, TOKENS)}", "description")
    _check_match(spec, refuse)
    for word in (spec.match.resource, *spec.match.resources):
        close = difflib.get_close_matches(word or "*", RESOURCES, n=1, cutoff=0.85)
        if close and word not in RESOURCES:
            where = document.where((*path, "match"))
            warnings.append(
                f"{where}: rule `{spec.name}`: `{word}` is no resource of Kubernetes itself; did you mean `{close[0]}`?"
            )
    return _loaded(spec, document, path)


def _loaded(spec: RuleSpec, document: Document, path: KeyPath) -> Rule:
    return Rule(
        name=spec.name,
        description=spec.description,
        severity=spec.severity,
        points=spec.points or default_points(spec.severity),
        workflow=spec.workflow,
        ignore_system=spec.ignore_system,
        match=spec.match,
        unless=tuple(spec.unless),
        tags=tuple(spec.tags),
        tests=tuple(spec.tests),
        file=document.file,
        line=document.lines.get((*path, "name"), 0),
    )


def _check_match(spec: RuleSpec, refuse: Refuse) -> None:
    match = spec.match
    for one, many in (("resource", "resources"), ("subresource", "subresources"), ("verb", "verbs")):
        if getattr(match, one) is not None and getattr(match, many):
            raise refuse(f"`{one}` and `{many}` cannot both be set; use `{many}`", "match", many)
    for key, words in (("verb", [match.verb] if match.verb is not None else []), ("verbs", match.verbs)):
        for word in words:
            if word == _ADMISSION_VERB:
                raise refuse(
                    "`connect` is an admission operation; in the audit log exec is `get` or `create`", "match", key
                )
            if word not in VERBS:
                raise refuse(f"`{word}` is no audit verb{nearest(word, VERBS)}", "match", key)
    for key, words in (
        ("resource", [match.resource] if match.resource is not None else []),
        ("resources", match.resources),
        ("ignore_resources", match.ignore_resources),
    ):
        for word in words:
            _check_resource(word, refuse, key)
    one_subresource = [match.subresource] if match.subresource is not None else []
    for key, words in (("subresource", one_subresource), ("subresources", match.subresources)):
        for word in words:
            close = nearest(word.lower(), set(_SUBRESOURCES))
            if not word or (word not in _SUBRESOURCES and "did you mean" in close):
                raise refuse(f"`{word}` is no subresource of Kubernetes{close}", "match", key)
    if match.annotation is not None:
        key, separator, _ = match.annotation.partition("=")
        if not separator or not key.strip() or key != key.strip():
            raise refuse('an annotation is written "key=value"', "match", "annotation")
    for word in [match.outcome] if isinstance(match.outcome, str) else match.outcome:
        if word not in OUTCOMES:
            raise refuse(f"`{word}` is no outcome{nearest(word, OUTCOMES)}", "match", "outcome")
    if not match.outcome:
        raise refuse("an empty `outcome` can never match", "match", "outcome")
    if match.namespace_contains == "":
        raise refuse("an empty `namespace_contains` matches everything; leave it out", "match", "namespace_contains")
    for word in match.api_groups:
        if "/" in word:
            raise refuse(
                f"`{word}`: an API group is written without its version: `{word.partition('/')[0]}`",
                "match",
                "api_groups",
            )
    named = {match.resource, *match.resources} - {None, "*"}
    conditions = (
        named or None, match.subresource, match.subresources, match.verb, match.verbs, match.annotation,
        match.namespace_contains, match.namespaces, match.users, match.groups, match.names, match.api_groups, match.impersonated,
    )  # fmt: skip
    if not any(condition is not None and condition != [] for condition in conditions):
        raise refuse("it matches every request; say at least a resource, a verb or a user", "match")
    if any(map(_is_any, [*match.users, *match.names, *match.namespaces, *match.groups])):
        raise refuse("`*` alone means any; leave the key out", "match")
    if any(map(_is_any, [*match.ignore_users, *match.ignore_namespaces])):
        raise refuse("it ignores everybody or everything; a rule that cannot match is better taken out", "match")


def _is_any(glob: str) -> bool:
    return bool(glob) and not glob.strip("*")


def _check_resource(word: str, refuse: Refuse, key: str) -> None:
    if word == "*" or word in RESOURCES:
        return
    if "/" in word:
        resource, _, subresource = word.partition("/")
        raise refuse(f"`{word}`: write `resource: {resource}` and `subresource: {subresource}`", "match", key)
    lower = word.lower()
    meant = _SHORT.get(lower) or next(
        (plural for plural in (lower, f"{lower}s", f"{lower}es", f"{lower[:-1]}ies") if plural in RESOURCES), None
    )
    if meant:
        raise refuse(f"`{word}` is no resource; the audit log says `{meant}`", "match", key)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", word):
        raise refuse(f"`{word}` is no resource; names are plural and lower case, as in /api/v1/pods", "match", key)


@functools.cache
def _shipped_names() -> frozenset[str]:
    """Rules that come with the program: one shipped file may yield to another that is not loaded."""
    files = (shipped("rules") / "friction.yaml", shipped("rules") / "extended.yaml")
    return frozenset(name for file in files for name in re.findall(r"(?m)^  - name: (\S+)$", file.read_text("utf-8")))


def _check_unless(rules: list[Rule], warnings: list[str]) -> None:
    """Names of other rules; a name from a file that is not loaded is a warning, a typing error or a circle is refused."""
    names = {rule.name: rule for rule in rules}
    for rule in rules:
        where = f"{rule.file}:{rule.line}"
        for name in rule.unless:
            if name == rule.name:
                raise ConfigError(f"rule `{rule.name}` cannot yield to itself", where=where)
            if name == "*" or name in names:
                continue
            close = nearest(name, list(names))
            if "did you mean" in close:
                raise ConfigError(f"rule `{rule.name}`: `unless` names `{name}`, which is no rule{close}", where=where)
            if name not in _shipped_names():
                warnings.append(f"{where}: rule `{rule.name}` yields to `{name}`, which is not loaded")
    colours: dict[str, int] = {}

    def walk(name: str, trail: tuple[str, ...]) -> None:
        if colours.get(name) == 1:
            circle = " → ".join([*trail[trail.index(name) :], name])
            raise ConfigError(
                f"rules yield to each other in a circle: {circle}", where=f"{names[name].file}:{names[name].line}"
            )
        if colours.get(name) == 2:
            return
        colours[name] = 1
        rule = names[name]
        targets = [other for other in rule.unless if other in names]
        if "*" in rule.unless:
            targets += [other.name for other in rules if "*" not in other.unless]
        for target in targets:
            walk(target, (*trail, name))
        colours[name] = 2

    for rule in rules:
        walk(rule.name, ())
