"""What a rule detects, as a sentence for a person who does not read YAML."""

from collections.abc import Iterable

from forwarder.detection.rules import Rule


def rule_words(rule: Rule) -> str:
    """One sentence per thought: who does what to which objects, where, with which outcome, and what it yields to."""
    verbs = _any_of(
        sorted(rule.verbs), f"makes any request {'to' if rule.resources or rule.subresources else 'at all'}"
    )
    act = f"does {verbs} on" if rule.verbs else verbs
    sentence = f"{_who(rule)} {act} {_object(rule)}".rstrip()
    parts = [sentence, *_where(rule), *_marks(rule), _outcome(rule)]
    text = ", ".join(part for part in parts if part) + "."
    if rule.unless == ("*",):
        text += " Stays silent when any other rule fires."
    elif rule.unless:
        text += f" Stays silent when {_any_of(rule.unless)} fires."
    return text[0].upper() + text[1:]


def _who(rule: Rule) -> str:
    match = rule.match
    who = f"{_any_of(match.users)}" if match.users else "somebody"
    if rule.ignore_system:
        who += " who is no machine" if not match.users else " (no machine)"
    if match.groups:
        who += f" of the group {_any_of(match.groups)}"
    if match.ignore_users:
        who += f", except {_any_of(match.ignore_users)},"
    if match.impersonated is not None:
        who += " acting as somebody else" if match.impersonated else " under their own name"
    return who


def _object(rule: Rule) -> str:
    match = rule.match
    resources = sorted(rule.resources)
    what = "any object" if resources == ["*"] else _any_of(resources)
    if not resources and (rule.subresources or rule.verbs):
        what = "anything"
    if match.api_groups:
        what += f" of the API group {_any_of(match.api_groups)}"
    if match.names:
        what += f" named {_any_of(match.names)}"
    own = "" in rule.subresources
    subresources = sorted(word for word in rule.subresources if word)
    if own and not subresources:
        what += " (the object itself, not a subresource)"
    elif subresources:
        what += f" (subresource {_any_of([*subresources, *(['the object itself'] if own else [])])})"
    return what


def _where(rule: Rule) -> list[str]:
    match = rule.match
    parts = []
    if match.namespaces:
        parts.append(f"in the namespace {_any_of(match.namespaces)}")
    if match.namespace_contains is not None:
        parts.append(f"in a namespace whose name contains “{match.namespace_contains}”")
    if match.ignore_namespaces:
        parts.append(f"not in the namespace {_any_of(match.ignore_namespaces)}")
    return parts


def _marks(rule: Rule) -> list[str]:
    if rule.annotation is None:
        return []
    key, value = rule.annotation
    return [f"with the annotation {key}={value}"]


def _outcome(rule: Rule) -> str:
    outcomes = sorted(rule.outcomes)
    words = {"allowed": "allowed", "denied": "denied", "failed": "failed"}
    return f"and it was {_any_of([words.get(word, word) for word in outcomes])}"


def _any_of(words: Iterable[str], none: str = "") -> str:
    listed = list(words)
    if not listed:
        return none
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"
