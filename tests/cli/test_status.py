"""`forwarder status` while everything is down."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import forwarder.cli.status as module

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket is opened."""
    monkeypatch.setattr(module, "probe", lambda _: "down")


def test_it_works_while_things_are_down(run: Run, outbox: Path) -> None:
    """The ledger is read from the file: what was detected, what waits for whom, and that it balances."""
    result = run("status", "--data-dir", outbox)
    assert result.exit_code == 0
    assert "not running" in result.stdout
    assert "2 detected = 2 new + 0 update" in result.stdout
    assert "1 dead letter" in result.stdout
    assert "balances" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("backend "))
    assert row.split()[1:5] == ["2", "0", "2", "0"]


def test_for_machines(run: Run, outbox: Path) -> None:
    """One object with the same facts."""
    data = json.loads(run("status", "--data-dir", outbox, "--json").stdout)
    assert (data["receiver"], data["balanced"], data["ledger"]["new"]) == ("down", True, 2)


def test_a_ledger_that_does_not_balance_exits_1(run: Run, outbox: Path) -> None:
    """A lost event is said with its numbers."""
    with sqlite3.connect(outbox / "outbox.db") as connection:
        connection.execute("UPDATE sinks SET delivered = 1")
    connection.close()
    result = run("status", "--data-dir", outbox)
    assert result.exit_code == 1
    assert "DOES NOT BALANCE" in result.stdout
    assert "eligible 2 is not delivered 1" in result.stdout


def test_a_full_disk_is_said(run: Run, outbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver is alive and the ledger balances, but nothing comes in."""
    full = module.shutil.disk_usage(outbox)._replace(free=4096)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: full)
    assert "✗ its disk is full: 4 KiB free" in run("status", "--data-dir", outbox).stdout


def test_before_the_first_start(run: Run, tmp_path: Path) -> None:
    """Without an outbox there is nothing wrong, only nothing there."""
    result = run("status", "--data-dir", tmp_path / "none")
    assert result.exit_code == 0
    assert "none/outbox.db" in result.stdout


@pytest.mark.parametrize(
    ("age_s", "words"), [(None, ""), (0.4, "0 s"), (59, "59 s"), (61, "1 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_ages(age_s: float | None, words: str) -> None:
    """Ages have one unit."""
    assert module._age(age_s) == words
