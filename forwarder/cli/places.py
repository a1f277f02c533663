"""Where commands that look from outside find the outbox and the telemetry port of a receiver or a backend, running or not."""

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from forwarder.cli.background import Running, find_running
from forwarder.cli.environment import DEFAULT_TELEMETRY_LISTEN, data_dir
from forwarder.errors import ConfigError

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Settings file of `receive`, or of a `backend` with sinks.", envvar="FORWARDER_CONFIG"
    ),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Data folder of `forwarder up`.")]


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """outbox: the file. telemetry: HOST:PORT, empty when unknown. running: the process of `up`, where it is one.

    owner: whose outbox it is.
    """

    outbox: Path
    telemetry: str = ""
    running: Running | None = None
    owner: Literal["receiver", "backend"] = "receiver"


def find_places(config: Path | None, folder: Path | None) -> Places:
    """From the settings file where one is given, else from the data folder. Raises ConfigError."""
    if config is not None:
        from forwarder.cli.configuration import is_backend_config, read_config, read_exits

        if is_backend_config(config):
            exits = read_exits(config)
            if exits is None:
                raise ConfigError("no sink hangs off this backend, so it has no outbox", where=str(config))
            return Places(outbox=exits.outbox_path, telemetry=exits.config.telemetry.listen, owner="backend")
        loaded = read_config(config)
        return Places(outbox=loaded.outbox_path, telemetry=loaded.config.telemetry.listen)
    directory = data_dir(os.environ, folder)
    running = find_running(directory)
    telemetry = running.telemetry if running else os.environ.get("FORWARDER_TELEMETRY_LISTEN", DEFAULT_TELEMETRY_LISTEN)
    return Places(outbox=directory / "outbox.db", telemetry=telemetry, running=running)
