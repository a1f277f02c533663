"""`forwarder policy`: what a policy feeds, in words and as an exit code; and a policy that feeds the rules."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwarder.errors import ConfigError

Run = Callable[..., Result]
HEAD = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n"


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[str], Path]:
    """`policy("- level: Metadata")` writes a policy file."""

    def write(rules: str) -> Path:
        path = tmp_path / "policy.yaml"
        path.write_text(HEAD + rules)
        return path

    return write


def test_a_rule_that_can_never_fire_is_told_and_exits_1(run: Run, policy: Callable[[str], Path]) -> None:
    """With the policy's rule and line, and what is missing."""
    result = run("policy", "check", policy("- level: Metadata\n"))
    assert result.exit_code == 1
    assert "pipeline-skip: never" in result.stdout
    assert "rule 1 (line 5) has level Metadata" in result.stdout
    assert "5 rules: 4 fed, 0 partly, 1 never" in result.stdout


def test_partly_is_good_enough_unless_strict(run: Run, policy: Callable[[str], Path]) -> None:
    """The shipped policy withholds bodies of secrets on purpose."""
    path = policy("- {level: Metadata, resources: [{group: '', resources: [secrets]}]}\n- level: RequestResponse\n")
    assert run("policy", "check", path).exit_code == 0
    assert run("policy", "check", path, "--strict").exit_code == 1


def test_check_for_machines(run: Run, policy: Callable[[str], Path]) -> None:
    """One object per rule; notes go to stderr."""
    result = run("policy", "check", policy("- level: RequestResponse\n"), "--output", "ndjson")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["verdict"] for row in rows} == {"fed"}
    assert "bodies of secrets" in result.stderr


def test_what_is_suggested_passes_the_check(run: Run, tmp_path: Path) -> None:
    """Standard output is the policy and nothing else."""
    path = tmp_path / "suggested.yaml"
    path.write_text(run("policy", "suggest", "--rules", "rules/extended.yaml").stdout)
    result = run("policy", "check", path, "--rules", "rules/extended.yaml", "--strict")
    assert result.exit_code == 0, result.output


def test_service_accounts_on_demand(run: Run) -> None:
    """--drop-service-accounts."""
    assert "system:serviceaccounts'" in run("policy", "suggest", "--drop-service-accounts").stdout


def test_a_bad_policy_is_refused_with_its_place(run: Run, policy: Callable[[str], Path]) -> None:
    """File and line."""
    error = run("policy", "check", policy("- {level: Metdata}\n")).exception
    assert isinstance(error, ConfigError)
    assert "policy.yaml:5" in str(error)
