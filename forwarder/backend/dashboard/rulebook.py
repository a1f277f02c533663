"""What is known of rules: their words, their conditions and their tests, as the rules files have them.

The backend does not read rules files itself (events may come from receivers with rules of their own): whoever starts it
hands a RuleBook in, which may change while it runs.
"""

from collections.abc import Callable, Mapping

import msgspec

from forwarder.events.friction import Severity


class RuleTest(msgspec.Struct, frozen=True, kw_only=True):
    """One test of a rule. event: the audit event as indented JSON. passed: whether it holds; reason: why not."""

    name: str
    fires: bool
    event: str
    passed: bool = True
    reason: str = ""


class RuleCard(msgspec.Struct, frozen=True, kw_only=True):
    """One rule for people. words: what it detects, as a sentence. unless: rules that it yields to. file: where it stands."""

    name: str
    description: str
    severity: Severity
    points: int
    workflow: str
    words: str
    unless: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tests: tuple[RuleTest, ...] = ()
    file: str = ""


RuleBook = Callable[[], Mapping[str, RuleCard]]
"""The rules by name, at this moment."""


def no_rules() -> Mapping[str, RuleCard]:
    """A book with nothing in it."""
    return {}
