"""The command line as a whole: exit codes, messages, and what never reaches the terminal."""

import errno
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import Result

from forwarder import cli
from forwarder.errors import ConfigError, Overloaded

Run = Callable[..., Result]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`main(command, …)` runs the whole program with one command that does as told; (code, stdout, stderr)."""

    def call(action: Callable[[], None], *arguments: str) -> tuple[int, str, str]:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(action)
        app.command("other")(lambda: None)
        monkeypatch.setattr(cli, "app", app)
        monkeypatch.setattr(sys, "argv", ["forwarder", *(arguments or ("act",))])
        action.__name__ = "act"
        code = cli.run()
        return code, *capsys.readouterr()

    return call


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        pytest.param(ConfigError("no such key", where="a.yaml:3"), 2, "error: a.yaml:3: no such key\n", id="settings"),
        pytest.param(Overloaded("outbox is full"), 1, "error: outbox is full\n", id="run-time"),
        pytest.param(PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied\n", id="file"),
        pytest.param(KeyboardInterrupt(), 1, "", id="ctrl-c"),
        pytest.param(typer.Exit(2), 2, "", id="chosen"),
    ],
)
def test_how_it_ends(main: Callable[..., tuple[int, str, str]], error: BaseException, code: int, said: str) -> None:
    """0 done, 1 failed at run time, 2 bad configuration; one line that says where, and no stack trace."""
    ended, out, err = main(raises(error))
    assert (ended, out) == (code, "")
    assert err == said or (said == "" and "Traceback" not in err)


def test_a_fault_of_ours_quotes_no_data(main: Callable[..., tuple[int, str, str]]) -> None:
    """An unexpected exception names its place and its type, but never what it holds."""
    code, _, err = main(raises(KeyError("hunter2")))
    assert code == 1
    assert "hunter2" not in err
    assert "KeyError" in err
    assert "test_main.py" in err


def test_a_full_disk_behind_stdout_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`forwarder … > file` on a full disk fails, because the data is not there."""

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert cli._flushed(0) == 1
    assert "standard output: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rulez"], "rules"),
        (["rules", "chekc"], "check"),
        (["up", "--detatch"], "--detach"),
        (["replay", "x", "--sinse", "1d"], "--since"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest(run: Run, arguments: list[str], meant: str) -> None:
    """An unknown command or option exits 2 and names the one that was probably meant."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert meant in result.output


def test_every_command_and_option_explains_itself() -> None:
    """--help leaves nothing without words."""
    silent: list[str] = []

    def walk(command: object, path: str) -> None:
        if not (getattr(command, "help", None) or "").strip():
            silent.append(path)
        parameters = getattr(command, "params", [])
        silent.extend(f"{path} {parameter.name}" for parameter in parameters if not getattr(parameter, "help", None))
        for name, child in getattr(command, "commands", {}).items():
            walk(child, f"{path} {name}")

    walk(get_command(cli.app), "forwarder")
    assert silent == []


def test_help_names_the_commands(run: Run) -> None:
    """The first help shows every command in its group."""
    text = run("--help").output
    for name in (
        "up",
        "down",
        "status",
        "receive",
        "backend",
        "replay",
        "rules",
        "keys",
        "init",
        "dead",
        "doctor",
        "demo",
    ):
        assert f" {name} " in text


def test_a_missing_file_is_no_stack_trace(run: Run, tmp_path: Path) -> None:
    """A path that is not there becomes a ConfigError with the path in it."""
    result = run("receive", "--config", tmp_path / "none.yaml")
    assert isinstance(result.exception, ConfigError)
    assert "none.yaml: cannot read it" in str(result.exception)
