"""Complaints: the first is heard, the thousandth is counted, memory stays small."""

import logging
from types import SimpleNamespace

from forwarder.wire.complaints import INTERVAL_S, MAX_REMEMBERED, Complaints


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


def test_what_is_remembered_is_bounded():
    """Somebody with a million addresses costs log lines, not memory."""
    _, lines, complaints = _make()
    for n in range(MAX_REMEMBERED * 3):
        complaints.say(f"peer {n}", "auth", "wrong key")
    assert len(lines) == MAX_REMEMBERED * 3
    assert len(complaints._said) == MAX_REMEMBERED
