"""`forwarder backend`: the friction backend on its own; `backend settings` changes how it scores and how long it keeps
events, `backend migrate` brings its database to this version, `backend reset` empties it.
"""

import getpass
import logging
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from forwarder import logs
from forwarder.backend.scoring import MAX_DAYS
from forwarder.cli import console
from forwarder.cli.console import out, plural, say, stop
from forwarder.cli.environment import backend_document
from forwarder.cli.keys import read_env_file, write_env_file

if TYPE_CHECKING:
    from forwarder.backend.settings import BackendSettings
    from forwarder.exits import Exits, NoExits
    from forwarder.registry import LogSettings

log = logging.getLogger("forwarder")

app = typer.Typer(invoke_without_command=True, help="Run the friction backend; set its score; empty it.")

Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file with the key `backend`.")]
Database = Annotated[str, typer.Option(help="SQLite file or database URL; default ./healert.db.")]

VARIABLES = {
    "threshold": "SCORE_CRITICAL_THRESHOLD",
    "half_life": "SCORE_DECAY_HALF_LIFE",
    "retention": "SCORE_RETENTION_DAYS",
    "event_retention": "HEALERT_RETENTION_DAYS",
}
STORED_NAMES = {
    "threshold": "threshold",
    "half_life": "half_life_days",
    "retention": "score_retention_days",
    "event_retention": "retention_days",
}
DEFAULTS = {"threshold": "50", "half_life": "7", "retention": "30", "event_retention": "30"}
# What --reset writes into a file: not how long events are kept, since a shorter time deletes some.
DEFAULT_SCORE = {name: value for name, value in DEFAULTS.items() if name != "event_retention"}


class Preset(StrEnum):
    """Known pairs of threshold and half-life."""

    strict = "strict"
    default = "default"
    lenient = "lenient"


PRESETS = {Preset.strict: ("20", "3"), Preset.default: ("50", "7"), Preset.lenient: ("100", "14")}


@app.callback()
def backend(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT; default 127.0.0.1:8000; elsewhere HEALERT_API_KEY is needed.")
    ] = "",
    database: Database = "",
    config: Config = None,
) -> None:
    """Run the friction backend until SIGTERM or Ctrl-C."""
    if context.invoked_subcommand:
        if listen or database or config:
            stop(f"write the options behind `{context.invoked_subcommand}`", console.USAGE)
        return
    import asyncio

    from forwarder.backend.server import BackendServer
    from forwarder.cli.rule_cards import rule_book
    from forwarder.cli.signals import run_service

    settings, chosen = chosen_settings(config, listen, database)
    logs.configure(chosen.level, chosen.format)
    exits = _exits(config)
    told = exits or _no_exits(config)
    server = BackendServer(settings, exit_=exits, rules=rule_book(settings.rules), telemetry=told.telemetry)

    def started() -> None:
        key = "a key is needed to write" if server.keys else "no key is asked for; set HEALERT_API_KEY"
        log.info("backend on http://%s, %s", server.address, key)
        if exits:
            log.info("first-seen events go on to %s", ", ".join(exits.sinks))
        if told.telemetry_address:
            log.info("metrics on http://%s", told.telemetry_address)

    async def service(stopping: asyncio.Event) -> None:
        if told is exits:
            await server.serve(stopping, started)
            return
        told.open()
        try:
            await server.serve(stopping, started)
        finally:
            told.close()

    run_service(service)
    log.info("stopped")


@app.command()
def settings(
    threshold: Annotated[
        float | None, typer.Option(help="Points that make a score of 100.", min=0.001, max=1e9)
    ] = None,
    half_life: Annotated[
        float | None, typer.Option(help="Days after which a point counts half.", min=0.01, max=MAX_DAYS)
    ] = None,
    retention: Annotated[int | None, typer.Option(help="Days that the score looks back.", min=1, max=MAX_DAYS)] = None,
    event_retention: Annotated[
        int | None, typer.Option(help="Days after which events are deleted.", min=1, max=MAX_DAYS)
    ] = None,
    preset: Annotated[Preset | None, typer.Option(help="strict 20/3, default 50/7 or lenient 100/14.")] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Back to what the backend starts with; in a file the score's to 50, 7, 30.")
    ] = False,
    file: Annotated[Path, typer.Option("--file", "-f", help="The settings file that the backend starts with.")] = Path(
        ".env"
    ),
    database: Annotated[str, typer.Option(help="Change it in this database instead: a running backend follows.")] = "",
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The same for the database of this settings file.")
    ] = None,
) -> None:
    """Show or change how the backend scores and how long it keeps events: in a file for the next start, in a database at once."""
    changes: dict[str, str] = {}
    if preset:
        changes["threshold"], changes["half_life"] = PRESETS[preset]
    given = {
        "threshold": threshold,
        "half_life": half_life,
        "retention": retention,
        "event_retention": event_retention,
    }
    changes |= {name: _digits(value) for name, value in given.items() if value is not None}
    if database or config:
        _settings_in_database(_existing(config, database), changes, reset=reset)
    else:
        _settings_in_file(file, (DEFAULT_SCORE if reset else {}) | changes)


def _settings_in_file(file: Path, changes: dict[str, str]) -> None:
    present = read_env_file(file) if file.exists() else {}
    if changes:
        write_env_file(file, {VARIABLES[name]: value for name, value in changes.items()})
        present |= {VARIABLES[name]: value for name, value in changes.items()}
    for name, variable in VARIABLES.items():
        source = "changed" if name in changes else str(file) if variable in present else "default"
        out(f"{name:<15} {present.get(variable, DEFAULTS[name]):>6}  ({variable}, {source})")
    if changes:
        say("it holds from the next start: of `forwarder backend --config` with this file beside its settings, of")
        say("`forwarder up` with it in the data folder, else with it in the environment")


def _settings_in_database(chosen: "BackendSettings", changes: dict[str, str], *, reset: bool) -> None:
    """A running backend sees the change with its next look; one that does not run, when it starts."""
    from forwarder.backend.store import Store

    store = Store.open(chosen.database)
    try:
        now_us = time.time_ns() // 1000
        if reset:
            store.settings.reset(now_us=now_us, apply=False)
        if changes:
            wanted = {STORED_NAMES[name]: msgspec.json.decode(value) for name, value in changes.items()}
            store.settings.change(wanted, author=getpass.getuser(), now_us=now_us, apply=False)
        stored = {setting.name: setting for setting in store.settings.all()}
    finally:
        store.close()
    for name, stored_name in STORED_NAMES.items():
        setting = stored[stored_name]
        if setting.source == "call":
            out(f"{name:<15} {_digits(setting.value):>6}  (set by {setting.author or 'a call'})")
        else:
            out(f"{name:<15} {'':>6}  (as the backend was started; default {DEFAULTS[name]})")
    if changes or reset:
        say("a running backend follows within seconds; a new half-life holds when the buckets are made for it")
    if "event_retention" in changes or reset:
        say("older events than are to be kept are deleted then")


@app.command()
def migrate(database: Database = "", config: Config = None) -> None:
    """Bring a database to this version: tables, and the sums of events that are there. The backend does it at start too."""
    from forwarder.backend.store import Store

    chosen, _ = chosen_settings(config, "", database)
    store = Store.open(chosen.database)
    try:
        number = store.count(include_tests=True)
    finally:
        store.close()
    out(f"{_without_password(chosen.database)} is up to date: {plural(number, 'event')}")


@app.command()
def reset(
    database: Database = "",
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete every stored event; settings and keys stay."""
    from forwarder.backend.store import Store

    chosen = _existing(config, database)
    store = Store.open(chosen.database)
    try:
        number = store.count(include_tests=True)
        if not yes and not typer.confirm(
            f"Delete {plural(number, 'event')} from {_without_password(chosen.database)}?"
        ):
            stop("nothing was deleted")
        out(f"{plural(store.empty(), 'event')} deleted")
    finally:
        store.close()


def _existing(config: Path | None, database: str) -> "BackendSettings":
    """The settings, with a database that is there: a typing error must not make one."""
    chosen, _ = chosen_settings(config, "", database)
    if "://" not in chosen.database and not Path(chosen.database).exists():
        stop(f"{chosen.database} is not there; say which with --database or --config")
    return chosen


def _exits(config: Path | None) -> "Exits | None":
    from forwarder.cli.configuration import read_exits
    from forwarder.exits import Exits

    loaded = read_exits(config) if config is not None else None
    return Exits(loaded) if loaded else None


def _no_exits(config: Path | None) -> "NoExits":
    from forwarder.cli.configuration import read_backend_telemetry
    from forwarder.exits import NoExits
    from forwarder.registry import TelemetrySettings

    return NoExits(TelemetrySettings(listen="") if config is None else read_backend_telemetry(config))


def chosen_settings(config: Path | None, listen: str, database: str) -> "tuple[BackendSettings, LogSettings]":
    from forwarder.cli.configuration import backend_settings, read_backend_config

    if config is not None:
        chosen, log_settings = read_backend_config(config)
    else:
        document, notices = backend_document(os.environ)
        for notice in notices:
            log.warning("%s", notice)
        chosen, log_settings = backend_settings(document)
    changes = {name: value for name, value in (("listen", listen), ("database", database)) if value}
    return msgspec.structs.replace(chosen, **changes), log_settings


def _digits(value: float) -> str:
    """A number as people write it: all of its digits, and no `.0`."""
    return f"{value:.15g}"


def _without_password(database: str) -> str:
    scheme, separator, rest = database.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if separator else database
