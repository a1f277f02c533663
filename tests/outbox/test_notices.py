"""Log lines about a state that lasts."""

import logging

from forwarder.outbox import notices
from forwarder.outbox.notices import SAY_AGAIN_S, Notices


def test_a_state_that_lasts_is_said_once_a_minute(caplog, monkeypatch) -> None:
    """Each topic by itself; a full disk must not be filled with lines that say so."""
    now = [0.0]
    monkeypatch.setattr(notices.time, "monotonic", lambda: now[0])
    said = Notices(logging.getLogger("test"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            said.say(logging.WARNING, "full", "full %d", 1)
            said.say(logging.WARNING, "other", "other")
        now[0] = SAY_AGAIN_S
        said.say(logging.WARNING, "full", "full %d", 2)
    assert caplog.messages == ["full 1", "other", "full 2"]
