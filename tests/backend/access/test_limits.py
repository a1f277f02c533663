"""Buckets: a minute's worth at once, a steady refill, and a bounded number of them."""

import pytest

from forwarder.backend.access import limits as module
from forwarder.backend.access.limits import Limits


def test_bucket() -> None:
    """A minute's worth may come at once; then each request has to wait for its share, and is told how long."""
    now = 0.0
    limits = Limits(60, lambda: now)
    assert [limits.take("a") for _ in range(60)] == [0] * 60
    assert limits.take("a") == 1
    assert limits.take("b") == 0
    now = 1.0
    assert [limits.take("a"), limits.take("a")] == [0, 1]
    now = 3600.0
    assert [limits.take("a") for _ in range(61)] == [0] * 60 + [1]


def test_slow_refill() -> None:
    """The wait is rounded up, so that who comes back then is let in."""
    now = 0.0
    limits = Limits(1, lambda: now)
    assert (limits.take("a"), limits.take("a")) == (0, 60)
    now = 60.0
    assert limits.take("a") == 0


def test_no_limit() -> None:
    """0 turns it off."""
    limits = Limits(0)
    assert {limits.take("a") for _ in range(1000)} == {0}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many addresses the least recently seen is forgotten."""
    monkeypatch.setattr(module, "MAX_BUCKETS", 2)
    limits = Limits(1, lambda: 0.0)
    assert [limits.take(name) for name in "abab"] == [0, 0, 60, 60]
    limits.take("c")
    assert [limits.take(name) for name in "cba"] == [60, 60, 0]
