"""Events as lines on standard output: whole ones, in order, whatever happens to the reader."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from forwarder.contracts import Done, Later
from forwarder.events.audit import decode
from forwarder.events.outgoing import OutgoingEvent
from forwarder.sinks import stdout
from forwarder.sinks.stdout import CLOSED_DELAY_S, StdoutSettings, StdoutSink
from forwarder.telemetry import Telemetry


def events(*numbers: int) -> list[OutgoingEvent]:
    lines = [
        b'{"kind":"Event","auditID":"%d","verb":"get","userAgent":"curl password=hunter2"}' % number
        for number in numbers
    ]
    return [OutgoingEvent(decode(line), line) for line in lines]


@pytest.fixture
def out(tmp_path: Path) -> Any:
    """An open file in place of standard output, and how to read what was written."""
    path = tmp_path / "out"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield StdoutSink("stdout", StdoutSettings(stream="audit"), Telemetry(), descriptor), path
    os.close(descriptor)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["auditID"] for line in path.read_text().splitlines()]


def test_an_audit_event_is_a_line_without_its_secrets(out: Any) -> None:
    """JSON as the apiserver wrote it."""
    sink, path = out
    assert sink.deliver(events(1, 2)) == [Done(), Done()]
    assert ids(path) == ["1", "2"]
    assert "hunter2" not in path.read_text()


def test_a_friction_event_is_a_line_with_its_id(out: Any, event: Any) -> None:
    """So that a reader can tell a repeat."""
    sink, path = out
    given = event(1)
    assert sink.deliver([given]) == [Done()]
    assert json.loads(path.read_text())["id"] == given.id


def test_no_line_is_lost_or_mixed_when_the_reader_goes_away_in_the_middle(
    out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that has begun counts as written, and its rest comes before anything else."""
    sink, path = out
    write, room = os.write, [len(events(1)[0].json) + 1 + 20, 0]

    def cramped(descriptor: int, data: Any) -> int:
        if not room:
            return write(descriptor, data)
        space = room.pop(0)
        if not space:
            raise BrokenPipeError(32, "Broken pipe")
        return write(descriptor, bytes(data[:space]))

    monkeypatch.setattr(stdout.os, "write", cramped)
    assert sink.deliver(events(1, 2, 3)) == [Done(), Done(), Later(CLOSED_DELAY_S, "standard output: Broken pipe")]
    assert sink.deliver(events(3)) == [Done()]
    assert ids(path) == ["1", "2", "3"]


def test_a_reader_that_stays_away_keeps_everything_waiting(out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forgotten meanwhile."""
    sink, path = out
    with monkeypatch.context() as broken:
        broken.setattr(stdout.os, "write", lambda *_: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")))
        assert sink.deliver(events(1, 2)) == [Later(CLOSED_DELAY_S, "standard output: Broken pipe")] * 2
    assert sink.deliver(events(1, 2)) == [Done(), Done()]
    assert ids(path) == ["1", "2"]
