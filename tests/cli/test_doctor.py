"""`forwarder doctor`: whose settings it looks at, and how it ends."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import forwarder.cli.doctor as module
from forwarder.cli.background import Running, process_began, write_run_file
from forwarder.cli.doctor import settings
from forwarder.cli.hops import Hop
from forwarder.feed.settings import FeedSettings

Run = Callable[..., Result]
GOOD = "sources: {forward: {}}\nsinks: {backend: {}}\n"


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[Hop]:
    """What the checks find."""
    found: list[Hop] = []
    monkeypatch.setattr(module, "CHECKS", (lambda _: found,))
    return found


def test_all_is_well(run: Run, tmp_path: Path, hops: list[Hop]) -> None:
    """Exit 0; what could not be looked at is no fault."""
    (tmp_path / "f.yaml").write_text(GOOD)
    hops += [Hop("rules", good=True, text="5 rules"), Hop("fluent-bit", good=None, text="elsewhere")]
    result = run("doctor", "--config", tmp_path / "f.yaml")
    assert result.exit_code == 0
    assert "✓ rules" in result.stdout
    assert "everything is in order" in result.stdout


def test_something_is_wrong(run: Run, tmp_path: Path, hops: list[Hop]) -> None:
    """Exit 1; the hop, what is wrong, what to do next."""
    (tmp_path / "f.yaml").write_text(GOOD)
    hops.append(Hop("backend", good=False, text="not reachable", advice="start it"))
    result = run("doctor", "--config", tmp_path / "f.yaml")
    assert result.exit_code == 1
    assert "✗ backend" in result.stdout
    assert "→ start it" in result.stdout
    assert "1 of 2 need a look: backend" in result.stdout


def test_bad_settings(run: Run, tmp_path: Path, hops: list[Hop]) -> None:
    """Exit 2; nothing else can be checked before."""
    (tmp_path / "f.yaml").write_text("sorces: {}")
    result = run("doctor", "--config", tmp_path / "f.yaml")
    assert result.exit_code == 2
    assert "did you mean `sources`" in result.stdout


def test_for_machines(run: Run, tmp_path: Path, hops: list[Hop]) -> None:
    """One object per hop."""
    (tmp_path / "f.yaml").write_text(GOOD)
    hops.append(Hop("rules", good=True, text="5 rules"))
    lines = run("doctor", "--json", "--config", tmp_path / "f.yaml").stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["settings", "rules"]


def test_a_running_up_is_looked_at_as_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports, rules and cluster are those of the process; keys come from the environment or the data folder."""
    for name in ("FORWARD_SHARED_KEY", "HEALERT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text("FORWARD_SHARED_KEY=key\n")
    running = Running(
        pid=os.getpid(), began=process_began(os.getpid()), backend="127.0.0.1:1", forward="127.0.0.1:2",
        telemetry="127.0.0.1:3", feed="127.0.0.1:4", cluster="c", rules=("/r.yaml",),
    )  # fmt: skip
    write_run_file(tmp_path, running)
    loaded = settings(None, tmp_path)
    assert loaded.sources["forward"][1].listen == "127.0.0.1:2"
    assert loaded.sources["forward"][1].shared_key == "key"
    assert loaded.sinks["backend"][1].url == "http://127.0.0.1:1"
    assert (loaded.config.cluster, loaded.config.telemetry.listen) == ("c", "127.0.0.1:3")
    assert loaded.config.feed == FeedSettings(listen="127.0.0.1:4")
    assert loaded.outbox_path == tmp_path / "outbox.db"


def test_without_a_process_the_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `receive` would start."""
    monkeypatch.setenv("AUDIT_LOG_PATH", "/var/log/a.log")
    assert settings(None, tmp_path).sources["file"][1].path == "/var/log/a.log"


def test_a_backends_file_is_about_its_sinks(run: Run, tmp_path: Path) -> None:
    """Their outbox is checked, and each that can be asked; a test event goes in at a receiver."""
    file = tmp_path / "backend.yaml"
    file.write_text("backend: {}\nsinks: {stdout: {}}\n")
    result = run("doctor", "--config", file)
    assert (result.exit_code, "✓ outbox" in result.stdout) == (0, True)
    assert "rules" not in result.stdout
    assert "goes in at a receiver" in str(run("doctor", "--send", "--config", file).exception)
    file.write_text("backend: {}\n")
    result = run("doctor", "--config", file)
    assert (result.exit_code, "no sink hangs off this backend" in result.stdout) == (2, True)
