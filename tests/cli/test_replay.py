"""`forwarder replay`: one event per id, what is counted, what is shown, and what exits how."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import forwarder.cli.replay as module
from forwarder.cli.replay import parse_since
from forwarder.errors import ConfigError

Run = Callable[..., Result]
Event = Callable[..., dict[str, Any]]
Log = Callable[..., Path]


def events(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_session_is_one_event_at_its_last_stage(run: Run, exec_event: Event, audit_log: Log) -> None:
    """ResponseStarted and ResponseComplete of one shell are one line, with how long it was open."""
    log = audit_log(exec_event(stage="ResponseStarted"), exec_event())
    (event,) = events(run("replay", log, "--output", "ndjson"))
    assert (event["type"], event["actor"], event["revision"], event["duration_s"]) == ("kubectl-exec", "alice", 1, 7.0)


def test_a_log_that_is_read_twice_doubles_nothing(run: Run, exec_event: Event, audit_log: Log) -> None:
    """A rotated copy beside the log gives the same ids, so the same rows."""
    first = audit_log(exec_event(), name="audit.log")
    second = audit_log(exec_event(), exec_event(audit_id="a-2"), name="audit.log.1")
    assert len(events(run("replay", first, second, "--output", "ndjson"))) == 2


def test_the_table_is_for_people(run: Run, exec_event: Event, audit_log: Log) -> None:
    """Time, rule, who, which service and what, on stdout; the summary on stderr."""
    result = run("replay", audit_log(exec_event()))
    assert result.exit_code == 0
    assert "2026-03-01T10:00:00Z" in result.stdout
    for word in ("kubectl-exec", "alice", "component:shop/web", "sh", "allowed, 7 s"):
        assert word in result.stdout
    assert "1 friction event from 1 line" in result.stderr
    assert "by rule: kubectl-exec 1" in result.stderr


def test_malformed_lines_are_counted_and_placed(run: Run, exec_event: Event, audit_log: Log) -> None:
    """A line that a rule might match and that is no event is named by file and number, without its content."""
    bad = b'{"kind":"Event","stage":"ResponseComplete","verb":"get","objectRef":{"resource":"pods","subresource":"exec" hunter2'
    log = audit_log(exec_event(), bad, b"[[[[", exec_event(audit_id="a-2"))
    result = run("replay", log)
    assert result.exit_code == 0
    assert f"{log}:" in result.stderr
    assert "could not be read" in result.stderr
    assert "hunter2" not in result.output
    assert "2 friction events" in result.stderr


def test_since_leaves_older_events_out(run: Run, exec_event: Event, audit_log: Log) -> None:
    """--since is about the event's own time, and what it left out is counted."""
    log = audit_log(exec_event(), exec_event(audit_id="a-2", received="2026-03-02T10:00:00.000000Z"))
    result = run("replay", log, "--since", "2026-03-02", "--output", "ndjson")
    assert [event["audit_id"] for event in events(result)] == ["a-2"]
    assert "1 event before --since, left out" in result.stderr


def test_a_damaged_archive_is_read_as_far_as_it_goes(
    run: Run, exec_event: Event, audit_log: Log, tmp_path: Path
) -> None:
    """Half an archive gives its events, a warning, and exit code 1."""
    log = audit_log(*(exec_event(audit_id=f"a-{number}") for number in range(2000)))
    packed = gzip.compress(log.read_bytes(), 1)
    (tmp_path / "cut.log.gz").write_bytes(packed[: len(packed) // 2])
    result = run("replay", tmp_path / "cut.log.gz", "--output", "ndjson")
    assert result.exit_code == 1
    assert "damaged or cut" in result.stderr


def test_standard_input(run: Run, exec_event: Event) -> None:
    """`-` reads a pipe."""
    result = run("replay", "-", "--output", "ndjson", input=json.dumps(exec_event()) + "\n")
    assert len(events(result)) == 1


def test_other_rules(run: Run, exec_event: Event, audit_log: Log, tmp_path: Path) -> None:
    """--rules replaces the shipped ones."""
    rules = tmp_path / "mine.yaml"
    rules.write_text("rules: [{name: any-get, description: d, severity: low, match: {verb: get, resource: pods}}]")
    (event,) = events(run("replay", audit_log(exec_event()), "--rules", rules, "--output", "ndjson"))
    assert event["type"] == "any-get"


def test_memory_is_bounded(run: Run, exec_event: Event, audit_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """When too many events are held they are written out, and nothing is missing."""
    monkeypatch.setattr(module, "MAX_HELD_EVENTS", 2)
    logs = [audit_log(*(exec_event(audit_id=f"{n}-{m}") for m in range(3)), name=f"{n}.log") for n in range(4)]
    assert len(events(run("replay", *logs, "--output", "ndjson"))) == 12


NOW_S = datetime(2026, 3, 8, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("7d", "2026-03-01T00:00:00+00:00"),
        ("1w", "2026-03-01T00:00:00+00:00"),
        ("24h", "2026-03-07T00:00:00+00:00"),
        ("30m", "2026-03-07T23:30:00+00:00"),
        ("2026-03-01", "2026-03-01T00:00:00+00:00"),
        ("2026-03-01T10:00:00Z", "2026-03-01T10:00:00+00:00"),
        ("2026-03-01T10:00:00+02:00", "2026-03-01T08:00:00+00:00"),
    ],
)
def test_since_reads_spans_and_times(text: str, moment: str) -> None:
    """A span counts back from now; a time without a zone is UTC."""
    assert parse_since(text, NOW_S) == datetime.fromisoformat(moment).timestamp()


@pytest.mark.parametrize("text", ["yesterday", "7", "d", "-1d", "2026-13-01"])
def test_since_refuses_the_rest(text: str) -> None:
    """The message shows what can be written."""
    with pytest.raises(ConfigError, match=r"--since.*24h, 7d"):
        parse_since(text, NOW_S)
