"""docs/cli.md is complete: every command, option and variable stands in it, and nothing that is not there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from forwarder.cli import app
from forwarder.cli.environment import SECRETS, VARIABLES, WITHOUT_MEANING

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command that does something, with the longest form of its options and its arguments."""

    def walk(command: object, path: str) -> Iterator[tuple[str, list[str]]]:
        children = getattr(command, "commands", {})
        if not children or getattr(command, "invoke_without_command", False):
            names = []
            for parameter in getattr(command, "params", []):
                if parameter.param_type_name == "argument":
                    names.append(parameter.name.upper())
                else:
                    names += [max(parameter.opts, key=len), *parameter.secondary_opts]
            yield path, names
        for name, child in children.items():
            yield from walk(child, f"{path} {name}")

    yield from walk(get_command(app), "forwarder")


def section(path: str) -> str:
    """The text below the command's heading."""
    found = re.search(rf"^### {re.escape(path)}\n(.*?)(?=^##|\Z)", DOCS.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return found.group(1) if found else ""


SHARED = {"--config", "--data-dir", "PATHS"}  # said once for the group


@pytest.mark.parametrize(("path", "names"), list(commands()))
def test_every_command_has_its_section(path: str, names: list[str]) -> None:
    """Each command has a heading, and its options and arguments stand below it."""
    text = section(path)
    assert text, f"no section for {path}"
    missing = [name for name in names if f"`{name}" not in text and name not in SHARED]
    assert missing == []


def test_no_section_for_what_is_not_there() -> None:
    """A removed command leaves no section behind."""
    headings = set(re.findall(r"^### (forwarder .+)$", DOCS.read_text("utf-8"), re.MULTILINE))
    assert headings == {path for path, _ in commands()}


def test_every_variable_stands_in_the_table() -> None:
    """Each variable, ours and older, is a row; so is what a secret's file is called."""
    text = DOCS.read_text("utf-8")
    for variable in VARIABLES:
        row = next((line for line in text.splitlines() if line.startswith(f"| `{variable.name}` ")), "")
        assert variable.meaning in row
        for older in filter(None, variable.older.split(", ")):
            assert f"`{older}`" in row
    assert all(f"`{name}`" in text for name in SECRETS)
    assert WITHOUT_MEANING
