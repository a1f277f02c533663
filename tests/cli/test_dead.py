"""`forwarder dead` on an outbox that nobody runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwarder.outbox import dead_letters

Run = Callable[..., Result]


@pytest.fixture
def dead(run: Run, outbox: Path) -> Run:
    """`dead("list")`."""
    return lambda *arguments: run("dead", *arguments, "--data-dir", outbox)


def test_list(dead: Run) -> None:
    """What, from where, why, how large."""
    result = dead("list")
    assert result.exit_code == 0
    row = result.stdout.splitlines()[1]
    for word in ("record", "file audit.log", "7", "json", "2026-03-01T"):
        assert word in row


def test_list_for_machines(dead: Run) -> None:
    """One object each, without what is unknown."""
    (line,) = dead("list", "--output", "ndjson").stdout.splitlines()
    data = json.loads(line)
    assert (data["reason"], data["offset_bytes"], data["sha256"]) == ("json", 42, "ab" * 32)
    assert "event_id" not in data


def test_show(dead: Run) -> None:
    """Everything that is kept of one."""
    assert "{broken" in dead("show", 1).stdout


def test_show_what_is_not_there(dead: Run) -> None:
    """An unknown number exits 1 and says where the numbers are."""
    result = dead("show", 99)
    assert result.exit_code == 1
    assert "forwarder dead list" in result.stderr


def test_retry_a_record(dead: Run) -> None:
    """A line that nobody could read cannot be sent again; that is said and changes nothing."""
    result = dead("retry", 1)
    assert result.exit_code == 0
    assert "0 deliveries put back" in result.stdout
    assert "replay" in result.stderr


def test_retry_needs_to_know_which(dead: Run) -> None:
    """Nothing is retried by accident."""
    result = dead("retry")
    assert result.exit_code == 2
    assert "--all" in result.stderr


def test_forget(dead: Run, outbox: Path) -> None:
    """A dead letter that is dealt with goes."""
    assert "1 dead letter dropped" in dead("forget", 1).stdout
    assert dead_letters(outbox / "outbox.db") == []
    assert "no dead letters" in dead("list").stdout


def test_no_outbox(run: Run, tmp_path: Path) -> None:
    """A folder without an outbox is named."""
    assert str(tmp_path / "none") in str(run("dead", "list", "--data-dir", tmp_path / "none").exception)
