"""Doctor's look at each sink's peer; nothing is sent."""

import json
from typing import Any

import pytest

from forwarder.cli import sink_hops
from forwarder.cli.sink_hops import check_sinks
from forwarder.registry import load_config
from forwarder.settings import parse_document
from forwarder.sinks.slack import SlackSink, SlackState
from forwarder.wire.http_client import Reply

NOWHERE = "127.0.0.1:9"  # discard: nobody listens there


def hops(**sinks: Any) -> dict[str, Any]:
    settings = {"sources": {"file": {"path": "/x"}}, "sinks": sinks}
    return {hop.name: hop for hop in check_sinks(load_config(parse_document(json.dumps(settings), "f.yaml"), {}))}


@pytest.mark.parametrize(
    ("state", "good", "words"),
    [
        (
            SlackState(team="Acme", bot="friction", in_channel=True),
            True,
            "friction of Acme, channel C1, which the app is in",
        ),
        (SlackState(team="Acme", bot="friction"), True, "friction of Acme, channel C1"),
        (SlackState(problem="invalid_auth", advice="copy it"), False, "Slack says invalid_auth"),
    ],
)
def test_slack(monkeypatch, state: SlackState, good: bool, words: str) -> None:
    """Who the token is, and which scopes it needs where that cannot be seen."""
    monkeypatch.setattr(SlackSink, "probe", lambda _: state)
    hop = hops(slack={"token": "xoxb-1", "channel": "C1"})["slack"]
    assert (hop.good, hop.text) == (good, words)
    assert ("chat:write" in hop.advice) == (state == SlackState(team="Acme", bot="friction"))


def test_a_webhook_and_a_notify_url_can_only_be_tried_by_sending() -> None:
    """Their secrets are not shown."""
    found = hops(
        slack={"webhook_url": "https://hooks.slack.com/services/T/B/secret"},
        mail={"type": "notify", "url": "mailtos://u:s3cret@mail.example.com"},
    )
    assert all(hop.good is None and "--send" in hop.advice for hop in found.values())
    assert "secret" not in str(found)
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("kind", "reply", "good", "words"),
    [
        ("falcosidekick", Reply(200, {}, b"pong\n"), True, "answers"),
        ("falcosidekick", Reply(200, {}, b"<html>"), False, "is not Falcosidekick"),
        ("falcosidekick", "Connection refused", False, "Connection refused"),
        ("falco", Reply(405, {}, b""), True, "answers"),
        ("falco", Reply(404, {}, b""), False, "answers"),
        ("falco", "Connection refused", False, "Connection refused"),
    ],
)
def test_falco_and_its_sidekick(monkeypatch, kind: str, reply: Any, good: bool, words: str) -> None:
    """By the answers that only they give."""
    monkeypatch.setattr(sink_hops, "_asked", lambda *_: reply)
    hop = hops(**{kind: {}})[kind]
    assert hop.good is good
    assert words in hop.text


def test_a_file_and_a_forward_server(tmp_path) -> None:
    """A folder that is made later counts by the one above it."""
    found = hops(
        copy={"type": "file", "path": str(tmp_path / "new" / "f")},
        next={"type": "forward", "address": NOWHERE, "timeout_s": 1},
    )
    assert found["copy"].good is True
    assert found["next"].good is False
    assert "Connection refused" in found["next"].text


def test_the_backend_is_not_looked_at_twice() -> None:
    """It has a hop of its own."""
    assert hops(backend={"url": "http://b"}) == {}
