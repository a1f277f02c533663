"""`forwarder keys` on the backend's database: what is handed over, to whom, and what is never shown."""

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forwarder.backend.access.keys import KeyRing, KeyStore
from forwarder.backend.database import Database, open_database
from forwarder.cli import app
from forwarder.cli.keys import read_env_file
from forwarder.errors import ConfigError

RUN = CliRunner()


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    open_database("backend.db").dispose()
    return "backend.db"


def run(*arguments: str, code: int = 0) -> str:
    result = RUN.invoke(app, ["keys", *arguments, "--database", "backend.db"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def found(secret: str) -> tuple[str, list[str]] | None:
    """Name and rights of a key in force."""
    engine = open_database("backend.db")
    try:
        ring = KeyRing([], KeyStore(Database(engine)))
        ring.refresh()
        key = ring.find(secret.strip().encode())
        return (key.name, sorted(key.rights)) if key else None
    finally:
        engine.dispose()


def test_create(database: str) -> None:
    """The key is in a file of its owner, not on the terminal, and works with the rights that were given."""
    said = run("create", "jane", "--may", "read", "--may", "change")
    file = Path("jane.key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert found(file.read_text()) == ("jane", ["change", "read"])
    assert file.read_text().strip() not in said
    assert "the backend's first key" in said
    assert "first key" not in run("create", "ci", "--may", "write")


def test_create_into_a_settings_file(database: str) -> None:
    """A receiver finds it where it looks, and the other lines stay."""
    Path(".env").write_text("A=1\n")
    run("create", "ci", "--may", "write", "--out", ".env:HEALERT_API_KEY")
    settings = read_env_file(Path(".env"))
    assert settings["A"] == "1"
    assert found(settings["HEALERT_API_KEY"]) == ("ci", ["write"])


def test_create_on_request_to_stdout(database: str) -> None:
    """For a pipe into a vault."""
    arguments = ["keys", "create", "ci", "--may", "write", "--out", "-", "--database", database]
    assert found(RUN.invoke(app, arguments).stdout) == ("ci", ["write"])


def test_a_file_is_never_replaced(database: str) -> None:
    """And then no key is made that nobody has."""
    Path("ci.key").write_text("precious")
    with pytest.raises(ConfigError, match=r"ci\.key: is there already"):
        run("create", "ci", "--may", "write")
    assert Path("ci.key").read_text() == "precious"
    assert "none yet" in run("list")


def test_rotate(database: str) -> None:
    """The new key works, the former one for as long as it was given, and data stays where it is."""
    run("create", "ci", "--may", "write")
    old = Path("ci.key").read_text()
    run("rotate", "ci", "--grace-hours", "2", "--out", "new.key")
    assert found(old) == found(Path("new.key").read_text()) == ("ci", ["write"])
    run("rotate", "ci", "--out", "newest.key")
    assert found(old) is None
    assert found(Path("newest.key").read_text()) == ("ci", ["write"])


def test_revoke(database: str) -> None:
    """A revoked key is over; what is not there cannot be revoked."""
    run("create", "ci", "--may", "write")
    assert "1 key revoked" in run("revoke", "ci")
    assert found(Path("ci.key").read_text()) is None
    run("revoke", "ci", code=1)


def test_list(database: str) -> None:
    """Names, rights and ends, and nothing of the key."""
    run("create", "ci", "--may", "write", "--days", "3")
    run("create", "jane", "--may", "read")
    run("revoke", "jane")
    said = run("list")
    assert [line.split()[:2] for line in said.splitlines()[1:]] == [["ci", "write"], ["jane", "read"]]
    assert "ended" in said
    assert Path("ci.key").read_text().strip()[3:12] not in said


def test_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped path makes no new database."""
    monkeypatch.chdir(tmp_path)
    assert "backend.db is not there" in run("create", "ci", "--may", "write", code=2)
    assert not list(tmp_path.iterdir())
