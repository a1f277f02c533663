"""Files in Fluent Bit's classic format, as audit-forwarder took them: refused, with the YAML that says the same.

A YAML configuration cannot include a classic file; Fluent Bit would take it for broken YAML and not start. Sections and
their keys translate one to one; commands such as `@INCLUDE` and `@SET` do not, and are named.
"""

import re
from pathlib import Path

from forwarder.errors import ConfigError

MAX_FILE_BYTES = 256 << 10
_PLACES = {"INPUT": "inputs", "FILTER": "filters", "OUTPUT": "outputs"}
_ORDER = ("inputs", "filters", "outputs")
_SECRET = re.compile(r"token|password|passwd|secret|shared_key|api_?key|credential|authorization", re.IGNORECASE)

Section = tuple[str, list[tuple[str, str]]]


def refuse_classic(folder: Path) -> None:
    """Raises ConfigError if there is a `*.conf` in the folder; its text holds the YAML where it can be said."""
    for path in sorted(folder.glob("*.conf")):
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
        except OSError as error:
            raise ConfigError(f"cannot read it: {error.strerror}", where=str(path)) from None
        new = path.with_suffix(".yaml").name
        head = f"classic format is not taken here; write it as {new} and remove this file"
        try:
            raise ConfigError(f"{head}:\n{to_yaml(text)}", where=str(path))
        except ValueError as untold:
            raise ConfigError(f"{head} (by hand: {untold})", where=str(path)) from None


def to_yaml(text: str) -> str:
    """The same in YAML; secrets become `${VARIABLES}`. Raises ValueError that names the line which cannot be said."""
    sections = _sections(text)
    lines: list[str] = []
    parsers = [keys for kind, keys in sections if kind == "PARSER"]
    if parsers:
        lines += ["parsers:", *_items(parsers, "  ")]
    if len(parsers) < len(sections):
        lines.append("pipeline:")
    for place in _ORDER:
        found = [keys for kind, keys in sections if _PLACES.get(kind) == place]
        if found:
            lines += [f"  {place}:", *_items(found, "    ")]
    return "\n".join(lines)


def _sections(text: str) -> list[Section]:
    sections: list[Section] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            raise ValueError(f"line {number}: `{line.split()[0]}` has no counterpart")
        heading = re.fullmatch(r"\[([A-Za-z_]+)\]", line)
        if heading:
            kind = heading.group(1).upper()
            if kind not in (*_PLACES, "PARSER"):
                raise ValueError(f"line {number}: a [{kind}] section does not belong into an added file")
            sections.append((kind, []))
            continue
        key, _, value = line.partition(" ") if " " in line else line.partition("\t")
        if not sections or not value.strip():
            raise ValueError(f"line {number}: neither a section nor a key with its value")
        sections[-1][1].append((key.lower(), value.strip()))
    if not sections:
        raise ValueError("it has no section")
    return sections


def _items(found: list[list[tuple[str, str]]], indent: str) -> list[str]:
    """Sections as a YAML list. A key that may stand several times (`rule`, `record`) becomes a list, in order."""
    lines: list[str] = []
    for keys in found:
        merged: dict[str, list[str]] = {}
        for key, value in keys:
            merged.setdefault(key, []).append(_scalar(key, value))
        first = True
        for key, values in merged.items():
            begin = f"{indent}- " if first else f"{indent}  "
            first = False
            if len(values) == 1:
                lines.append(f"{begin}{key}: {values[0]}")
            else:
                lines.append(f"{begin}{key}:")
                lines += [f"{indent}    - {value}" for value in values]
    return lines


def _scalar(key: str, value: str) -> str:
    """The value as YAML. One that looks like a secret is not repeated: this text ends up in a log."""
    if _SECRET.search(key) and not value.startswith("${"):
        return f"${{{re.sub(r'[^A-Z0-9]', '_', key.upper())}}}"
    if re.fullmatch(r"[A-Za-z0-9_./-][A-Za-z0-9_./ ${}-]*", value) and not value.endswith(" "):
        return value
    return "'" + value.replace("'", "''") + "'"
