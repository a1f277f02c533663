"""Settings files as the commands read them: the YAML file, the environment, and the `.env` beside the file.

What stands in the environment wins over the `.env` file, so that a service manager or a shell has the last word.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from forwarder.cli.keys import ENV_FILE, read_env_file
from forwarder.settings import Document, convert, expand, nearest, read_document

if TYPE_CHECKING:
    from forwarder.backend.settings import BackendSettings
    from forwarder.registry import Loaded, LogSettings, TelemetrySettings


def environment_in(folder: Path) -> dict[str, str]:
    """The environment, and below it the `.env` file of `folder`, where there is one to read.

    One that may not be read is passed over: a service manager reads it as root and hands the values on.
    """
    file = folder / ENV_FILE
    return (read_env_file(file) if os.access(file, os.R_OK) else {}) | dict(os.environ)


def read_config(config: Path) -> "Loaded":
    """The settings of `receive`, checked as a whole. Raises ConfigError."""
    from forwarder.registry import load_config

    return load_config(read_document(config), environment_in(config.parent))


def from_environment(document: Document) -> "Loaded":
    """The same for a document that was made of environment variables: their `$` are no variables of ours."""
    from forwarder.registry import load_config

    return load_config(msgspec.structs.replace(document, data=_literal(document.data)), {})


def read_backend_config(config: Path) -> "tuple[BackendSettings, LogSettings]":
    """The settings of `backend`, under the keys `backend` and `log`. Raises ConfigError."""
    document = expand(read_document(config), environment_in(config.parent))
    return backend_settings(document)


def read_exits(config: Path) -> "Loaded | None":
    """The sinks that hang off the backend of that file; None where there are none. Raises ConfigError."""
    from forwarder.registry import load_exits

    return load_exits(expand(read_document(config), environment_in(config.parent)))


def read_backend_telemetry(config: Path) -> "TelemetrySettings":
    """Where the backend of that file tells about itself. Raises ConfigError."""
    from forwarder.registry import ExitsConfig

    return convert(expand(read_document(config), environment_in(config.parent)), ExitsConfig).telemetry


def is_backend_config(config: Path) -> bool:
    """Whether the file is one of `forwarder backend`. Raises ConfigError when it cannot be read."""
    data = read_document(config).data
    return isinstance(data, dict) and "backend" in data and "sources" not in data


def backend_settings(document: Document) -> "tuple[BackendSettings, LogSettings]":
    """The `backend` and `log` parts of a document without variables. Raises ConfigError."""
    from forwarder.backend.settings import BackendSettings
    from forwarder.errors import ConfigError
    from forwarder.registry import LogSettings

    data: Mapping[str, Any] = document.data if isinstance(document.data, dict) else {}
    known = ("backend", "log", "sinks", "outbox", "telemetry")
    for key in data:
        if key not in known:
            raise ConfigError(f"unknown key `{key}`{nearest(key, known)}", where=document.where((key,)))
    if "backend" not in data:
        raise ConfigError("it needs the key `backend`, with `listen` and `database`", where=document.file)
    log = convert(document, LogSettings, ("log",)) if "log" in data else LogSettings()
    return convert(document, BackendSettings, ("backend",)), log


def _literal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value
