"""`forwarder backend settings --database` and `migrate`: what they do to a database, on SQLite."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import Result

from forwarder.backend.store import Store
from forwarder.errors import ConfigError

Run = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A new database."""
    path = tmp_path / "backend.db"
    Store.open(str(path)).close()
    return path


def chosen(database: Path) -> dict[str, float]:
    """The settings that a call has changed."""
    store = Store.open(str(database))
    try:
        return {setting.name: setting.value for setting in store.settings.all() if setting.source == "call"}
    finally:
        store.close()


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], {}),
        (["--preset", "strict"], {"threshold": 20, "half_life_days": 3}),
        (["--preset", "default"], {"threshold": 50, "half_life_days": 7}),
        (["--preset", "lenient", "--half-life", "2.5"], {"threshold": 100, "half_life_days": 2.5}),
        (["--threshold", "1234567.5"], {"threshold": 1234567.5}),
        (["--threshold", "1e9"], {"threshold": 1e9}),
        (["--half-life", "0.01"], {"half_life_days": 0.01}),
        (["--retention", "90"], {"score_retention_days": 90}),
        (["--event-retention", "365"], {"retention_days": 365}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_change(run: Run, database: Path, arguments: list[str], values: dict[str, float]) -> None:
    """What is given is stored with all its digits and told back; the rest stays as the backend was started."""
    result = run("backend", "settings", "--database", database, *arguments)
    assert result.exit_code == 0, result.output
    assert chosen(database) == values
    assert result.stdout.count("(set by ") == len(values)
    assert all(f"{value:.15g}" in result.stdout.split() for value in values.values())


def test_settings_add_up_until_they_are_reset(run: Run, database: Path) -> None:
    """A second call leaves what the first one set; --reset takes all back, and what stands beside it holds."""
    run("backend", "settings", "--database", database, "--threshold", 30)
    run("backend", "settings", "--database", database, "--retention", 14)
    assert chosen(database) == {"threshold": 30, "score_retention_days": 14}
    run("backend", "settings", "--database", database, "--reset", "--half-life", 2)
    assert chosen(database) == {"half_life_days": 2}
    result = run("backend", "settings", "--database", database, "--reset")
    assert chosen(database) == {}
    assert result.stdout.count("as the backend was started") == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threshold", "0"],
        ["--threshold", "-1"],
        ["--threshold", "nan"],
        ["--threshold", "inf"],
        ["--threshold", "2e9"],
        ["--threshold", "much"],
        ["--half-life", "0.001"],
        ["--half-life", "36501"],
        ["--retention", "0"],
        ["--retention", "1.5"],
        ["--retention", "36501"],
        ["--event-retention", "0"],
        ["--event-retention", "36501"],
        ["--preset", "fair"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("place", ["database", "file"])
def test_wrong_values(run: Run, database: Path, tmp_path: Path, place: str, arguments: list[str]) -> None:
    """Exit 2 with the name of the option; nothing is changed, not even by a --reset beside it, and no file is made."""
    run("backend", "settings", "--database", database, "--threshold", 30)
    target = {"database": ["--database", database], "file": ["--file", tmp_path / ".env"]}[place]
    result = run("backend", "settings", *target, "--reset", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr
    assert chosen(database) == {"threshold": 30}
    assert not (tmp_path / ".env").exists()


def test_settings_make_no_database(run: Run, tmp_path: Path) -> None:
    """A typing error in the path changes and makes nothing."""
    result = run("backend", "settings", "--database", tmp_path / "none.db", "--preset", "strict")
    assert result.exit_code == 1
    assert "none.db is not there" in result.stderr
    assert not (tmp_path / "none.db").exists()


def test_settings_by_the_settings_file(run: Run, database: Path, tmp_path: Path) -> None:
    """--config finds the database that the backend's settings file names."""
    config = tmp_path / "backend.yaml"
    config.write_text(f"backend: {{database: {database}}}\n")
    assert run("backend", "settings", "--config", config, "--threshold", 40).exit_code == 0
    assert chosen(database) == {"threshold": 40}


def test_migrate_makes_a_database_and_then_changes_nothing(run: Run, tmp_path: Path) -> None:
    """The first call makes it, the second one finds it up to date."""
    database = tmp_path / "new.db"
    for _ in range(2):
        result = run("backend", "migrate", "--database", database)
        assert (result.exit_code, result.stdout) == (0, f"{database} is up to date: 0 events\n")
    assert database.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("command", [["migrate"], ["settings"], ["reset", "--yes"]], ids=lambda words: words[0])
def test_a_newer_database_is_refused(run: Run, database: Path, command: list[str]) -> None:
    """A database of a program that does not exist yet is named and left alone."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = database.read_bytes()
    error = run("backend", *command, "--database", database).exception
    assert isinstance(error, ConfigError)
    assert "newer version of this program (revision 9999)" in str(error)
    assert str(database) in str(error)
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    ("database", "words"),
    [("mysql://u:secret@h/n", "not supported"), ("sqlite://", "path of a file"), ("://", "no valid database URL")],
    ids=["mysql", "memory", "nothing"],
)
def test_no_database(run: Run, database: str, words: str) -> None:
    """What is no database of ours is refused without its password."""
    error = run("backend", "migrate", "--database", database).exception
    assert isinstance(error, ConfigError)
    assert words in str(error)
    assert "secret" not in str(error)
