"""An audit policy as text: YAML with a comment above each rule, lists on as few lines as are readable."""

import textwrap
from collections.abc import Iterable, Sequence

import msgspec
import yaml

from forwarder.detection.policy import API_VERSION, Level

WIDTH = 118  # columns of the file


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One rule to be written. objects: (group, resource as policies write it)."""

    comment: str
    level: Level
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    objects: tuple[tuple[str, str], ...] = ()
    namespaces: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


def yaml_of(parts: Sequence[Part], header: Iterable[str]) -> str:
    """The policy. RequestReceived is omitted: it says nothing that the later stages do not say better."""
    lines = [line for text in header for line in _comment(text, "")]
    lines += [f"apiVersion: {API_VERSION}", "kind: Policy", "omitStages: [RequestReceived]"]
    if any(part.level.startswith("Request") for part in parts):
        lines.append("omitManagedFields: true # no rule reads them, and they are half of a body")
    lines.append("rules:")
    for part in parts:
        lines += ["", *_comment(part.comment, "  "), f"  - level: {_scalar(part.level)}"]
        for key, words in (
            ("users", part.users),
            ("userGroups", part.groups),
            ("verbs", part.verbs),
            ("namespaces", part.namespaces),
            ("nonResourceURLs", part.urls),
        ):
            if words:
                lines += _list(f"    {key}: ", words)
        if part.objects:
            lines.append("    resources:")
            for group in dict.fromkeys(group for group, _ in part.objects):
                lines.append(f"      - group: {_scalar(group)}")
                lines += _list("        resources: ", [word for one, word in part.objects if one == group])
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
    )


def _list(start: str, words: Iterable[str]) -> list[str]:
    joined = ", ".join(map(_scalar, words))
    indent = " " * (len(start) + 1)
    return textwrap.wrap(
        f"{start}[{joined}]", WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _scalar(text: str) -> str:
    """Quoted where a YAML 1.1 reader could take it for something else."""
    return yaml.safe_dump([text], default_flow_style=True, width=10**6).strip()[1:-1] if text else '""'
