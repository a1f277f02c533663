"""What is shown once although it comes twice."""

from collections.abc import Callable

import pytest

from forwarder.events.friction import FrictionEvent
from forwarder.feed import repeats
from forwarder.feed.repeats import Repeats


def test_a_batch_that_is_sent_again_is_shown_once(friction: Callable[..., FrictionEvent]) -> None:
    """By id and revision: the end of a session is no repeat of its beginning."""
    known, begun, ended, other = Repeats(), friction(revision=0), friction(revision=1), friction(id="other")
    assert known.without([begun, other]) == [begun, other]
    assert known.without([begun, ended, other]) == [ended]


def test_it_remembers_a_bounded_number(friction: Callable[..., FrictionEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten first."""
    monkeypatch.setattr(repeats, "MAX_REMEMBERED", 2)
    known, events = Repeats(), [friction(id=str(number)) for number in range(3)]
    known.without(events)
    assert known.without(events[1:]) == []
    assert known.without(events[:1]) == events[:1]
