"""The feed as the receiver sees it; tests/e2e/feed has the rest of it, over sockets."""

from collections.abc import Callable

import pytest

from forwarder.errors import ConfigError
from forwarder.events.audit import decode
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.feed import mapping
from forwarder.feed.server import Feed
from forwarder.feed.settings import FeedSettings
from forwarder.telemetry import Telemetry

LINE = b'{"auditID":"a","verb":"list","stage":"ResponseComplete"}'


def test_nothing_is_encoded_when_nobody_listens(
    friction: Callable[..., FrictionEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor kept, nor asked for."""

    def never(*_: object) -> bytes:
        raise AssertionError("encoded")

    monkeypatch.setattr(mapping, "alert", never)
    monkeypatch.setattr(mapping, "log", never)
    telemetry = Telemetry()
    feed = Feed(FeedSettings(), telemetry)
    assert not feed.wants_audit
    feed.friction([friction()] * 2000)
    feed.audit([OutgoingEvent(decode(LINE), LINE)] * 2000)
    assert telemetry.value("forwarder_feed_dropped") == 0


def test_settings_are_checked_before_anything_is_opened() -> None:
    """A Unix socket would have to be made and removed by gRPC, which keeps neither its mode nor its leftovers right."""
    with pytest.raises(ConfigError, match=r"feed\.listen.*Unix socket"):
        Feed(FeedSettings(listen="unix:/run/feed.sock"), Telemetry())
    with pytest.raises(ConfigError, match=r"feed\.listen"):
        Feed(FeedSettings(listen="0.0.0.0:1"), Telemetry())


def test_stop_without_start_is_nothing() -> None:
    """A receiver that failed before its feed was open still closes everything."""
    Feed(FeedSettings(), Telemetry()).stop()
