"""`doctor --send` through a webhook door, without sockets: what it shows and what it says. The real one is in tests/e2e/product."""

import base64
from typing import Any, Self

import pytest

from forwarder.cli import probe_webhook
from forwarder.cli.probe_webhook import post
from forwarder.sources.webhook import WebhookSettings


class Connection:
    """Keeps what is sent, and answers."""

    def __init__(self, answer: bytes) -> None:
        self.sent, self.answer = b"", answer

    def settimeout(self, seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int) -> bytes:
        answer, self.answer = self.answer, b""
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"token": "t"}, b"Authorization: Bearer t\r\n"),
        ({"cluster_tokens": {"prod": "p"}}, b"Authorization: Bearer p\r\n"),
        ({"users": {"u": "p"}}, b"Authorization: Basic " + base64.b64encode(b"u:p")),
        ({}, b"Content-Length: 2\r\n\r\n{}"),
    ],
    ids=["token", "cluster token", "user", "nothing"],
)
def test_it_shows_what_the_door_asks_for(monkeypatch: pytest.MonkeyPatch, settings: Any, header: bytes) -> None:
    """At the first of its paths."""
    connection = Connection(b"HTTP/1.1 200 \r\n\r\n")
    monkeypatch.setattr(probe_webhook, "connect", lambda _: connection)
    hop = post(WebhookSettings(paths=["/auditLogs"], **settings), b"{}")
    assert hop.good is True
    assert connection.sent.startswith(b"POST /auditLogs HTTP/1.1\r\n")
    assert header in connection.sent


@pytest.mark.parametrize(("answer", "words"), [(b"HTTP/1.1 401 \r\n\r\n", "401"), (b"", "closed without an answer")])
def test_a_refusal_is_said(monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str) -> None:
    """With what to look at."""
    monkeypatch.setattr(probe_webhook, "connect", lambda _: Connection(answer))
    hop = post(WebhookSettings(token="t"), b"{}")
    assert hop.good is False
    assert words in hop.text
    assert "token" in hop.advice


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver is not running."""

    def refuse(_: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(probe_webhook, "connect", refuse)
    assert post(WebhookSettings(), b"{}").good is False
