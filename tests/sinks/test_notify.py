"""The notify sink without services: one sink per URL, plain words, and what becomes of each failure."""

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from forwarder.alerts.wording import Note
from forwarder.contracts import Done, Later, Refused
from forwarder.errors import ConfigError
from forwarder.sinks.notify import NotifySettings, NotifySink, body, split


def sink(url: str = "json://localhost", **settings: Any) -> NotifySink:
    return NotifySink("people", NotifySettings(url=url, **settings), chance=lambda: 1.0)


@pytest.fixture
def service(monkeypatch) -> Any:
    """Replaces what a sink's service does: `service(sink, result, *log lines)`."""

    def arrange(one: NotifySink, result: Any, *lines: tuple[int, str]) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        def notify(**arguments: Any) -> bool:
            sent.append(arguments)
            for level, text in lines:
                logging.getLogger("apprise").log(level, text)
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(one._service, "notify", notify)
        return sent

    return arrange


def test_several_urls_are_sinks_of_their_own() -> None:
    """With what is said for all, and for one."""
    parts = split(
        "people", {"minimum_severity": "medium", "urls": {"a": "json://a", "b": {"url": "json://b", "rules": ["x"]}}}
    )
    assert parts == {
        "people.a": {"minimum_severity": "medium", "url": "json://a"},
        "people.b": {"minimum_severity": "medium", "url": "json://b", "rules": ["x"]},
    }
    assert split("people", {"url": "json://a"}) == {"people": {"url": "json://a"}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"urls": ["json://a"]}, "is a mapping"),
        ({"urls": {}}, "is a mapping"),
        ({"urls": {"a": "b"}, "url": "c"}, "either"),
    ],
)
def test_urls_that_cannot_be_meant(settings, words) -> None:
    """A list has no names, and names are what cursors hang on."""
    with pytest.raises(ConfigError, match=words):
        split("people", settings)


def test_a_message_has_title_text_and_kind(event, service) -> None:
    """Red for high, yellow for medium, blue for low."""
    one = sink(group_window_s=0)
    sent = service(one, True)
    assert one.deliver([event(1, command="id")]) == [Done()]
    assert sent[0]["title"] == "🔴 kubectl-exec: jane on shop/cart"
    assert "Command: id" in sent[0]["body"]
    for severity in ("medium", "low"):
        one.deliver([event(2, severity=severity)])
    assert [one["notify_type"] for one in sent] == ["failure", "warning", "info"]


def test_nothing_in_a_name_calls_people() -> None:
    """Discord, Mattermost and their like look for mentions in the text."""
    said = body(
        Note(title="t", severity="low", facts=(("Who", "@everyone @here @channel <@123> <!here> jane@example.com"),))
    )
    assert "@\u200beveryone @\u200bhere @\u200bchannel <\u200b@123> <\u200b!here>" in said
    assert "jane@example.com" in said


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("tgram://123456789:abcdefg_hijklmnop/12315544/", "Who: &lt;\u200bb&gt; [a]\u200b(http://x) &amp; c\r\nCommand: id"),
        ("workflow://prod-00.westus.logic.azure.com:443/workflows/643e69f83c8944/nvJ/", "Who: <\u200bb> [a]\u200b(http://x) & c\nCommand: id\nDashboard: https://d/?a=1"),
        ("discord://1234567890/abcdefghij", "Who: <\u200bb> [a]\u200b(http://x) & c\nCommand: id"),
    ],
    ids=["HTML", "Markdown", "text"],
)  # fmt: skip
def test_nothing_in_a_name_is_markup(monkeypatch, url: str, sent: str) -> None:
    """Where a service speaks HTML or Markdown; Telegram refuses a message with a tag it does not know."""
    bodies = []

    def post(*_: object, data: str, **__: object) -> SimpleNamespace:
        bodies.append(json.dumps(json.loads(data), ensure_ascii=False))
        return SimpleNamespace(status_code=200, content=b"{}", text="{}", headers={})

    monkeypatch.setattr("requests.post", post)
    note = Note(
        title="t", severity="low", facts=(("Who", "<b> [a](http://x) & c"),), command="id", link="https://d/?a=1"
    )
    assert sink(url)._send(note) == Done()
    assert json.dumps(sent, ensure_ascii=False)[1:-1] in bodies[-1]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(logging.WARNING, "Failed to send: Bad Request, error=400.")], Refused("Failed to send: Bad Request, error=400.")),
        ([(logging.WARNING, "Failed: error=401.")], Later(60.0, "Failed: error=401.; correct its URL")),
        ([(logging.WARNING, "Failed: error=429.")], Later(60.0, "Failed: error=429.")),
        ([(logging.WARNING, "Failed: error=503.")], Later(2.0, "Failed: error=503.")),
        (
            [(logging.WARNING, "A Connection error occurred."), (logging.DEBUG, "Socket Exception: refused"),
             (logging.DEBUG, "payload: the whole message")],
            Later(2.0, "A Connection error occurred. Socket Exception: refused"),
        ),
        ([], Later(2.0, "it was not sent, and Apprise does not say why")),
    ],
    ids=["bad", "key", "rate", "down", "unreachable", "silent"],
)  # fmt: skip
def test_a_failure_waits_with_apprises_words_unless_the_message_is_wrong(event, service, lines, expected) -> None:
    """What it logs is the only place where it says why."""
    one = sink()
    service(one, False, *lines)
    assert one.deliver([event(1)]) == [expected]


def test_a_plug_in_that_raises_is_no_bug_of_the_sink(event, service) -> None:
    """Its error's text is not shown: it may quote the URL."""
    one = sink()
    service(one, ValueError("json://user:secret@host"))
    assert one.deliver([event(1)]) == [Later(2.0, "the call failed (ValueError)")]


def test_passwords_stand_nowhere(caplog) -> None:
    """Neither in what the sink calls itself, nor in a refusal, nor in its settings."""
    one = sink("mailtos://user:s3cret@mail.example.com")
    assert "s3cret" not in one.where
    assert "s3cret" not in repr(NotifySettings(url="mailtos://user:s3cret@mail.example.com"))
    with pytest.raises(ConfigError) as caught:
        sink("nosuch://user:s3cret@host")
    assert "s3cret" not in str(caught.value)
    assert "`nosuch://…` is no URL that Apprise knows" in str(caught.value)
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(("settings", "words"), [({"url": ""}, "`url` is missing"), ({"timeout_s": 0}, "`timeout_s`")])
def test_settings_that_cannot_work(settings, words) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=words):
        sink(**settings)
