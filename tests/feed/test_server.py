"""The feed as the receiver sees it; tests/e2e/feed has the rest of it, over sockets."""

from collections.abc import Callable

import pytest

from forwarder.errors import ConfigError
from forwarder.events.audit import decode
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.events.redaction import Redaction, RedactionSettings
from forwarder.feed import mapping, schema
from forwarder.feed.audience import Item
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


def test_what_an_operator_wants_hidden_is_hidden_here_too() -> None:
    """`redaction:` counts for whoever watches, as it does for sinks."""
    line = b'{"auditID":"a","verb":"get","stage":"ResponseComplete","user":{"username":"CUST-12345678"},"userAgent":"CUST-12345678"}'
    event = OutgoingEvent(decode(line), line, "", Redaction(RedactionSettings(patterns=[r"CUST-\d{8}"])))
    feed = Feed(FeedSettings(), Telemetry())
    watcher = feed._logs.join(lambda: None)
    feed.audit([event])
    item = watcher.take()
    assert isinstance(item, Item)
    (encoded,) = item.messages()
    assert b"12345678" not in encoded
    assert schema.Log.FromString(encoded).EventData["verb"] == "get"


def test_settings_are_checked_before_anything_is_opened() -> None:
    """A Unix socket would have to be made and removed by gRPC, which keeps neither its mode nor its leftovers right."""
    with pytest.raises(ConfigError, match=r"feed\.listen.*Unix socket"):
        Feed(FeedSettings(listen="unix:/run/feed.sock"), Telemetry())
    with pytest.raises(ConfigError, match=r"feed\.listen"):
        Feed(FeedSettings(listen="0.0.0.0:1"), Telemetry())


def test_stop_without_start_is_nothing() -> None:
    """A receiver that failed before its feed was open still closes everything."""
    Feed(FeedSettings(), Telemetry()).stop()
