"""`forwarder keys new | rotate`: the two shared secrets, in a file that only its owner can read.

    HEALERT_API_KEY      what the receiver shows the backend
    FORWARD_SHARED_KEY   what Fluent Bit shows the receiver

Keys with names, of which the backend keeps hashes (`keys create | list | rotate NAME | revoke`), are access_keys.py.

A key is never printed and never an argument: both would end in a terminal's scrollback or in `ps`. Other settings of
the file are kept, line by line.
"""

import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from forwarder.cli.console import out, say, warn
from forwarder.errors import ConfigError

KEY_NAMES = ("HEALERT_API_KEY", "FORWARD_SHARED_KEY")
ENV_FILE = ".env"
KEY_BYTES = 32  # 256 bits, as `openssl rand -base64 32` gives
MAX_ENV_FILE_BYTES = 1 << 20  # settings of one program; more is another file

_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)$")

app = typer.Typer(no_args_is_help=True, help="Make and replace the keys of receiver and backend.")

File = Annotated[Path, typer.Option("--file", "-f", help="The settings file that holds the keys; made when missing.")]


@app.command()
def new(file: File = Path(".env")) -> None:
    """Write the keys that the file does not have yet; those that it has stay."""
    present = read_env_file(file) if file.exists() else {}
    missing = [name for name in KEY_NAMES if not present.get(name)]
    write_env_file(file, {name: make_key() for name in missing})
    for name in KEY_NAMES:
        out(f"{name}: {'written' if name in missing else 'was there already, kept'}")
    _afterwards(file)
    if not missing:
        say("nothing was missing; `forwarder keys rotate` replaces the keys")


@app.command()
def rotate(
    name: Annotated[str, typer.Argument(help="A key of the backend, by its name; without it those of --file.")] = "",
    file: File = Path(".env"),
    only: Annotated[str, typer.Option(help=f"Replace one key: {' or '.join(KEY_NAMES)}.")] = "",
    grace_hours: Annotated[
        float, typer.Option(help="How long the named key's former self still works.", min=0, max=8760)
    ] = 0.0,
    target: Annotated[str, typer.Option("--out", help="With NAME: as for `keys create`.")] = "",
    database: Annotated[str, typer.Option(help="With NAME: as for `keys create`.")] = "",
    config: Annotated[Path | None, typer.Option("--config", "-c", help="With NAME: as for `keys create`.")] = None,
) -> None:
    """Replace keys by new ones: those of a settings file, or a named one of the backend."""
    if name:
        from forwarder.cli.access_keys import rotate_named

        rotate_named(name, grace_hours, target, database, config)
        return
    if only and only not in KEY_NAMES:
        raise ConfigError(f"{only!r} is no key; valid: {', '.join(KEY_NAMES)}", where="--only")
    names = [only] if only else list(KEY_NAMES)
    write_env_file(file, {each: make_key() for each in names})
    for replaced in names:
        out(f"{replaced}: replaced")
    _afterwards(file)
    say("restart what reads it: receiver, backend and Fluent Bit must agree on a key")


def make_key() -> str:
    """A new key: URL-safe, so that it needs no quotes in YAML, in a shell or in an HTTP header."""
    return secrets.token_urlsafe(KEY_BYTES)


def read_env_file(path: Path) -> dict[str, str]:
    """The settings of a `NAME=value` file; quotes and `export` are taken off. Raises ConfigError when unreadable."""
    settings: dict[str, str] = {}
    for line in _lines(path):
        match = _LINE.match(line)
        if match:
            settings[match.group(1)] = _unquoted(match.group(2))
    return settings


def write_env_file(path: Path, changes: Mapping[str, str]) -> None:
    """Set `changes` in the file, at once or not at all, readable by its owner only; other lines stay as they are.

    A new file takes the old one's place only when it is on disk, so that a crash leaves one or the other.
    """
    path = path.resolve()  # a symbolic link stays one
    lines = _lines(path) if path.exists() else []
    left = dict(changes)
    for index, line in enumerate(lines):
        match = _LINE.match(line)
        if match and match.group(1) in changes:
            name = match.group(1)
            lines[index] = f"{name}={changes[name]}"
            left.pop(name, None)
    lines += [f"{name}={value}" for name, value in left.items()]
    old_mask = os.umask(0o077)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".env-")  # mkstemp makes it 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                _keep_owner(Path(temporary), path)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror}", where=str(path)) from None
    finally:
        os.umask(old_mask)


def _keep_owner(new_file: Path, old_file: Path) -> None:
    """So that keys which root rotates do not lock their service out."""
    status = old_file.stat()
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.chown(new_file, status.st_uid, status.st_gid)
        except PermissionError:
            warn(f"{old_file} belonged to another user; it is yours now")


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_ENV_FILE_BYTES + 1)
        if len(raw) > MAX_ENV_FILE_BYTES:
            raise ConfigError(f"larger than {MAX_ENV_FILE_BYTES >> 20} MiB; that is no settings file", where=str(path))
        return raw.decode("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8; that is no settings file", where=str(path)) from None


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return re.sub(r"\s+#.*$", "", value)


def _afterwards(file: Path) -> None:
    say(f"the keys are in {file}, readable by its owner only (0600)")
    folder = file.resolve().parent
    ignore = folder / ".gitignore"
    if (folder / ".git").exists() and not (
        ignore.exists() and file.name in ignore.read_text("utf-8", "replace").split()
    ):
        warn(f"{folder} is a git repository that does not ignore {file.name}; add it to .gitignore")
