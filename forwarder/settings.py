"""Settings files: YAML with line numbers, `${VAR}` and `${VAR:-default}`, strict keys, sizes such as `1GiB`.

The types of the settings stand in the files of the components that they set; here is how any of them is read. All
errors are ConfigError and name the file, the line, the key and the nearest valid one.

    sinks:
      backend: {url: http://backend:8000, api_key: ${HEALERT_API_KEY}}
      other: {type: backend, url: https://other, api_key_file: /run/secrets/other}   # any text setting X also as X_file
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml

from forwarder.errors import ConfigError

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

MAX_DEPTH = 100  # a rule's test holds an audit event: about ten
MAX_DOCUMENT_BYTES = 8 << 20  # a rules file of 8 MiB holds tens of thousands of rules; more is a mistake
SECRET_FILE_MAX_BYTES = 64 << 10

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Document(msgspec.Struct, frozen=True):
    """A parsed YAML file: plain data, and the line (from 1) on which each key or item begins."""

    file: str
    data: Any
    lines: dict[KeyPath, int]

    def where(self, path: KeyPath = ()) -> str:
        """`file:line` of the innermost part of `path` that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        line = self.lines.get(path)
        return f"{self.file}:{line}" if line else self.file


def read_document(path: str | Path) -> Document:
    """The YAML file at `path`. Raises ConfigError when it is missing, unreadable, too large or no valid YAML."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(path)) from None
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise ConfigError(f"larger than {MAX_DOCUMENT_BYTES >> 20} MiB", where=str(path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 at byte {error.start}", where=str(path)) from None
    return parse_document(text, str(path))


def parse_document(text: str, file: str) -> Document:
    """`text` as YAML; `file` names it in errors. Duplicate keys are refused, anchors work, tags and dates do not."""
    lines: dict[KeyPath, int] = {}
    try:
        text = _BRACES.sub("$\ue000\\1\ue001", text)
        _check_depth(text, file)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        problem = error.problem or error.context or ""
        if "nesting depth" in problem:  # libyaml 0.2.6 has a limit of its own, and may look ahead past ours
            raise ConfigError("nested too deeply", where=where) from None
        raise ConfigError(f"not valid YAML: {problem}", where=where) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {type(error).__name__}", where=file) from None
    data = _plain(node, (), lines, file, _Budget()) if node is not None else None
    return Document(file, data, lines)


def _check_depth(text: str, file: str) -> None:
    """libyaml's composer recurses as deep as the text says, past the end of the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            mark = event.start_mark
            raise ConfigError("nested too deeply", where=f"{file}:{mark.line + 1}" if mark else file)


# In `{key: ${VAR}}` YAML would take the variable's braces for its own, so other characters stand for them while it reads.
_BRACES = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*(?::-[^{}\n]*)?)\}")
_HIDDEN_BRACES = re.compile("\\$\ue000([^\ue000\ue001]*)\ue001")


def _with_braces(text: str) -> str:
    return _HIDDEN_BRACES.sub(r"${\1}", text)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # libyaml's parser, 10 times as fast, where built in
    """YAML 1.1 without its surprises: `no`, `on` and dates stay text; true, false and numbers are what they seem."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - replaces PyYAML's own


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"^[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?$", "-+0123456789"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


class _Budget:
    """Aliases may repeat a node; this bounds what they can blow a small file up to."""

    left = 500_000


def _plain(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: str, budget: _Budget) -> Any:
    budget.left -= 1
    where = f"{file}:{node.start_mark.line + 1}"
    if budget.left < 0 or len(path) > MAX_DEPTH:
        raise ConfigError("nested too deeply or repeated too often", where=where)
    lines.setdefault(path, node.start_mark.line + 1)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        raise ConfigError(f"the tag {node.tag} is not supported", where=where)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key_where = f"{file}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be text", where=key_where)
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise ConfigError("`<<` is not supported; write the keys out", where=key_where)
            key = _with_braces(str(key_node.value))
            if key in mapping:
                first = lines[(*path, key)]
                raise ConfigError(f"`{key}` stands here a second time; the first is on line {first}", where=key_where)
            lines[(*path, key)] = key_node.start_mark.line + 1
            mapping[key] = _plain(value_node, (*path, key), lines, file, budget)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), lines, file, budget) for index, item in enumerate(node.value)]
    if node.tag == "tag:yaml.org,2002:bool":
        return node.value.lower() == "true"
    if node.tag == "tag:yaml.org,2002:int":
        try:
            return int(node.value)
        except ValueError:  # Python refuses thousands of digits
            raise ConfigError("a number this long cannot be meant", where=where) from None
    if node.tag == "tag:yaml.org,2002:float":
        return float(node.value)
    if node.tag == "tag:yaml.org,2002:null":
        return None
    if node.tag != "tag:yaml.org,2002:str":
        raise ConfigError(f"the tag {node.tag} is not supported", where=where)
    return _with_braces(str(node.value))


# --- variables and secrets -------------------------------------------------------------------------------------------

_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")


def expand(document: Document, environ: Mapping[str, str]) -> Document:
    """`${VAR}` and `${VAR:-default}` in every text value (`$$` is one dollar); a variable that is not set is an error.

    A value that is one variable and nothing else is read again as YAML, so that `${PORT}` may be a number.
    """

    def walk(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value

        def replace(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            if name is None:
                return "$"
            found = environ.get(name)
            if not found and default is not None:
                return default
            if found is None:
                raise ConfigError(
                    f"the environment variable {name} is not set; set it or write ${{{name}:-default}}",
                    where=document.where(path),
                )
            return found

        text = _VARIABLE.sub(replace, value)
        return _typed(text) if _VARIABLE.fullmatch(value) and value != "$$" else text

    return msgspec.structs.replace(document, data=walk(document.data, ()))


def _typed(text: str) -> Any:
    if re.fullmatch(r"[-+]?(?:0|[1-9][0-9]{0,17})", text):
        return int(text)
    if re.fullmatch(r"[-+]?[0-9]+\.[0-9]+", text) and repr(float(text)) == text:  # a key of the form 1.10 stays text
        return float(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def read_secret(path: str, *, where: str = "") -> str:
    """The text of a secret file without its last newline. Raises ConfigError when unreadable or empty."""
    try:
        with open(path, "rb") as file:
            secret = file.read(SECRET_FILE_MAX_BYTES).decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"cannot read the secret file {path}: {reason}", where=where) from None
    if not secret:
        raise ConfigError(f"the secret file {path} is empty", where=where)
    return secret


# --- typed settings --------------------------------------------------------------------------------------------------


def convert(document: Document, kind: type[T], path: KeyPath = ()) -> T:
    """The part of `document` at `path` as `kind` (a msgspec Struct with forbid_unknown_fields).

    Numbers may stand for text (`shared_key: 1234`); `<name>_file` is read where `kind` has the text setting `<name>`.
    """
    data = document.data
    for step in path:
        data = data[step]
    data = _check(data if data is not None else {}, kind, path, document)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message, _, tail = str(error).partition(" - at `$")
        full = (*path, *_steps(tail.rstrip("`")))
        name = ".".join(str(step) for step in full)
        raise ConfigError(
            f"`{name}`: {_friendly(message)}" if name else _friendly(message), where=document.where(full)
        ) from None


def nearest(word: str, valid: Mapping[str, Any] | list[str] | set[str] | tuple[str, ...]) -> str:
    """` (did you mean …?)` for the closest valid word, else the list of the valid ones."""
    words = sorted(valid)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; valid: {', '.join(words)}" if words else ""


def _check(data: Any, kind: Any, path: KeyPath, document: Document) -> Any:
    """Unknown keys, with the nearest valid one, before msgspec sees the data; `_file` settings are read here."""
    if isinstance(data, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        result: dict[str, Any] = {}
        for key, value in data.items():
            here = (*path, key)
            if key in fields:
                result[key] = _check(value, fields[key].type, here, document)
                continue
            base = key.removesuffix("_file")
            if base in fields and base != key and isinstance(value, str):
                if base in data:
                    raise ConfigError(f"`{base}` and `{key}` cannot both be set", where=document.where(here))
                result[base] = read_secret(value, where=document.where(here))
                continue
            name = ".".join(str(step) for step in here)
            raise ConfigError(f"unknown key `{name}`{nearest(key, list(fields))}", where=document.where(here))
        return result
    args: tuple[Any, ...] = getattr(kind, "__args__", ())
    origin = getattr(kind, "__origin__", None)
    if origin is Literal and isinstance(data, str) and data not in args:
        name = ".".join(str(step) for step in path)
        raise ConfigError(f"`{name}`: {data!r} is none of {', '.join(args)}", where=document.where(path))
    if isinstance(data, list) and origin in (list, tuple) and len(args) > 0:
        return [_check(item, args[0], (*path, index), document) for index, item in enumerate(data)]
    if isinstance(data, dict) and origin is dict:
        return {key: _check(item, args[1], (*path, key), document) for key, item in data.items()}
    if args:
        for option in args:
            if isinstance(data, dict) and isinstance(option, type) and issubclass(option, msgspec.Struct):
                return _check(data, option, path, document)
    if isinstance(data, int | float) and not isinstance(data, bool) and _takes_text(kind):
        return str(data)
    return data


def _takes_text(kind: Any) -> bool:
    """Whether `kind` is str, or str | None, and nothing that a number could be meant for."""
    if kind is str:
        return True
    args = [arg for arg in getattr(kind, "__args__", ()) if arg is not type(None)]
    return args == [str]


def _steps(tail: str) -> list[str | int]:
    """`.a[0].b[...]` of msgspec as ["a", 0, "b"]."""
    steps: list[str | int] = []
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", tail):
        if name:
            steps.append(name)
        elif index != "...":
            steps.append(int(index))
    return steps


def _friendly(message: str) -> str:
    """msgspec's words in the reader's: `object` is a mapping, `array` a list."""
    return (
        message.replace("Expected ", "expected ")
        .replace(" | null`", "`")
        .replace("`object`", "a mapping")
        .replace("`array`", "a list")
        .replace("`str`", "text")
        .replace("`int`", "a whole number")
        .replace("`float`", "a number")
        .replace("`bool`", "true or false")
        .replace("`null`", "nothing")
        .replace("Object missing required field", "it lacks the key")
    )


# --- values ----------------------------------------------------------------------------------------------------------

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
_UNITS |= {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_bytes(text: str | int, *, where: str = "") -> int:
    """`1GiB`, `200M` (binary), `10MB` (decimal) or a number of bytes."""
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if not match or match.group(2).upper() not in _UNITS:
        raise ConfigError(f"{text!r} is no size; write for example 512MiB or 1GiB", where=where)
    return int(float(match.group(1)) * _UNITS[match.group(2).upper()])


class Address(msgspec.Struct, frozen=True):
    """Where to listen or connect: a TCP host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.path) or self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")


def parse_address(text: str, *, where: str = "", default_port: int | None = None) -> Address:
    """`127.0.0.1:24224`, `[::1]:24224`, `:24224` (every interface) or `unix:/run/forwarder.sock`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ConfigError(f"{text!r}: a Unix socket needs an absolute path", where=where)
        return Address(path=path)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]/\s]*))(?::([0-9]{1,5}))?", text)
    port = int(match.group(3)) if match and match.group(3) else default_port
    if not match or port is None or port > 65535 or text.isdecimal():  # a port alone is no host
        raise ConfigError(f"{text!r} is no address; write HOST:PORT or unix:/path", where=where)
    return Address(host=match.group(1) or match.group(2) or "0.0.0.0", port=port)  # noqa: S104 - the listener asks for authentication


def shipped(name: str) -> Path:
    """A file or folder that comes with the program: `rules/friction.yaml`, `fluent-bit/laptop.yaml`."""
    package = Path(__file__).parent
    for root in (package / "shipped", package.parent):
        if (root / name).exists():
            return root / name
    raise ConfigError(f"{name} is missing from this installation; install it again")


def rooted(settings: T, base: str | os.PathLike[str]) -> T:
    """`settings` (a Struct) with every path in it taken from the folder `base`: the fields `path`, `checkpoint` and `*_file`."""
    if not isinstance(settings, msgspec.Struct):
        return settings
    changes: dict[str, Any] = {}
    for field in settings.__struct_fields__:
        value = getattr(settings, field)
        if isinstance(value, msgspec.Struct):
            changes[field] = rooted(value, base)
        elif field == "path" and isinstance(value, list):
            changes[field] = [str(resolve_path(item, base)) for item in value]
        elif isinstance(value, str) and value and (field in ("path", "checkpoint") or field.endswith("_file")):
            changes[field] = str(resolve_path(value, base))
    return msgspec.structs.replace(settings, **changes)


def resolve_path(path: str, base: str | os.PathLike[str]) -> Path:
    """`path` from the folder `base` (that of the settings file) unless it is absolute; `~` is the home folder."""
    return Path(base, Path(path).expanduser())
