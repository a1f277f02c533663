"""`forwarder keys`: what the file holds afterwards, who may read it, and what is never printed."""

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forwarder.cli import app
from forwarder.cli.keys import KEY_NAMES, read_env_file, write_env_file
from forwarder.errors import ConfigError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_new_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """The file is 0600 from the moment it exists, whatever the umask."""
    file = tmp_path / ".env"
    run("keys", "new", "--file", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(read_env_file(file)) == set(KEY_NAMES)
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_a_key_is_never_printed(tmp_path: Path) -> None:
    """Neither new nor rotate shows a key: a terminal remembers."""
    file = tmp_path / ".env"
    said = run("keys", "new", "--file", str(file)) + run("keys", "rotate", "--file", str(file))
    assert not any(value in said for value in read_env_file(file).values())


def test_new_keeps_what_is_there(tmp_path: Path) -> None:
    """A key that is in use is not replaced by `new`."""
    file = tmp_path / ".env"
    file.write_text("HEALERT_API_KEY=mine\n")
    run("keys", "new", "--file", str(file))
    settings = read_env_file(file)
    assert settings["HEALERT_API_KEY"] == "mine"
    assert len(settings["FORWARD_SHARED_KEY"]) >= 43


def test_rotate_keeps_every_other_line(tmp_path: Path) -> None:
    """Comments, order and other settings survive; permissions that were too wide are tightened."""
    file = tmp_path / ".env"
    file.write_text("# mine\nSCORE_CRITICAL_THRESHOLD=20\nexport HEALERT_API_KEY='old'\n\nX=1\n")
    file.chmod(0o644)
    run("keys", "rotate", "--file", str(file))
    lines = file.read_text().splitlines()
    assert lines[:2] == ["# mine", "SCORE_CRITICAL_THRESHOLD=20"]
    assert lines[2].startswith("HEALERT_API_KEY=")
    assert "old" not in lines[2]
    assert lines[3:5] == ["", "X=1"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_rotate_one(tmp_path: Path) -> None:
    """--only leaves the other key alone."""
    file = tmp_path / ".env"
    run("keys", "new", "--file", str(file))
    before = read_env_file(file)
    run("keys", "rotate", "--only", "FORWARD_SHARED_KEY", "--file", str(file))
    after = read_env_file(file)
    assert after["HEALERT_API_KEY"] == before["HEALERT_API_KEY"]
    assert after["FORWARD_SHARED_KEY"] != before["FORWARD_SHARED_KEY"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Writing through a symbolic link changes the file it points at."""
    (tmp_path / "real").write_text("A=1\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_env_file(tmp_path / "link", {"A": "2"})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "A=2\n"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ("A = 'a b'", "a b"),
        ('A="x#y"', "x#y"),
        ("A=x # comment", "x"),
        ("A=x#y", "x#y"),
        ("A=", ""),
    ],
)
def test_settings_are_read_as_a_shell_would(tmp_path: Path, line: str, value: str) -> None:
    """`export`, quotes and comments are understood."""
    (tmp_path / ".env").write_text(line + "\n")
    assert read_env_file(tmp_path / ".env") == {"A": value}


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The error carries the path and leaves nothing behind."""
    with pytest.raises(ConfigError, match=r"nowhere.*No such file"):
        write_env_file(tmp_path / "nowhere" / ".env", {"A": "1"})


def test_git_is_warned_about(tmp_path: Path) -> None:
    """A repository that would commit the keys is pointed out; one that ignores them is not."""
    (tmp_path / ".git").mkdir()
    assert "does not ignore .env" in run("keys", "new", "--file", str(tmp_path / ".env"))
    (tmp_path / ".gitignore").write_text(".env\n")
    assert "does not ignore" not in run("keys", "new", "--file", str(tmp_path / ".env"))
