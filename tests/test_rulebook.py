"""Rules that change under a running receiver: the new set, or the old one and a word about why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forwarder.errors import ConfigError
from forwarder.registry import load_config
from forwarder.rulebook import Rulebook
from forwarder.settings import parse_document
from forwarder.telemetry import Telemetry

EXEC = next(line for line in Path("tests/data/control-plane/audit.log").read_bytes().splitlines() if b'"exec"' in line)
RULES = "rules:\n  - {name: exec-rule, description: x, severity: high, match: {resource: pods, subresource: exec}}\n"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Rulebook]:
    def build(**settings: Any) -> Rulebook:
        document = {
            "sources": {"file": {"path": "/x"}},
            "sinks": {"backend": {"url": "http://b"}},
            "detection": {"rules": ["rules.yaml"]},
            **settings,
        }
        loaded = load_config(parse_document(json.dumps(document), str(tmp_path / "f.yaml")), {})
        return Rulebook(loaded, Telemetry())

    (tmp_path / "rules.yaml").write_text(RULES)
    return build


def test_changed_rules_are_used_and_bad_ones_are_not(
    make: Callable[..., Rulebook], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The old set stays in force, and the log says so."""
    rulebook, path = make(), tmp_path / "rules.yaml"
    screen = rulebook.detector.screen  # what the sources were given
    path.write_text(RULES.replace("exec-rule", "other-rule").replace("exec}", "attach}"))
    assert rulebook.reload()
    assert not screen(EXEC, 0, len(EXEC))
    path.write_text(RULES.replace("exec-rule", "other-rule"))
    assert rulebook.reload()
    assert screen(EXEC, 0, len(EXEC))
    assert [event.type for event in rulebook.detector.detect(EXEC)] == ["other-rule"]
    path.write_text(RULES.replace("resource", "resouce"))
    assert not rulebook.reload()
    assert "the old 1 stay in force" in caplog.text
    assert "did you mean `resource`?" in caplog.text
    assert screen(EXEC, 0, len(EXEC))
    assert [event.type for event in rulebook.detector.detect(EXEC)] == ["other-rule"]


def test_processes_with_a_screen_of_their_own_are_told(make: Callable[..., Rulebook]) -> None:
    """Once at the start, and whenever other rules come into force."""

    class Worker:
        told: list[str] = []  # noqa: RUF012 - one worker

        def set_rules(self, ruleset: Any, own_namespace: str, robots: list[str]) -> None:
            self.told += [rule.name for rule in ruleset.rules]

        def set_everything(self, wanted: bool) -> None: ...

    rulebook = make()
    rulebook.workers = [Worker()]
    rulebook.tell_workers()
    assert rulebook.reload()
    assert Worker.told == ["exec-rule", "exec-rule"]


def test_a_changed_file_is_noticed(make: Callable[..., Rulebook], tmp_path: Path) -> None:
    """By an editor's rename, a write, or a ConfigMap's swapped link; a missing file is a change too."""
    rulebook, path = make(), tmp_path / "rules.yaml"
    before = rulebook.files_state()
    path.rename(path.with_suffix(".old"))
    assert rulebook.files_state() != before
    path.write_text(RULES)
    assert rulebook.files_state() != before


def test_bad_rules_stop_a_start(make: Callable[..., Rulebook], tmp_path: Path) -> None:
    """Nothing has been opened by then."""
    (tmp_path / "rules.yaml").write_text("rules: []")
    with pytest.raises(ConfigError, match="no rules in it"):
        make()


def test_rules_may_be_left_out_where_audit_events_are_only_passed_on(make: Callable[..., Rulebook]) -> None:
    """And nowhere else: a receiver of friction without rules would find nothing, silently."""
    tail = {"tail": {"type": "stdout", "stream": "audit"}}
    none = {"detection": {"rules": []}}
    assert make(sinks=tail, **none).detector.ruleset.rules == ()
    with pytest.raises(ConfigError, match="no rules file given"):
        make(sinks=tail | {"backend": {"url": "http://b"}}, **none)
