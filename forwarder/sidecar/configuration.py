"""Fluent Bit's configuration: the shipped files with their blanks filled in, and the operator's further outputs included.

Two files in the run folder, 0600: `fluent-bit.yaml`, which stays as it is while Fluent Bit runs, and `output.yaml`, which is
written anew when certificates or further outputs change. Both are replaced by rename, so a reload reads all or nothing of one.
"""

import contextlib
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from forwarder.errors import ConfigError
from forwarder.settings import read_secret, shipped
from forwarder.sidecar.classic import refuse_classic
from forwarder.sidecar.settings import SidecarSettings

MAIN, OUTPUT = "fluent-bit.yaml", "output.yaml"
MAX_ADDED_FILES = 64  # each is at least one output with threads of its own
MAX_ADDED_BYTES = 1 << 20

_BLANK = re.compile(r"\$\{(SIDECAR_[A-Z_]+)\}")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is known only at run time. certificates: whether the files are in place."""

    relay_port: int
    http_port: int
    certificates: bool


class Configuration:
    """Writes what Fluent Bit reads.

    included: the further outputs in force; those in the folder get there once Fluent Bit has nothing against them.
    """

    def __init__(self, settings: SidecarSettings) -> None:
        self._settings = settings
        self.included: list[Path] = []
        self.main = Path(settings.run_dir) / MAIN

    def render(self, state: State, *, show_secrets: bool = True) -> dict[str, str]:
        """File name -> text. Raises ConfigError for a shared key that cannot be used."""
        settings = self._settings
        tls = bool(settings.secret_name)
        ready = tls and state.certificates
        folder = settings.tls_basedir
        key = settings.shared_key_file and read_secret(settings.shared_key_file, where="shared-key-file")
        blanks = {
            "SIDECAR_LOG_LEVEL": settings.fluent_log_level,
            "SIDECAR_HTTP_PORT": str(state.http_port),
            "SIDECAR_STATE": settings.state_dir,
            "SIDECAR_MAX_CHUNKS": str(settings.max_chunks),
            "SIDECAR_LOG_PATHS": _quoted(settings.log_paths),
            "SIDECAR_RELAY_PORT": str(state.relay_port),
            "SIDECAR_HOSTNAME": _quoted(re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "sidecar"),
            "SIDECAR_SHARED_KEY": _quoted(key if show_secrets else "…") if key else "",
            "SIDECAR_TLS": "on" if tls else "off",
            "SIDECAR_TLS_VHOST": settings.tls_vhost if tls else "",
            "SIDECAR_CA_FILE": f"{folder}/{settings.tls_ca_file}" if ready else "",
            "SIDECAR_CRT_FILE": f"{folder}/{settings.tls_crt_file}" if ready else "",
            "SIDECAR_KEY_FILE": f"{folder}/{settings.tls_key_file}" if ready else "",
        }
        output = _filled(shipped(f"fluent-bit/sidecar/{OUTPUT}").read_text("utf-8"), blanks)
        added = [path for path in self.included if path.exists()]  # an absent one would stop the next start
        if added:
            # With their whole paths: a reload looks for relative ones elsewhere than a start does.
            output += "\nincludes:\n" + "".join(f"  - {_quoted(str(path))}\n" for path in added)
        return {MAIN: _filled(shipped(f"fluent-bit/sidecar/{MAIN}").read_text("utf-8"), blanks), OUTPUT: output}

    def write(self, state: State, *, folder: str = "") -> Path:
        """Put both files in place, or into a folder beside them; the main file. Raises ConfigError."""
        rendered = self.render(state)
        main = self.main.parent / folder / MAIN
        try:
            main.parent.mkdir(mode=0o700, exist_ok=True)
            for name, text in rendered.items():
                _replace(main.with_name(name), text.encode())
        except OSError as error:
            raise ConfigError(f"cannot write to {main.parent}: {error.strerror}", where="run-dir") from None
        return main

    def added(self) -> list[Path]:
        """The further outputs: `*.yaml` of the folder, by name. Raises ConfigError for what cannot be included."""
        if not self._settings.additional_dir:
            return []
        folder = Path(self._settings.additional_dir)
        refuse_classic(folder)
        found = sorted(path for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern))
        if len(found) > MAX_ADDED_FILES:
            raise ConfigError(f"more than {MAX_ADDED_FILES} files; merge some", where=str(folder))
        for path in found:
            if re.search(r"[\x00-\x1f\x7f\"\\$*?\[]", str(path)):
                raise ConfigError("a character in its name cannot stand in Fluent Bit's configuration", where=str(path))
        return found

    def fingerprint(self) -> tuple[tuple[str, bytes], ...]:
        """Changes when the further outputs do: their names and what stands in them."""
        seen: list[tuple[str, bytes]] = []
        folder = Path(self._settings.additional_dir or "/nonexistent")
        for path in sorted(folder.glob("*"))[: MAX_ADDED_FILES * 2]:
            with contextlib.suppress(OSError):
                if path.suffix in (".yaml", ".yml", ".conf"):
                    with open(path, "rb") as file:
                        seen.append((path.name, file.read(MAX_ADDED_BYTES)))
        return tuple(seen)


def _filled(template: str, blanks: Mapping[str, str]) -> str:
    """The text without comment lines' blanks touched; a line whose only value is empty is left out."""
    lines: list[str] = []
    for line in template.splitlines():
        if line.lstrip().startswith("#"):
            lines.append(line)
            continue
        empty = any(not blanks[name] for name in _BLANK.findall(line))
        if not empty:
            lines.append(_BLANK.sub(lambda match: blanks[match.group(1)], line))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """As a YAML text that Fluent Bit takes literally: JSON is YAML, and `$` would begin a variable."""
    if "${" in text:
        raise ConfigError("`${` cannot stand in it: Fluent Bit would take it for a variable", where="shared-key-file")
    return msgspec.json.encode(text).decode()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)
