"""A total deadline for calls that have none."""

import threading

import pytest

from forwarder.wire.deadline import Deadline, Overdue

SHORT_S, LONG_S = 0.05, 20.0


def test_what_a_call_gives_and_raises_comes_through() -> None:
    """As if it had been called here."""
    deadline = Deadline("test")
    assert deadline.run(lambda: 7, LONG_S) == 7
    with pytest.raises(ZeroDivisionError):
        deadline.run(lambda: 1 / 0, LONG_S)


def test_a_call_that_hangs_is_left_alone_and_none_piles_up_behind_it() -> None:
    """Until it has ended, further calls fail at once; then they work again."""
    release, deadline = threading.Event(), Deadline("test")
    with pytest.raises(Overdue, match=r"no answer within 0\.05 s"):
        deadline.run(lambda: release.wait(LONG_S), SHORT_S)
    with pytest.raises(Overdue, match="still hangs"):
        deadline.run(lambda: True, LONG_S)
    release.set()
    assert deadline._last is not None
    deadline._last.join(LONG_S)
    assert deadline.run(lambda: True, LONG_S)


def test_a_call_that_can_be_aborted_leaves_the_next_one_free() -> None:
    """At once."""
    release, deadline = threading.Event(), Deadline("test")
    with pytest.raises(Overdue, match="no answer"):
        deadline.run(lambda: release.wait(LONG_S), SHORT_S, abort=release.set)
    assert deadline.run(lambda: True, LONG_S)
