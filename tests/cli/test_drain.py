"""`forwarder drain`: it returns when nothing waits, and says what does when time is up."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwarder.cli.drain import POLL_S, wait_until_empty
from forwarder.errors import ConfigError
from forwarder.outbox import Ledger
from forwarder.outbox.ledger import SinkLedger

Run = Callable[..., Result]


def ledger(*waiting: int, active: bool = True) -> Ledger:
    """A ledger whose sinks wait for so many events each."""
    sinks = tuple(
        SinkLedger(name=f"sink-{number}", active=active, eligible=9, delivered=9 - events, waiting=events, dead=0)
        for number, events in enumerate(waiting)
    )
    return Ledger(
        detected=9,
        new=9,
        update=0,
        duplicate=0,
        expired=0,
        sinks=sinks,
        dead_letters=0,
        dead_letters_evicted=0,
        bytes=0,
    )


class Time:
    """A clock that only sleeping moves."""

    now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_it_waits_for_the_slowest_sink() -> None:
    """One empty sink is not enough."""
    states = [ledger(2, 5), ledger(0, 3), ledger(0, 0)]
    time = Time()
    assert wait_until_empty(lambda: states.pop(0), 60.0, lambda: time.now, time.sleep) == {}
    assert states == []
    assert time.now == 100.0 + 2 * POLL_S


def test_what_still_waits_is_told_by_sink() -> None:
    """After the time-out, and not before."""
    time = Time()
    assert wait_until_empty(lambda: ledger(0, 5), 3.0, lambda: time.now, time.sleep) == {"sink-1": 5}
    assert time.now == 103.0


def test_a_sink_that_is_no_longer_configured_is_not_waited_for() -> None:
    """Nobody would ever deliver to it."""
    assert wait_until_empty(lambda: ledger(4, active=False), 60.0) == {}


def test_it_fails_while_events_wait(run: Run, outbox: Path) -> None:
    """Exit 1, with the number and what becomes of them."""
    result = run("drain", "--data-dir", outbox, "--timeout", "0")
    assert result.exit_code == 1
    assert "backend: 2 events" in result.stderr
    assert "next start" in result.stderr


def test_a_wrong_path_is_no_success(run: Run, tmp_path: Path) -> None:
    """Where there is no outbox, nothing was waited for."""
    error = run("drain", "--data-dir", tmp_path / "none").exception
    assert isinstance(error, ConfigError)


@pytest.mark.parametrize("timeout", ["-1", "soon"])
def test_a_time_out_is_a_number_of_seconds(run: Run, timeout: str) -> None:
    """Usage errors exit 2."""
    assert run("drain", "--timeout", timeout).exit_code == 2
