"""`demo-log`: lines whole, rotation by the apiserver's names, live pacing, and the list of what should be found."""

import json
import re

import pytest
import typer
from typer.testing import CliRunner

from forwarder.cli.demo_log import LogWriter, demo_log, write_live
from forwarder.errors import ConfigError
from forwarder.events.sample import SampleLog

app = typer.Typer()
app.command()(demo_log)


def _run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_the_past_ends_now_and_is_listed(tmp_path):
    """The log holds the lines that were asked for, and the list every friction event in them."""
    log, expected = tmp_path / "audit.log", tmp_path / "expected.ndjson"
    result = _run(log, "--lines", 3000, "--friction-share", 0.05, "--expected", expected)
    events = [json.loads(line) for line in log.read_bytes().splitlines()]
    actions = [json.loads(line) for line in expected.read_bytes().splitlines()]
    assert len(events) == 3000
    assert {action["audit_id"] for action in actions} <= {event["auditID"] for event in events}
    assert f"3,000 lines, {len(actions)} of them friction, 0 rotations" in result.output
    assert log.stat().st_mode & 0o777 == 0o600


def test_rotation_is_by_rename_and_splits_no_line(tmp_path):
    """No file is above the limit, all have the names that kube-apiserver gives, and together they are the log."""
    log = tmp_path / "audit.log"
    _run(log, "--lines", 500, "--rotate-bytes", 200_000)
    files = sorted(tmp_path.glob("audit*.log"))
    rotated = files[:-1]
    assert files[-1] == log
    assert len(rotated) >= 5
    assert all(re.fullmatch(r"audit-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}\.log", file.name) for file in rotated)
    assert all(file.stat().st_size <= 200_000 and file.read_bytes().endswith(b"\n") for file in files)
    stamps = [json.loads(line)["stageTimestamp"] for file in files for line in file.read_bytes().splitlines()]
    assert len(stamps) == 500
    assert stamps == sorted(stamps)


def test_it_appends(tmp_path):
    """A log that is there is continued, as an apiserver does after a restart; its size counts for rotation."""
    log = tmp_path / "audit.log"
    log.write_bytes(b"x" * 100 + b"\n")
    writer = LogWriter(str(log), rotate_bytes=143)
    writer.write(b"y" * 40)
    writer.write(b"z")
    writer.close()
    (aside,) = tmp_path.glob("audit-*.log")
    assert aside.read_bytes() == b"x" * 100 + b"\n" + b"y" * 40 + b"\n"
    assert log.read_bytes() == b"z\n"


def test_a_folder_that_is_not_there_is_the_users_mistake(tmp_path):
    """The message names the file and the reason."""
    with pytest.raises(ConfigError, match=r"none/audit\.log: cannot write it: No such file or directory"):
        LogWriter(str(tmp_path / "none" / "audit.log"))


def test_a_live_log_keeps_its_pace_and_closes_its_sessions(tmp_path):
    """So many lines a second for so many seconds, however long a tick takes; sessions that are open then are ended."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds * 3

    log = SampleLog(1, start_time=1_795_000_000.0, lines_per_s=100, friction_share=0.2)
    writer = LogWriter(str(tmp_path / "audit.log"))
    write_live(log, writer, rate=100, duration_s=3, clock=lambda: now[0], sleep=sleep)
    writer.close()
    ends = len([action for action in log.actions if action.duration_s is not None])
    assert ends > 0
    assert all(action.revision == 1 for action in log.actions)
    assert 280 <= writer.lines <= 400  # 300 in time, and the ends of sessions and watches
    assert log.open_requests == 0
