"""Complaints: the first is heard, the thousandth is counted, memory stays small."""

import logging
from types import SimpleNamespace

from forwarder.wire.complaints import INTERVAL_S, MAX_CAUSES, MAX_REMEMBERED, Complaints


def _make():
    now, lines = [0.0], []
    log = SimpleNamespace(log=lambda level, text, *values: lines.append((level, text % values)))
    return now, lines, Complaints(log, lambda: now[0])


def test_the_same_about_the_same_peer_is_said_once_a_minute_with_the_number_of_the_others():
    """Another peer, or another kind of trouble, is another matter."""
    now, lines, complaints = _make()
    for _ in range(1000):
        complaints.say("10.0.0.1", "auth", "wrong key")
    complaints.say("10.0.0.2", "auth", "wrong key")
    complaints.say("10.0.0.1", "tls", "no TLS", level=logging.ERROR)
    now[0] = INTERVAL_S
    complaints.say("10.0.0.1", "auth", "wrong key")
    assert lines == [
        (logging.WARNING, "10.0.0.1: wrong key"),
        (logging.WARNING, "10.0.0.2: wrong key"),
        (logging.ERROR, "10.0.0.1: no TLS"),
        (logging.WARNING, "10.0.0.1: wrong key (999 more times since the last line about it)"),
    ]


def test_a_new_cause_is_said_at_once():
    """Whoever gives a client the right CA learns in the same minute that its own certificate is missing."""
    _, lines, complaints = _make()
    for text in ("does not trust us", "does not trust us", "showed no certificate", "does not trust us"):
        complaints.say("10.0.0.1", "tls", text)
    assert [line for _, line in lines] == ["10.0.0.1: does not trust us", "10.0.0.1: showed no certificate"]


def test_a_peer_that_invents_causes_does_not_fill_the_log():
    """Some texts hold a byte or a size of its choice."""
    now, lines, complaints = _make()
    for n in range(1000):
        complaints.say("10.0.0.1", "protocol", f"begins with {n}")
    assert len(lines) == MAX_CAUSES
    now[0] = INTERVAL_S
    complaints.say("10.0.0.1", "protocol", "begins with 7")
    assert lines[-1][1].endswith(f"({1000 - MAX_CAUSES} more times since the last line about it)")


def test_what_is_remembered_is_bounded():
    """Somebody with a million addresses costs log lines, not memory."""
    _, lines, complaints = _make()
    for n in range(MAX_REMEMBERED * 3):
        complaints.say(f"peer {n}", "auth", "wrong key")
    assert len(lines) == MAX_REMEMBERED * 3
    assert len(complaints._said) == MAX_REMEMBERED
