"""The rules as the dashboard shows them: read from rules files, put into words, their tests run.

The files are looked at again when they have changed, so that the pages tell what is in force. A file that cannot be
read any more leaves the former cards in place; the receiver that uses it complains.
"""

import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forwarder.cli.rule_words import rule_words
from forwarder.errors import ConfigError

if TYPE_CHECKING:
    from forwarder.backend.dashboard.rulebook import RuleBook, RuleCard
    from forwarder.detection.rules import Rule

log = logging.getLogger(__name__)

SHIPPED = ("rules/friction.yaml", "rules/extended.yaml")  # whatever a receiver elsewhere uses, it is often of these


def rule_book(paths: Sequence[str | Path] = ()) -> "RuleBook":
    """The cards of those files; of the shipped ones where none is given. Reads nothing before it is asked."""
    from forwarder.settings import shipped

    found = _Book([Path(path) for path in paths] or [Path(shipped(name)) for name in SHIPPED])
    return found.cards


class _Book:
    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._read: object = None
        self._cards: Mapping[str, RuleCard] = {}

    def cards(self) -> "Mapping[str, RuleCard]":
        with self._lock:
            stamp = [_stamp(file) for path in self._paths for file in _files(path)]
            if stamp != self._read:
                self._read = stamp
                try:
                    self._cards = _cards(self._paths)
                except ConfigError as error:
                    log.warning("the pages of rules show what they did before: %s", error)
            return self._cards


def _cards(paths: Sequence[Path]) -> "Mapping[str, RuleCard]":
    from forwarder.backend.dashboard.rulebook import RuleCard, RuleTest
    from forwarder.detection.loader import load_rules
    from forwarder.detection.selftest import run_tests

    ruleset = load_rules(paths)
    reasons = {(result.rule, result.name): result.message for result in run_tests(ruleset)}

    def tests(rule: "Rule") -> tuple[RuleTest, ...]:
        return tuple(
            RuleTest(
                name=test.name,
                fires=test.fires,
                event=json.dumps(test.event, indent=2, ensure_ascii=False),
                passed=not reasons.get((rule.name, test.name)),
                reason=reasons.get((rule.name, test.name), ""),
            )
            for test in rule.tests
        )

    return {
        rule.name: RuleCard(
            name=rule.name,
            description=rule.description,
            severity=rule.severity,
            points=rule.points,
            workflow=rule.workflow,
            words=rule_words(rule),
            unless=rule.unless,
            tags=rule.tags,
            tests=tests(rule),
            file=Path(rule.file).name,
        )
        for rule in ruleset.rules
    }


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.y*ml")) if path.is_dir() else [path]


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return str(path), 0, 0
    return str(path), status.st_mtime_ns, status.st_size
