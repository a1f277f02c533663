"""How the command line speaks: markup and control characters from outside, plain tables in pipes, NO_COLOR."""

import io
import sys

import pytest

from forwarder.cli import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_in_a_pipe_is_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    """One row is one line, however long its cells are."""
    console.table(("who", "what"), [("alice", "x" * 500), ("bob", "y")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "x" * 500 in lines[1]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [("[bold]name[/bold]", "[bold]name[/bold]"), (":smile:", ":smile:"), ("a\x1b[2Jb", "a [2Jb"), ("a\nb", "a b")],
)
def test_what_others_named_is_shown_as_it_is(capsys: pytest.CaptureFixture[str], cell: str, shown: str) -> None:
    """A pod called like markup is no markup, and a control character moves no cursor."""
    console.table(("name",), [(cell,)])
    assert capsys.readouterr().out.splitlines()[1].rstrip() == shown


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool) -> None:
    """On a terminal words are coloured, unless NO_COLOR says otherwise."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("NO_COLOR", no_color)
    console.fail("broken")
    assert ("\x1b[" in sys.stderr.getvalue()) is coloured  # type: ignore[attr-defined]


def test_plural() -> None:
    """Numbers read like words."""
    counts = [console.plural(number, "rule") for number in (0, 1, 1200)]
    assert counts == ["0 rules", "1 rule", "1,200 rules"]
    assert console.plural(2, "delivery", "deliveries") == "2 deliveries"


def test_a_closed_stream_is_nobody() -> None:
    """Asking a closed stream does not fail."""
    stream = io.StringIO()
    stream.close()
    assert console.is_terminal(stream) is False
