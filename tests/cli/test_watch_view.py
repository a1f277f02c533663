"""One line for people, one object for machines."""

import json
import re

import msgspec
import pytest

from forwarder.cli.watch_view import View, as_object, facts, severity
from forwarder.feed import schema
from forwarder.feed.client import Seen
from tests.cli.watching import alert, log, loss, message


def line(seen: Seen, **options: bool) -> str:
    """The line, with single spaces."""
    view = View(**({"colour": False, "show_target": False} | options))
    return re.sub(" +", " ", view.line(seen.target, facts(seen)))


def test_a_friction_event_is_one_line() -> None:
    """When, how bad, where, who, which rule, what, with which command, and how it ended."""
    assert line(alert()) == (
        "2026-03-01 10:00:00 HIGH eu-1/payments/web alice@corp.example kubectl-exec create pods/web-0/exec $ sh -c id allowed, open"
    )


@pytest.mark.parametrize(
    ("event", "end"),
    [
        (alert(outcome="denied", response_code=403), "denied 403, open"),
        (alert(outcome="denied", response_code=403, stage="ResponseComplete"), "denied 403"),
        (alert(outcome="failed", response_code=404, stage="ResponseComplete"), "failed 404"),
        (alert(outcome="failed", response_code=0, stage="Panic"), "failed"),
        (alert(stage="ResponseComplete", duration_s=12.4, revision=1), "allowed, ended after 12 s"),
        (alert(stage="ResponseComplete"), "allowed"),
        (log(), "denied 403"),
    ],
)
def test_the_line_ends_with_the_outcome(event: Seen, end: str) -> None:
    """A session is open or has ended after so long; what did not pass says its code."""
    assert line(event).endswith(end)


def test_a_person_behind_another_identity_is_named() -> None:
    """Both ways: who assumed an identity, and through which machine somebody came."""
    assert " alice@corp.example as system:admin via rancher " in line(alert(acting_as="system:admin", via="rancher"))


def test_an_audit_event_and_a_notice_are_lines_too() -> None:
    """A log has no severity, a notice has its level."""
    assert line(log()) == "2026-03-01 10:00:00 eu-1/shop bob list secrets denied 403"
    assert line(message("the disk is full", "WARN")) == "2026-03-01 10:00:00 WARN the disk is full"


def test_several_feeds_are_told_apart() -> None:
    """Only then the target is shown."""
    assert line(alert("feed-2:32767"), show_target=True).split(" ")[0] in ("2026-03-01", "feed-2:32767")
    assert "feed-2:32767" in line(alert("feed-2:32767"), show_target=True)
    assert "feed-2:32767" not in line(alert("feed-2:32767"))


def test_lines_stand_in_columns() -> None:
    """What was wide once stays wide, up to a bound; one overlong name moves its own line only."""
    view = View(colour=False, show_target=False)
    first = view.line("t", facts(alert(actor="a-long-name@corp.example")))
    second = view.line("t", facts(alert(actor="bo")))
    assert first.index("kubectl-exec") == second.index("kubectl-exec")
    view.line("t", facts(alert(actor="x" * 150)))
    assert view.line("t", facts(alert(actor="bo"))).index("kubectl-exec") < 120


def test_a_narrow_terminal_gets_the_rest_below() -> None:
    """Folded between cells, indented; a cell is never cut, so that a command can be copied."""
    view = View(colour=True, show_target=False, columns=lambda: 60)
    shown = re.sub("\x1b\\[[0-9;]*m", "", view.line("t", facts(alert(command="x" * 100))))
    lines = shown.split("\n")
    assert len(lines) > 2
    assert all(part.startswith(" " * 18 + part.strip()[0]) for part in lines[1:])
    assert all(len(part) <= 60 for part in lines if "x" * 100 not in part)
    assert "$ " + "x" * 100 in shown
    assert re.sub("\\s+", " ", shown) == line(alert(command="x" * 100))


def test_colours_follow_severity_and_outcome() -> None:
    """Red, yellow and cyan for severity; magenta for what was denied; none at all where they are off."""
    assert "\x1b[31m" in line(alert(), colour=True)
    assert "\x1b[33m" in line(alert(severity="medium"), colour=True)
    assert "\x1b[35m" in line(alert(outcome="denied", response_code=403), colour=True)
    assert "\x1b[" not in line(alert(outcome="denied", response_code=403))


def test_no_control_character_reaches_the_terminal() -> None:
    """A feed is somebody else's program: it may send anything."""
    evil = schema.Alert(
        Source="a\x1b[2Jb", Message="\r", Resource="x\ny", Result="\x07", ClusterName="\x9b1m", Severity="9"
    )
    shown = line(Seen("t", "alerts", evil))
    assert shown.isprintable()


def test_kubearmors_own_alerts_are_shown() -> None:
    """They have no EventData of ours."""
    theirs = schema.Alert(
        UpdatedTime="2026-03-01T10:00:00.000000Z", ClusterName="default", NamespaceName="wp", PodName="mysql-1", Severity="5",
        PolicyName="ksp-block", Source="/bin/bash", Operation="Process", Resource="/usr/bin/apt", Action="Block",
        Result="Permission denied",
    )  # fmt: skip
    assert line(Seen("t", "alerts", theirs)) == (
        "2026-03-01 10:00:00 MEDIUM default/wp/mysql-1 /bin/bash ksp-block Process /usr/bin/apt denied"
    )


@pytest.mark.parametrize(
    ("number", "word"),
    [
        ("10", "high"),
        ("8", "high"),
        ("7", "medium"),
        ("5", "medium"),
        ("4", "low"),
        ("1", "low"),
        ("", "low"),
        ("x", "low"),
    ],
)
def test_kubearmors_severity_is_one_of_three_words(number: str, word: str) -> None:
    """What cannot be read is low."""
    assert severity(number) == word


def test_json_has_kubearmors_names() -> None:
    """Without what is empty; numbers stay numbers; where it came from stands in front."""
    found = json.loads(msgspec.json.encode(as_object(alert(tags=("a", "b")))))
    assert list(found)[:2] == ["Target", "Stream"]
    assert (found["Stream"], found["Timestamp"], found["PolicyName"]) == ("alerts", 1772359200, "kubectl-exec")
    assert found["Owner"] == {"Ref": "component:payments/web", "Name": "web", "Namespace": "payments"}
    assert (found["ATags"], found["EventData"]["verb"]) == (["a", "b"], "create")
    assert "HostName" not in found


def test_a_gap_says_how_much_is_missing() -> None:
    """In its place among the lines."""
    assert View(colour=False, show_target=True).dropped(loss(7)).startswith("feed:1  … 7 alerts lost here")
    assert loss(7).dropped == 7
    assert alert().dropped == 0
    assert message("7").dropped == 0
