"""`forwarder backend settings` and `reset`; running it is for tests/e2e."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwarder.backend.intake import NewEvent, read_event
from forwarder.backend.store import Store
from forwarder.cli.backend import _without_password
from forwarder.cli.keys import read_env_file
from forwarder.errors import ConfigError

Run = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with one event."""
    path = tmp_path / "backend.db"
    store = Store.open(str(path))
    event = read_event({"entity_ref": "component:shop/web", "type": "kubectl-exec", "severity": "high"})
    assert isinstance(event, NewEvent)
    store.record([event], 1_000_000)
    store.close()
    return path


def count(database: Path) -> int:
    store = Store.open(str(database))
    try:
        return store.count()
    finally:
        store.close()


def test_settings_are_shown(run: Run, tmp_path: Path) -> None:
    """Without an option nothing changes: value, variable, and where it comes from."""
    (tmp_path / ".env").write_text("SCORE_CRITICAL_THRESHOLD=20\n")
    lines = run("backend", "settings", "--file", tmp_path / ".env").stdout.splitlines()
    assert lines[0].split()[:2] == ["threshold", "20"]
    assert "default" in lines[1]
    assert (tmp_path / ".env").read_text() == "SCORE_CRITICAL_THRESHOLD=20\n"


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--preset", "strict"], ("20", "3", None, "365")),
        (["--preset", "lenient", "--half-life", "2.5"], ("100", "2.5", None, "365")),
        (["--reset"], ("50", "7", "30", "365")),
        (["--retention", "90"], (None, None, "90", "365")),
        (["--event-retention", "90"], (None, None, None, "90")),
    ],
)
def test_settings_are_written(run: Run, tmp_path: Path, arguments: list[str], values: tuple[str | None, ...]) -> None:
    """Presets, single values and the way back; a value of its own wins over the preset, other lines stay, also how long
    events are kept unless that is asked for.
    """
    (tmp_path / ".env").write_text("HEALERT_API_KEY=mine\nHEALERT_RETENTION_DAYS=365\n")
    assert run("backend", "settings", "--file", tmp_path / ".env", *arguments).exit_code == 0
    written = read_env_file(tmp_path / ".env")
    names = ("SCORE_CRITICAL_THRESHOLD", "SCORE_DECAY_HALF_LIFE", "SCORE_RETENTION_DAYS", "HEALERT_RETENTION_DAYS")
    assert tuple(written.get(name) for name in names) == values
    assert written["HEALERT_API_KEY"] == "mine"


def test_reset_asks_first(run: Run, database: Path) -> None:
    """`n` keeps everything and exits 1; `y` deletes."""
    asked = run("backend", "reset", "--database", database, input="n\n")
    assert "Delete 1 event" in asked.output
    assert asked.exit_code == 1
    assert count(database) == 1
    assert run("backend", "reset", "--database", database, input="y\n").exit_code == 0
    assert count(database) == 0


def test_reset_yes(run: Run, database: Path) -> None:
    """--yes does not ask."""
    assert "1 event deleted" in run("backend", "reset", "--database", database, "--yes").stdout
    assert count(database) == 0


def test_reset_makes_no_database(run: Run, tmp_path: Path) -> None:
    """A typing error in the path deletes and makes nothing."""
    result = run("backend", "reset", "--database", tmp_path / "none.db", "--yes")
    assert result.exit_code == 1
    assert not (tmp_path / "none.db").exists()


def test_options_in_front_of_a_subcommand_are_refused(run: Run, database: Path) -> None:
    """`backend --database X reset` would otherwise reset the default database."""
    result = run("backend", "--database", database, "reset", "--yes")
    assert result.exit_code == 2
    assert "behind `reset`" in result.stderr
    assert count(database) == 1


def test_a_password_is_not_asked_about() -> None:
    """The question shows the database without its password."""
    assert _without_password("postgresql://u:secret@host/name") == "postgresql://host/name"
    assert _without_password("/data/b.db") == "/data/b.db"


def test_a_settings_file_without_backend(run: Run, tmp_path: Path) -> None:
    """The receiver's settings file given by mistake says which key is wrong."""
    (tmp_path / "forwarder.yaml").write_text("sources: {}\n")
    error = run("backend", "--config", tmp_path / "forwarder.yaml").exception
    assert isinstance(error, ConfigError)
    assert "unknown key `sources`" in str(error)
