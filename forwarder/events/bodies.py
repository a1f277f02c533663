"""What rules ask of request and response bodies: names, owners and annotations.

A body is any JSON: a Kubernetes object, a merge patch, a JSON Patch array, a Status, a string such as
`skipped-too-big-size-object`; it may be cut, and it may be nested so deep that a recursive decoder gives up. The last
would be a way to hide an annotation, so whatever the typed decoder refuses is scanned instead. Nothing here raises.
"""

from typing import Final

import msgspec

from forwarder.events.scan import Scanner, Span

_ANNOTATIONS_PATH: Final = "/metadata/annotations"


class OwnerReference(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who made this object. `controller` marks the one that manages it."""

    kind: str = ""
    name: str = ""
    controller: bool = False


class BodyMetadata(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """The `metadata` of a body; of a JSON Patch only the annotations that it sets."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    owner_references: tuple[OwnerReference, ...] = ()
    annotations: dict[str, str] = {}


class _Body(msgspec.Struct, gc=False):
    metadata: BodyMetadata | None = None


_decode_body = msgspec.json.Decoder(_Body).decode


def annotations_of(raw: msgspec.Raw) -> dict[str, str]:
    """`metadata.annotations` of a body, or what a JSON Patch adds to them; {} where there are none."""
    return metadata_of(raw).annotations


def metadata_of(raw: msgspec.Raw) -> BodyMetadata:
    """The `metadata` of a body; an empty one where there is none."""
    body = bytes(raw)
    try:
        return _decode_body(body).metadata or BodyMetadata()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    scanner = Scanner(body)
    start = len(body) - len(body.lstrip())
    if body[start : start + 1] == b"[":
        return BodyMetadata(annotations=_patched(scanner, start))
    return _metadata(scanner, _last(scanner, start, "metadata"))


def _last(scanner: Scanner, at: int, key: str) -> int:
    """Where the value of `key` begins in the object at `at`; -1 when it is not there. The last one counts."""
    found = -1
    for name, (start, _, _) in scanner.members(at):
        if name == key:
            found = start
    return found


def _metadata(scanner: Scanner, at: int) -> BodyMetadata:
    texts: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owners: tuple[OwnerReference, ...] = ()
    for key, span in _members(scanner, at):
        if key == "annotations":
            annotations = _texts(scanner, span[0])
        elif key == "ownerReferences":
            owners = tuple(_owner(scanner, item) for item, _, whole in scanner.items(span[0]) if whole)
        elif key in ("name", "generateName", "namespace"):
            texts[key] = _text(scanner, span)
    return BodyMetadata(
        name=texts.get("name", ""),
        generate_name=texts.get("generateName", ""),
        namespace=texts.get("namespace", ""),
        owner_references=owners,
        annotations=annotations,
    )


def _owner(scanner: Scanner, at: int) -> OwnerReference:
    fields = dict(scanner.members(at))
    nothing = (at, at, False)
    start, end, _ = fields.get("controller", nothing)
    return OwnerReference(
        kind=_text(scanner, fields.get("kind", nothing)),
        name=_text(scanner, fields.get("name", nothing)),
        controller=scanner.buffer[start:end] == b"true",
    )


def _patched(scanner: Scanner, at: int) -> dict[str, str]:
    """The annotations that a JSON Patch (RFC 6902) leaves set, as far as it names them itself."""
    annotations: dict[str, str] = {}
    for item, _, _ in scanner.items(at):
        operation, path, value = "", "", (0, 0, False)
        for key, span in scanner.members(item):
            if key == "value":
                value = span
            elif key == "op":
                operation = _text(scanner, span)
            elif key == "path":
                path = _text(scanner, span)
        if operation in ("add", "replace"):
            _set(scanner, annotations, path, value)
        elif operation == "remove" and path.startswith(_ANNOTATIONS_PATH + "/"):
            annotations.pop(_unescaped(path), None)
    return annotations


def _set(scanner: Scanner, annotations: dict[str, str], path: str, value: Span) -> None:
    """One `add` or `replace`: of a single annotation, of all of them, of the metadata, or of the whole object."""
    start, _, complete = value
    if path.startswith(_ANNOTATIONS_PATH + "/"):
        if complete:
            annotations[_unescaped(path)] = _text(scanner, value)
        return
    if path == "":
        start = _last(scanner, start, "metadata")
    if path in ("", "/metadata"):
        start = _last(scanner, start, "annotations") if start >= 0 else -1
    elif path != _ANNOTATIONS_PATH:
        return
    annotations.clear()
    annotations.update(_texts(scanner, start))


def _unescaped(path: str) -> str:
    """The annotation that a JSON Pointer names: `~1` is a slash and `~0` a tilde, in this order (RFC 6901)."""
    return path.removeprefix(_ANNOTATIONS_PATH + "/").replace("~1", "/").replace("~0", "~")


def _members(scanner: Scanner, at: int) -> list[tuple[str, Span]]:
    return list(scanner.members(at)) if at >= 0 else []


def _texts(scanner: Scanner, at: int) -> dict[str, str]:
    """The members of the object at `at` that are complete strings."""
    return {key: _text(scanner, span) for key, span in _members(scanner, at) if span[2] and _is_text(scanner, span)}


def _text(scanner: Scanner, span: Span) -> str:
    return scanner.text(*span[:2]) if span[2] and _is_text(scanner, span) else ""


def _is_text(scanner: Scanner, span: Span) -> bool:
    return scanner.buffer[span[0] : span[0] + 1] == b'"'
