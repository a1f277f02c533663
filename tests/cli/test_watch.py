"""`forwarder watch` without a feed: what it refuses, what it prints of what feeds tell. tests/e2e/feed watches real ones."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from forwarder.cli.watch import Printer
from forwarder.cli.watch_filter import Filter
from forwarder.cli.watch_view import View
from forwarder.feed.client import Connected, GaveUp, Lost, Missed
from tests.cli.watching import alert, log, loss

Run = Callable[..., object]


def printer(*, as_json: bool = False, limit: int = 0, **filters: object) -> Printer:
    view = None if as_json else View(colour=False, show_target=False)
    return Printer(Filter(**filters), view, limit=limit)  # type: ignore[arg-type]


def test_events_are_data_and_what_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Events on stdout; connections, gaps and the sum on stderr."""
    one = printer(namespaces=["payments"])
    for news in (
        Connected("feed:1"),
        alert(),
        log(),
        loss(7),
        Lost("feed:1", "nothing listens there"),
        Missed("feed:1", 12.34),
    ):
        one.tell(news)
    one.summary()
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    assert "kubectl-exec" in shown.out
    assert [line for line in shown.err.splitlines() if line] == [
        "watching feed:1",
        "… 7 alerts lost here: this terminal reads more slowly than they come",
        "warning: feed:1: nothing listens there; trying again",
        "warning: feed:1: back; what happened in 12.3 s was not seen",
        "1 line shown of 2 received; 7 lost because this side was too slow; not watching for 12.3 s",
    ]


def test_json_tells_gaps_in_the_same_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that reads stdout alone knows what it did not get."""
    one = printer(as_json=True)
    for news in (alert(), loss(7), Lost("feed:1", "it ended the stream"), Missed("feed:1", 2.5)):
        one.tell(news)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["Stream"] for line in lines] == ["alerts", "alerts", "lost", "missed"]
    assert lines[1]["EventData"]["dropped"] == "7"
    assert (lines[2]["Reason"], lines[3]["Seconds"]) == ("it ended the stream", 2.5)


def test_limit_counts_what_was_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Not what was received, as karmor does; nothing is printed after it."""
    one = printer(limit=2, severity="high")
    for event in (alert(), alert(severity="low"), alert(), alert()):
        one.tell(event)
    assert one.stopping.is_set()
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_who_gave_up_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The command fails when all did."""
    one = printer()
    one.tell(GaveUp("feed:1", "it does not take our token"))
    assert one.gave_up == 1
    assert "feed:1: it does not take our token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--severity", "urgent"], "is no severity"),
        (["--regex", "["], "is no regular expression"),
        (["not an address"], "is no address"),
        (["--tls-cert", "/x"], "both are needed"),
        (["--token-file", "/nowhere"], "cannot read the secret file"),
        (["--tls-ca", "/nowhere"], "/nowhere: cannot read it"),
        (["other.example:1", "--token-file", "TOKEN"], "a token goes to another machine over TLS only"),
    ],
)
def test_what_makes_no_sense_is_bad_usage(run: Run, tmp_path: Path, arguments: list[str], words: str) -> None:
    """Before anything is connected to."""
    (tmp_path / "token").write_text("t0ken\n")
    given = [str(tmp_path / "token") if argument == "TOKEN" else argument for argument in arguments]
    result = run("watch", *given)
    assert words in str(result.exception)  # type: ignore[attr-defined]
