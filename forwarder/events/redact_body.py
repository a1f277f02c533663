"""What is hidden in the body of a request or a response before an audit event goes out.

- All values of secrets and config maps (`data`, `stringData`, `binaryData`): in the object, in lists, in merge patches and
  JSON patches, and where such an object stands inside another.
- The annotation kubectl.kubernetes.io/last-applied-configuration: it repeats the object with everything in it.
- Every text under a name that means a credential: `token` of a TokenRequest, `clientSecret`, the variable DB_PASSWORD.
- In containers' `command` and `args`, and in any other text, what can be recognised as a credential.

A body that cannot be read, or is nested too deep to be looked through, is replaced as a whole: nothing is sent unseen.
"""

import functools
from typing import Any, Final

import msgspec

from forwarder.events.commands import arguments
from forwarder.events.credentials import HARMLESS_TEXT, REDACTED, masked, sensitive

MAX_DEPTH: Final = 100  # Kubernetes objects reach about 20; CRD schemas nest further, and Python's stack ends at 1000
MAX_TEXT_CHARS: Final = 64 << 10  # of one text that is looked through; longer ones are certificates, bundles and images
_SECRET_KINDS: Final = frozenset({"Secret", "SecretList", "ConfigMap", "ConfigMapList"})
_SECRET_RESOURCES: Final = frozenset({"secrets", "configmaps"})
_SECRET_FIELDS: Final = ("data", "stringData", "binaryData")
_LAST_APPLIED: Final = "last-applied-configuration"

_harmless = HARMLESS_TEXT.fullmatch
_decode = msgspec.json.Decoder().decode


def body(raw: bytes, resource: str) -> bytes:
    """The JSON `raw` of a requestObject or responseObject, redacted. resource: of the event's objectRef. Raises nothing."""
    try:
        return msgspec.json.encode(_walk(_decode(raw), resource in _SECRET_RESOURCES, 0))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return b'"%s: cannot be read"' % REDACTED.encode()


def _walk(value: Any, holds_secrets: bool, depth: int) -> Any:
    """holds_secrets: whether `data` and its like here are those of a secret or a config map."""
    if isinstance(value, str):
        return _text(value)
    if depth > MAX_DEPTH:
        return REDACTED if isinstance(value, dict | list) else value
    if isinstance(value, list):
        return [_walk(item, holds_secrets, depth + 1) for item in value]
    return _object(value, holds_secrets, depth) if isinstance(value, dict) else value


def _object(value: dict[str, Any], holds_secrets: bool, depth: int) -> dict[str, Any]:
    """Half the cost of an audit stream is spent in this loop, so what most members are is decided in it."""
    if "op" in value and isinstance(path := value.get("path"), str):
        return _operation(value, path, holds_secrets, depth)
    kind = value.get("kind")
    holds_secrets = holds_secrets or (isinstance(kind, str) and kind in _SECRET_KINDS)
    named = isinstance(name := value.get("name"), str) and _sensitive(name)
    seen: dict[str, Any] = {}
    depth += 1
    for key, item in value.items():
        if _telling(key):
            seen[key] = _member(key, item, holds_secrets, named, depth)
        elif isinstance(item, str):
            seen[key] = item if _harmless(item) else _text(item)
        elif item and isinstance(item, dict):
            seen[key] = _object(item, holds_secrets, depth) if depth <= MAX_DEPTH else REDACTED
        else:
            seen[key] = _walk(item, holds_secrets, depth) if item and isinstance(item, list) else item
    return seen


@functools.lru_cache(maxsize=8192)
def _telling(key: str) -> bool:
    """Whether a member may be more than its value: `_member` says what."""
    return key in _SECRET_FIELDS or key in ("value", "command", "args") or _LAST_APPLIED in key or _sensitive(key)


def _member(key: str, value: Any, holds_secrets: bool, named: bool, depth: int) -> Any:
    """named: whether this object has a `name` that means a credential, as a variable of a container has."""
    if holds_secrets and key in _SECRET_FIELDS:
        return _hidden(value, depth)
    if _LAST_APPLIED in key or (isinstance(value, str | list) and (_sensitive(key) or (named and key == "value"))):
        return _hidden(value, depth) if not isinstance(value, list) or _all_texts(value) else _walk(value, False, depth)
    if key in ("command", "args") and isinstance(value, list) and _all_texts(value):
        return arguments(value)
    return _walk(value, holds_secrets, depth)


def _operation(operation: dict[str, Any], path: str, holds_secrets: bool, depth: int) -> dict[str, Any]:
    """One step of a JSON patch (RFC 6902): its path says what its value is."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]
    last = steps[-1] if steps else ""
    hidden = (holds_secrets and steps[:1] and steps[0] in _SECRET_FIELDS) or _LAST_APPLIED in last or _sensitive(last)
    if "value" not in operation:
        return operation
    value = operation["value"]
    changed = _hidden(value, depth) if hidden else _member(last, value, holds_secrets, False, depth + 1)
    return {**operation, "value": changed}


def _hidden(value: Any, depth: int) -> Any:
    """The same shape with every value hidden; names stay, they say what was touched."""
    if isinstance(value, dict) and depth <= MAX_DEPTH:
        return {key: _hidden(item, depth + 1) for key, item in value.items()}
    return value if value is None else REDACTED


def _all_texts(values: list[Any]) -> bool:
    return all(isinstance(item, str) for item in values)


def _text(value: str) -> str:
    if len(value) > MAX_TEXT_CHARS:
        return f"{REDACTED}: {len(value)} characters"
    return masked(value)


@functools.lru_cache(maxsize=8192)  # the field names of all kinds in a cluster are a few thousand
def _sensitive_short(name: str) -> bool:
    return sensitive(name)


def _sensitive(name: str) -> bool:
    return _sensitive_short(name) if len(name) <= 128 else sensitive(name)
