"""`forwarder rules`: what is good, what fails how, and why a rule fires."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from forwarder.errors import ConfigError

Run = Callable[..., Result]
Event = Callable[..., dict[str, Any]]

RULES = """
rules:
  - name: shell
    description: a shell by {actor}
    severity: high
    ignore_system: true
    match: {resource: pods, subresource: exec}
    tests:
      - {name: TEST, event: EVENT, fires: FIRES}
"""


@pytest.fixture
def rules(tmp_path: Path, exec_event: Event) -> Callable[..., Path]:
    """`rules(fires=…)` writes a file with one rule and one test."""

    def write(*, fires: bool = True) -> Path:
        path = tmp_path / "rules.yaml"
        text = RULES.replace("TEST", "a person").replace("EVENT", json.dumps(exec_event()))
        path.write_text(text.replace("FIRES", str(fires).lower()))
        return path

    return write


def test_check_says_how_many_are_good(run: Run, rules: Callable[..., Path]) -> None:
    """Good rules are counted, and what is ignored is said."""
    result = run("rules", "check", rules())
    assert result.exit_code == 0
    assert "1 rule in 1 file: good" in result.stdout
    assert "kube-system" in result.stderr


def test_the_shipped_rules_are_the_default(run: Run) -> None:
    """Without a path it is about rules/friction.yaml, and its tests pass."""
    assert "5 rules" in run("rules", "check").stdout
    result = run("rules", "test")
    assert result.exit_code == 0
    assert "none failed" in result.stdout


def test_a_bad_rule_is_refused_with_its_place(run: Run, tmp_path: Path) -> None:
    """The error names file, line and the nearest valid word."""
    path = tmp_path / "bad.yaml"
    path.write_text("rules:\n  - {name: abc, description: d, severity: high, match: {resouce: pods}}\n")
    error = run("rules", "check", path).exception
    assert isinstance(error, ConfigError)
    assert "bad.yaml:2" in str(error)
    assert "resource" in str(error)


def test_a_failing_test_is_placed_and_exits_1(run: Run, rules: Callable[..., Path]) -> None:
    """Which test of which rule, where, and what happened instead."""
    path = rules(fires=False)
    result = run("rules", "test", path)
    assert result.exit_code == 1
    assert f"{path}:3: shell: a person: fires, but should not" in result.stdout
    assert "1 test of 1 rule: 1 failed" in result.stdout


def test_list_for_machines(run: Run, rules: Callable[..., Path]) -> None:
    """One object per rule, with what it detects in words."""
    (line,) = run("rules", "list", rules(), "--output", "ndjson").stdout.splitlines()
    data = json.loads(line)
    assert (data["name"], data["points"], data["tests"]) == ("shell", 10, 1)
    assert data["detects"].startswith("Somebody who is no machine")


def test_explain_says_it_in_words(run: Run, rules: Callable[..., Path]) -> None:
    """Without an event: what the rule is about."""
    assert "subresource exec" in run("rules", "explain", rules()).stdout


def test_explain_an_event(run: Run, rules: Callable[..., Path], exec_event: Event) -> None:
    """With an event: whether each rule fires and which condition decides; one event may be spread over lines."""
    path = rules()
    assert "✓ shell" in run("rules", "explain", path, "--event", "-", input=json.dumps(exec_event(), indent=2)).stdout
    machine = exec_event(user={"username": "system:kube-scheduler"})
    lines = "\n".join(json.dumps(event) for event in (exec_event(), machine))
    said = run("rules", "explain", path, "--event", "-", input=lines).stdout
    assert said.index("event 1") < said.index("✓ shell") < said.index("event 2") < said.index("· shell")


def test_explain_what_is_no_event(run: Run, rules: Callable[..., Path]) -> None:
    """A line that is no event exits 1 and shows nothing of it."""
    result = run("rules", "explain", rules(), "--event", "-", input="hunter2\n")
    assert result.exit_code == 1
    assert "hunter2" not in result.output


def test_an_unknown_rule_is_answered_with_the_nearest(run: Run, rules: Callable[..., Path]) -> None:
    """--rule with a typing error names the one that was meant."""
    error = run("rules", "explain", rules(), "--rule", "shel").exception
    assert "did you mean `shell`" in str(error)
