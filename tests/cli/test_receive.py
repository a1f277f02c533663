"""`forwarder receive --check`: settings and rules are read, nothing is opened."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwarder.errors import ConfigError

Run = Callable[..., Result]

GOOD = "sources: {forward: {listen: 127.0.0.1:0}}\nsinks: {backend: {}}\noutbox: {path: box.db}\n"


def test_good_settings(run: Run, tmp_path: Path) -> None:
    """--check says good and leaves no outbox behind."""
    (tmp_path / "f.yaml").write_text(GOOD)
    result = run("receive", "--check", "--config", tmp_path / "f.yaml")
    assert (result.exit_code, result.stdout) == (0, "good\n")
    assert not (tmp_path / "box.db").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("surces: {}\n", "f.yaml:1: unknown key `surces`; did you mean `sources`?"),
        (GOOD + "detection: {rules: [none.yaml]}\n", "none.yaml: cannot read it"),
        (GOOD + "log: {level: loud}\n", "log.level"),
        (GOOD.replace("127.0.0.1:0", "0.0.0.0:0"), "Forward source `forward`"),
        (GOOD + "telemetry: {listen: nowhere}\n", "telemetry.listen"),
        (GOOD + "telemetry: {listen: '0.0.0.0:9000'}\n", "telemetry.token"),
        ("sinks: {backend: {}}\n", "no source"),
    ],
)
def test_bad_settings_are_named_before_anything_opens(run: Run, tmp_path: Path, text: str, said: str) -> None:
    """What is wrong, and where; the program makes it exit code 2."""
    (tmp_path / "f.yaml").write_text(text)
    error = run("receive", "--check", "--config", tmp_path / "f.yaml").exception
    assert isinstance(error, ConfigError)
    assert said in str(error)


def test_the_environment_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Healert's names are enough, and what has no meaning is said."""
    monkeypatch.setenv("AUDIT_LOG_PATH", "/var/log/a.log")
    monkeypatch.setenv("HEALERT_AGENT_DIR", "/opt/healert")
    result = run("receive", "--check")
    assert result.stdout == "good\n"
    assert "HEALERT_AGENT_DIR has no meaning" in result.stderr
