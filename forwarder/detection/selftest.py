"""Runs the tests that stand in rules files: `forwarder rules test`, and pytest over the shipped sets.

A test is judged with its whole set loaded, so `unless` counts. Its event is read as the detector would read the line.
"""

import json
from typing import Any

import msgspec

from forwarder.detection.detector import Detector
from forwarder.detection.rules import Rule, RuleSet, RuleTest
from forwarder.errors import MalformedEvent


class TestResult(msgspec.Struct, frozen=True, kw_only=True):
    """rule, name: of the test. message: what was expected and what came; "" when passed. line: of the rule, from 1."""

    __test__ = False  # not a pytest class

    rule: str
    name: str
    passed: bool
    message: str
    file: str
    line: int


def run_tests(ruleset: RuleSet, *, own_namespace: str = "") -> list[TestResult]:
    """One result per test, in the order of the files. A rule without tests gives none."""
    detector = Detector(ruleset, own_namespace=own_namespace)
    return [_run(detector, rule, test) for rule in ruleset.rules for test in rule.tests]


def _run(detector: Detector, rule: Rule, test: RuleTest) -> TestResult:
    message = _judge(detector, rule, test)
    return TestResult(
        rule=rule.name, name=test.name, passed=not message, message=message, file=rule.file, line=rule.line
    )


def _judge(detector: Detector, rule: Rule, test: RuleTest) -> str:
    line = json.dumps(test.event, separators=(",", ":"), ensure_ascii=False).encode()
    try:
        events = detector.detect(line)
    except MalformedEvent as error:
        return f"its event cannot be read: {error.reason}"
    if events and not detector.screen(line, 0, len(line)):
        return "the screen said no where the rules say yes; please report this as a bug"
    found = next((event for event in events if event.type == rule.name), None)
    if (found is not None) is not test.fires:
        if found is not None:
            return "fires, but should not"
        reason = next(trace.reason for trace in detector.explain(line) if trace.rule == rule.name)
        return f"does not fire: {reason}"
    if found is not None:
        for key, wanted in test.expect.items():
            missing: Any = object()
            got = getattr(found, key, missing)
            if got is missing:
                return f"expects `{key}`, which is no field of a friction event"
            if (list(got) if isinstance(got, tuple) else got) != wanted:
                return f"{key} is {got!r}, expected {wanted!r}"
    return ""
