"""Rules prove themselves."""

from pathlib import Path

import pytest

from forwarder.detection.loader import load_rules
from forwarder.detection.selftest import TestResult, run_tests

SETS = [["rules/friction.yaml"], ["rules/extended.yaml"], ["rules/friction.yaml", "rules/extended.yaml"]]


@pytest.mark.parametrize(
    "result", [result for paths in SETS for result in run_tests(load_rules(paths))], ids=lambda r: f"{r.rule}: {r.name}"
)
def test_the_shipped_rules_pass_their_own_tests(result: TestResult) -> None:
    """Alone and together."""
    assert result.passed, f"{result.file}:{result.line}: {result.message}"


@pytest.mark.parametrize("path", ["rules/friction.yaml", "rules/extended.yaml"])
def test_every_shipped_rule_has_hits_and_near_misses(path: str) -> None:
    """At least one of the first, two of the second."""
    for rule in load_rules([path]).rules:
        fires = [test.fires for test in rule.tests]
        assert fires.count(True) >= 1, rule.name
        assert fires.count(False) >= 2, rule.name


def test_a_test_that_fails_says_why(tmp_path: Path) -> None:
    """The first condition that does not hold; the field that differs; the rule that fires though it should not."""
    text = """
rules:
  - name: exec-rule
    description: x
    severity: high
    match: {resource: pods, subresource: exec}
    tests:
      - name: misses
        fires: true
        event: {kind: Event, apiVersion: audit.k8s.io/v1, auditID: a, stage: ResponseComplete, verb: get, objectRef: {resource: secrets}}
      - name: hits
        fires: false
        event: &hit {kind: Event, apiVersion: audit.k8s.io/v1, auditID: a, stage: ResponseComplete, verb: get, user: {username: bob}, objectRef: {resource: pods, subresource: exec}}
      - {name: differs, fires: true, event: *hit, expect: {actor: alice}}
      - {name: no field, fires: true, event: *hit, expect: {actr: alice}}
      - {name: no event, fires: true, event: {a: b}}
      - {name: passes, fires: true, event: *hit, expect: {actor: bob}}
"""
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    results = run_tests(load_rules([path]))
    assert [(result.name, result.message) for result in results] == [
        ("misses", "does not fire: resource is secrets"),
        ("hits", "fires, but should not"),
        ("differs", "actor is 'bob', expected 'alice'"),
        ("no field", "expects `actr`, which is no field of a friction event"),
        ("no event", "its event cannot be read: not_an_audit_event"),
        ("passes", ""),
    ]
