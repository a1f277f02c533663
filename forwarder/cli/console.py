"""How the command line speaks: data on stdout, words on stderr; tables for people, a JSON object a line for machines.

Colours follow the terminal and NO_COLOR. Text from outside never carries markup or control characters to the terminal.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import typer

from forwarder.logs import clean

if TYPE_CHECKING:
    from rich.console import Console

DONE, FAILED, USAGE = 0, 1, 2  # exit codes: done, failed at run time, bad configuration or usage

WIDE = 10_000  # columns of a table that goes into a pipe: nothing is wrapped there


class Output(StrEnum):
    """`--output` of commands that print data."""

    table = "table"
    ndjson = "ndjson"


def console(stream: TextIO | None = None) -> "Console":
    """A rich console that prints text as it is: no markup, no emoji names, no guessed highlights."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else WIDE
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width, soft_wrap=not width)


def out(text: str = "") -> None:
    """One line of data."""
    sys.stdout.write(f"{text}\n")


def say(text: str = "") -> None:
    """One line of words."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """Something to look at; nothing failed."""
    say(f"{_styled('warning:', typer.colors.YELLOW)} {text}")


def fail(text: str) -> None:
    """What went wrong, where, and what to do next."""
    say(f"{_styled('error:', typer.colors.RED)} {text}")


def stop(text: str, code: int = FAILED) -> NoReturn:
    """`fail`, then end with `code`."""
    fail(text)
    raise typer.Exit(code)


def mark(good: bool | None) -> str:
    """✓ for good, ✗ for bad, a dash for what could not be looked at."""
    if good is None:
        return "-"
    return _styled("✓", typer.colors.GREEN, sys.stdout) if good else _styled("✗", typer.colors.RED, sys.stdout)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout; `right` names the columns of numbers."""
    console().print(make_table(columns, rows, right=right))


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> Any:
    """The same as a rich renderable."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(clean(str(cell))) for cell in row))
    return made


def ndjson(value: Any) -> None:
    """One JSON object on a line of stdout."""
    import msgspec

    out(msgspec.json.encode(value).decode())


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches `stream`; a closed one is nobody."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def plural(number: int, one: str, many: str = "") -> str:
    """`1 rule`, `20 rules`, `100,000 lines`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _styled(text: str, colour: str, stream: TextIO | None = None) -> str:
    plain = os.environ.get("NO_COLOR") or not is_terminal(stream or sys.stderr)
    return text if plain else typer.style(text, fg=colour)
