"""`forwarder drain`: wait until no event waits in the outbox, for a receiver that is about to be taken away for good.

A receiver that is stopped keeps what it could not deliver and goes on at its next start. One that will not start again
(a scale-down, a machine that is given back) should deliver first: its preStop hook, or a person, runs this beside it.
The receiver goes on accepting meanwhile; what comes after this returned is delivered while it shuts down.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from forwarder.cli.console import out, plural, say, stop
from forwarder.cli.places import Config, DataDir, find_places

if TYPE_CHECKING:
    from forwarder.outbox import Ledger

POLL_S = 0.5  # a full batch of 200 events takes about as long
SAY_EVERY_S = 10.0


def drain(
    config: Config = None,
    folder: DataDir = None,
    timeout: Annotated[float, typer.Option(help="Give up after so many seconds.", min=0)] = 60.0,
) -> None:
    """Wait until every event in the outbox has been delivered; exit 1 when some still wait after --timeout."""
    from forwarder.outbox import read_ledger

    path = find_places(config, folder).outbox
    left = wait_until_empty(lambda: read_ledger(path), timeout)
    if left:
        waiting = ", ".join(f"{name}: {plural(number, 'event')}" for name, number in left.items())
        stop(f"still waiting after {timeout:g} s ({waiting}); they stay in {path} for the next start")
    out("nothing waits: every event has been delivered")


def wait_until_empty(
    read: "Callable[[], Ledger]",
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Read the ledger until no sink waits for anything; what each still waits for when `timeout_s` have passed."""
    began = told = clock()
    while left := {sink.name: sink.waiting for sink in read().sinks if sink.active and sink.waiting}:
        now = clock()
        if now - began >= timeout_s:
            return left
        if now - told >= SAY_EVERY_S:
            told = now
            say(f"{plural(sum(left.values()), 'event')} waiting")
        sleep(POLL_S)
    return {}
