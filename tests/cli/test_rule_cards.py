"""The rules as the dashboard shows them: of which files, in which words, and what becomes of them when a file changes."""

import logging
import os
from pathlib import Path

import pytest

from forwarder.cli.rule_cards import rule_book

RULE = """
rules:
  - name: read-secret
    description: "{actor} read {name}"
    severity: low
    match: {resource: secrets, verb: get}
    tests:
      - name: a secret
        fires: %s
        event: {kind: Event, apiVersion: audit.k8s.io/v1, level: Metadata, auditID: a, stage: ResponseComplete,
          requestURI: /api/v1/namespaces/a/secrets/b, verb: get, user: {username: jane}, objectRef: {resource: secrets,
          namespace: a, name: b, apiVersion: v1}, responseStatus: {code: 200},
          requestReceivedTimestamp: "2026-03-02T10:15:01.001000Z", stageTimestamp: "2026-03-02T10:15:01.001421Z"}
"""


def write(path: Path, text: str, second: int) -> None:
    path.write_text(text)
    os.utime(path, (second, second))


def test_cards(tmp_path: Path) -> None:
    """A card has the rule's words, points and tests, and says whether they hold."""
    write(tmp_path / "a.yaml", RULE % "true", 1)
    card = rule_book([tmp_path])()["read-secret"]
    assert (card.severity, card.points, card.file) == ("low", 3, "a.yaml")
    assert "does get on secrets" in card.words
    assert [(test.name, test.fires, test.passed) for test in card.tests] == [("a secret", True, True)]
    assert '"auditID": "a"' in card.tests[0].event


def test_a_failing_test_is_told(tmp_path: Path) -> None:
    """And why it fails."""
    write(tmp_path / "a.yaml", RULE % "false", 1)
    test = rule_book([tmp_path / "a.yaml"])()["read-secret"].tests[0]
    assert (test.passed, test.reason) == (False, "fires, but should not")


def test_changes_are_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A changed file counts at once; a broken one leaves what was there, and is told once."""
    file = tmp_path / "a.yaml"
    write(file, RULE % "true", 1)
    book = rule_book([file])
    assert set(book()) == {"read-secret"}
    write(file, RULE.replace("read-secret", "other-name") % "true", 2)
    assert set(book()) == {"other-name"}
    write(file, "rules: [", 3)
    with caplog.at_level(logging.WARNING):
        assert set(book()) == set(book()) == {"other-name"}
    assert len(caplog.records) == 1


def test_shipped() -> None:
    """Without files of one's own the shipped ones are shown, the five defaults and the others."""
    assert {"kubectl-exec", "port-forward"} < set(rule_book()())
    assert len(rule_book()()) > 30
