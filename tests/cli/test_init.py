"""`forwarder init`: what it writes can be run, and what is there stays."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwarder.cli.configuration import read_backend_config, read_config
from forwarder.cli.keys import read_env_file
from forwarder.errors import ConfigError

Run = Callable[..., Result]


def test_what_it_writes_is_valid(run: Run, tmp_path: Path) -> None:
    """The settings load with the keys beside them, and both sides have the same ones."""
    result = run(
        "init", "--dir", tmp_path, "--cluster", "prod-eu-1", "--audit-log", "/var/log/audit.log", "--data-dir", "/d"
    )
    assert result.exit_code == 0, result.output
    loaded = read_config(tmp_path / "forwarder.yaml")
    keys = read_env_file(tmp_path / ".env")
    assert loaded.config.cluster == "prod-eu-1"
    assert loaded.sources["file"][1].path == "/var/log/audit.log"
    assert loaded.sources["forward"][1].shared_key == keys["FORWARD_SHARED_KEY"]
    assert loaded.sinks["backend"][1].api_key == keys["HEALERT_API_KEY"]
    assert loaded.rules == [tmp_path / "rules/friction.yaml"]
    backend, _ = read_backend_config(tmp_path / "backend.yaml")
    assert backend.api_key == keys["HEALERT_API_KEY"]
    assert backend.database == "/d/backend.db"


def test_keys_are_private_and_not_printed(run: Run, tmp_path: Path) -> None:
    """.env is 0600 and its values appear nowhere else."""
    said = run("init", "--dir", tmp_path).output
    keys = read_env_file(tmp_path / ".env").values()
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    others = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".env")
    assert not any(key in said + others for key in keys)


def test_nothing_is_replaced_without_force(run: Run, tmp_path: Path) -> None:
    """A file that is there stops it before anything is written; --force replaces it and keeps the keys."""
    (tmp_path / "backend.yaml").write_text("mine")
    result = run("init", "--dir", tmp_path)
    assert result.exit_code == 2
    assert "backend.yaml" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["backend.yaml"]
    (tmp_path / ".env").write_text("HEALERT_API_KEY=mine\n")
    assert run("init", "--dir", tmp_path, "--force").exit_code == 0
    assert (tmp_path / "backend.yaml").read_text() != "mine"
    assert read_env_file(tmp_path / ".env")["HEALERT_API_KEY"] == "mine"


def test_backend_settings_reach_the_backend(run: Run, tmp_path: Path) -> None:
    """What `backend settings` writes beside backend.yaml is what the backend starts with."""
    run("init", "--dir", tmp_path)
    assert (
        run("backend", "settings", "--file", tmp_path / ".env", "--preset", "strict", "--half-life", "2.5").exit_code
        == 0
    )
    backend, _ = read_backend_config(tmp_path / "backend.yaml")
    assert (backend.threshold, backend.half_life_days, backend.score_retention_days) == (20, 2.5, 30)


def test_systemd_units(run: Run, tmp_path: Path) -> None:
    """The units run the written settings, read the keys as root and share one unprivileged user."""
    run("init", "--dir", tmp_path, "--systemd", "--data-dir", "/srv/forwarder")
    for name, settings in (("receive", "forwarder.yaml"), ("backend", "backend.yaml")):
        unit = (tmp_path / "systemd" / f"forwarder-{name}.service").read_text()
        assert f" {name} --config {tmp_path}/{settings}\n" in unit
        assert f"EnvironmentFile={tmp_path}/.env\n" in unit
        assert "User=forwarder\n" in unit
        assert "ReadWritePaths=/srv/forwarder\n" in unit
        assert "\n\n[Install]\n" in unit


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--cluster", "a: b"], "--cluster"),
        (["--backend-url", "backend:8000"], "--backend-url"),
        (["--backend-url", "http://user:secret@backend"], "--backend-url"),
        (["--forward-listen", "nowhere:99999"], "--forward-listen"),
        (["--audit-log", "audit.log"], "--audit-log"),
        (["--data-dir", '/a"b'], "--data-dir"),
        (["--audit-log", "none", "--forward-listen", "none"], "--audit-log, --forward-listen"),
    ],
)
def test_an_answer_that_cannot_be_is_named(run: Run, tmp_path: Path, arguments: list[str], named: str) -> None:
    """Answers go into YAML, so each is checked; nothing is written."""
    error = run("init", "--dir", tmp_path, *arguments).exception
    assert isinstance(error, ConfigError)
    assert str(error).startswith(named)
    assert list(tmp_path.iterdir()) == []
