"""`forwarder keys create | list | rotate NAME | revoke`: the backend's keys by name, of which it keeps hashes only.

They are made in the backend's database, while it runs or not: what changes here counts there within a second. A new key
goes to a file that only its owner can read, or to a settings file, and to the terminal only where that is asked for.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forwarder.cli import console
from forwarder.cli.console import out, plural, say, stop, warn
from forwarder.cli.keys import write_env_file
from forwarder.errors import ConfigError

if TYPE_CHECKING:
    from forwarder.backend.access.keys import Key, KeyStore

STDOUT = "-"


class May(StrEnum):
    """The rights of a key."""

    write = "write"
    read = "read"
    change = "change"


Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file of `forwarder backend`.")]
Database = Annotated[str, typer.Option(help="The backend's SQLite file or database URL; default as it starts.")]
Out = Annotated[
    str, typer.Option("--out", help="File for the key, FILE:NAME for a line in a settings file, - for stdout.")
]


def create(
    name: Annotated[str, typer.Argument(help="Whose key it is: a receiver's, a person's, a portal's.")],
    may: Annotated[list[May], typer.Option(help="What it may do; may be given again. People need read and change.")],
    days: Annotated[int | None, typer.Option(help="Days after which it ends; default never.", min=1)] = None,
    target: Out = "",
    database: Database = "",
    config: Config = None,
) -> None:
    """Make a key for the backend, which takes it from then on, without a restart."""
    now_us = _now_us()
    _check_target(name, target)
    with _key_store(database, config) as keys:
        first = not any(key.holds(now_us) for key in keys.all())
        expires_us = None if days is None else now_us + days * 86_400_000_000
        _hand_over(keys.create(name, [right.value for right in may], now_us, expires_us), name, target)
    say(f"{name} may {' and '.join(sorted({right.value for right in may}))}")
    if first:
        warn("this is the backend's first key: from now on, whoever writes to it needs one with --may write")


def list_keys(database: Database = "", config: Config = None) -> None:
    """The backend's keys: what they may do, since when, until when, and when they were last used."""
    now_us = _now_us()
    with _key_store(database, config) as keys:
        found = keys.all()
    out(f"{'name':<24} {'may':<18} {'made':<16} {'ends':<16} last used (UTC)")
    for key in found:
        out(f"{key.name:<24} {_rights(key):<18} {_moment(key.created_us):<16} {_end(key, now_us):<16} "
            f"{_moment(key.used_us) if key.used_us else 'never'}")  # fmt: skip
    if not found:
        say("none yet; `forwarder keys create NAME --may write` makes one")


def revoke(
    name: Annotated[str, typer.Argument(help="As `keys list` shows it.")],
    database: Database = "",
    config: Config = None,
) -> None:
    """End a key of the backend, and every browser session that was opened with it."""
    with _key_store(database, config) as keys:
        ended = keys.revoke(name, _now_us())
    if not ended:
        stop(f"no key named {name} is in force; `forwarder keys list` shows them")
    out(f"{name}: {plural(ended, 'key')} revoked")


def rotate_named(name: str, grace_hours: float, target: str, database: str, config: Path | None) -> None:
    """Replace the key `name` by a new one; the former still works for `grace_hours`."""
    _check_target(name, target)
    with _key_store(database, config) as keys:
        _hand_over(keys.rotate(name, _now_us(), grace_hours * 3600), name, target)
    say(
        f"the former key works for another {grace_hours:g} h"
        if grace_hours
        else "the former key is over; with --grace-hours it would have gone on for a while"
    )


def _check_target(name: str, target: str) -> None:
    """Before a key is made that nobody could be given."""
    path = Path(target or f"{name}.key")
    if target != STDOUT and ":" not in target and path.exists():
        raise ConfigError("is there already; choose another --out", where=str(path))


def _hand_over(secret: str, name: str, target: str) -> None:
    """Give the key to its owner: this is the only time that it is seen."""
    file, _, variable = target.partition(":")
    if target == STDOUT:
        out(secret)
    elif variable:
        write_env_file(Path(file), {variable: secret})
        say(f"the key is in {file} as {variable}, readable by its owner only (0600)")
    else:
        path = Path(target or f"{name}.key")
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
                opened.write(f"{secret}\n")
        except OSError as error:
            raise ConfigError(
                f"cannot write the key: {error.strerror}; it is lost, rotate {name} with another --out", where=str(path)
            ) from None
        say(f"the key is in {path}, readable by its owner only (0600)")


@contextmanager
def _key_store(database: str, config: Path | None) -> "Iterator[KeyStore]":
    from forwarder.backend.access.keys import KeyStore
    from forwarder.backend.database import Database, open_database
    from forwarder.cli.backend import chosen_settings

    settings, _ = chosen_settings(config, "", database)
    if "://" not in settings.database and not Path(settings.database).exists():
        stop(f"{settings.database} is not there; say which database with --database or --config", console.USAGE)
    engine = open_database(settings.database)
    try:
        yield KeyStore(Database(engine))
    finally:
        engine.dispose()


def _now_us() -> int:
    return int(time.time() * 1e6)


def _rights(key: "Key") -> str:
    return ",".join(right.value for right in May if right.value in key.rights)


def _end(key: "Key", now_us: int) -> str:
    if key.expires_us is None:
        return "never"
    return _moment(key.expires_us) if key.holds(now_us) else "ended"


def _moment(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
