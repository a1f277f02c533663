"""`forwarder status`: what runs, and whether every event is accounted for. Works while everything is down.

The ledger is read from the outbox file; the telemetry port only adds whether the receiver accepts now. Exit 1 when an
equation of the ledger does not hold.
"""

import shutil
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forwarder.cli import console
from forwarder.cli.console import FAILED, out, plural
from forwarder.cli.places import Config, DataDir, Places, find_places
from forwarder.errors import ConfigError

if TYPE_CHECKING:
    from forwarder.outbox import Ledger

PROBE_DEADLINE_S = 2.0  # loopback answers in milliseconds; a hung process must not hang the command
MAX_WORD_BYTES = 64
LITTLE_ROOM_BYTES = 1 << 20  # SQLite asks for whole pages, in its file and in its log


def status(
    config: Config = None,
    folder: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """What runs, the ledger of the outbox, and whether it balances; exit 1 when it does not."""
    from forwarder.outbox import read_ledger

    places = find_places(config, folder)
    state = probe(places.telemetry)
    ledger = None
    problem = ""
    try:
        ledger = read_ledger(places.outbox)
    except ConfigError as error:
        if places.outbox.exists():
            raise
        problem = str(error)
    wrong = ledger.balanced() if ledger else []
    if as_json:
        console.ndjson(as_data(places, state, ledger, wrong))
    else:
        _show(places, state, ledger, wrong, problem)
    if wrong:
        raise typer.Exit(FAILED)


def probe(telemetry: str) -> str:
    """`ready`, `waiting` (alive, not accepting) or `down`: what answers on the telemetry port."""
    if not telemetry:
        return "down"
    host, _, port = telemetry.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - not a bind
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/readyz", timeout=PROBE_DEADLINE_S) as answer:
            word = answer.read(MAX_WORD_BYTES)
    except urllib.error.HTTPError as error:
        return "waiting" if error.code == 503 else "down"
    except (OSError, ValueError):
        return "down"
    return "ready" if word.strip() == b"ready" else "down"


def as_data(places: Places, state: str, ledger: "Ledger | None", wrong: list[str]) -> dict[str, Any]:
    """The same facts for machines; keys do not change between versions, new ones may come."""
    import msgspec

    running = places.running
    return {
        places.owner: state,
        "pid": running.pid if running else None,
        "backend": running.backend if running else None,
        "outbox": str(places.outbox),
        "ledger": msgspec.to_builtins(ledger) if ledger else None,
        "balanced": None if ledger is None else not wrong,
        "wrong": wrong,
    }


def _show(places: Places, state: str, ledger: "Ledger | None", wrong: list[str], problem: str) -> None:
    words = {"ready": "accepting", "waiting": "alive, but not accepting", "down": "not running"}
    pid = f" (process {places.running.pid})" if places.running else ""
    at = f", telemetry on {places.telemetry}" if state != "down" else ""
    out(f"{places.owner:<9} {console.mark(state == 'ready')} {words[state]}{pid}{at}")
    if places.running and places.running.backend:
        out(f"backend   http://{places.running.backend}")
    if ledger is None:
        out(f"outbox    {console.mark(None)} {problem}")
        return
    letters = plural(ledger.dead_letters, "dead letter")
    out(f"outbox    {places.outbox}, {ledger.bytes / (1 << 20):.1f} MiB, {letters}")
    if (free_bytes := shutil.disk_usage(places.outbox.parent).free) < LITTLE_ROOM_BYTES:
        out(
            f"          {console.mark(good=False)} its disk is full: {free_bytes >> 10} KiB free; senders wait, make room"
        )
    out(
        f"events    {ledger.detected:,} detected = {ledger.new:,} new + {ledger.update:,} update "
        f"+ {ledger.duplicate:,} duplicate + {ledger.expired:,} expired"
    )
    numbers = ("eligible", "delivered", "waiting", "dead")
    rows = [
        (sink.name, *(f"{getattr(sink, name):,}" for name in numbers), _age(sink.oldest_waiting_s), _note(sink.active))
        for sink in ledger.sinks
    ]
    if rows:
        out()
        console.table(("sink", *numbers, "oldest", ""), rows, right=(*numbers, "oldest"))
        out()
    out(f"ledger    {console.mark(not wrong)} {'balances' if not wrong else 'DOES NOT BALANCE'}")
    for line in wrong:
        out(f"          {line}")


def _age(age_s: float | None) -> str:
    if age_s is None:
        return ""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if age_s >= unit_s:
            return f"{age_s / unit_s:.0f} {unit}"
    return f"{age_s:.0f} s"


def _note(active: bool) -> str:
    return "" if active else "no longer configured"
