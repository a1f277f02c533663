"""The Slack sink without Slack: what it posts, and what it makes of each answer."""

import json
import re
from email.message import Message
from io import BytesIO
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from forwarder.alerts.wording import Note
from forwarder.contracts import Done, Later, Refused
from forwarder.errors import ConfigError
from forwarder.sinks.slack import ADVICE, SlackSettings, SlackSink, attachment

TOKEN = "xoxb-not-a-token"
HOSTILE = "<!channel> <@U1> & <https://evil|x> `code` @here #general"


class Slack:
    """Stands in for urllib: answers each method from a list, or with ok."""

    def __init__(self, monkeypatch) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answers: dict[str, list[Any]] = {}
        monkeypatch.setattr("slack_sdk.web.base_client.urlopen", self.open)
        monkeypatch.setattr("slack_sdk.webhook.client.urlopen", self.open)

    def open(self, request: Any, **_: Any) -> Any:
        method = request.full_url.rpartition("/")[2]
        self.asked.append((method, request))
        answers = self.answers.get(method, [])
        answer = answers.pop(0) if answers else {"ok": True}
        if isinstance(answer, Exception):
            raise answer
        return Reply(answer)

    def fail(self, method: str, error: Any, status: int = 200, **headers: str) -> None:
        answer: Any = {"ok": False, "error": error} if isinstance(error, str) else error
        if status != 200:
            about = Message()
            for name, value in {"Content-Type": "application/json", **headers}.items():
                about[name.replace("_", "-")] = value
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            answer = HTTPError("https://slack.com/api/x", status, "no", about, BytesIO(raw))
        self.answers.setdefault(method, []).append(answer)

    def body(self) -> Any:
        return json.loads(self.asked[-1][1].data)


class Reply:
    def __init__(self, body: Any) -> None:
        scopes = body.pop("_scopes", None) if isinstance(body, dict) else None
        self.raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.code = self.status = 200
        self.headers = Message()
        self.headers["Content-Type"] = "application/json"
        if scopes is not None:
            self.headers["X-OAuth-Scopes"] = scopes

    def read(self) -> bytes:
        return self.raw


@pytest.fixture
def slack(monkeypatch) -> Slack:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return Slack(monkeypatch)


def sink(**settings: Any) -> SlackSink:
    return SlackSink("slack", SlackSettings(**({"token": TOKEN, "channel": "C1"} | settings)), chance=lambda: 1.0)


def test_a_message_goes_to_the_channel_with_the_token(slack, event) -> None:
    """chat.postMessage, with a text for notifications and the blocks in the severity's colour."""
    assert sink(dashboard_url="https://d/{id}").deliver([event(1)]) == [Done()]
    method, request = slack.asked[0]
    body = slack.body()
    assert method == "chat.postMessage"
    assert request.get_header("Authorization") == f"Bearer {TOKEN}"
    assert body["channel"] == "C1"
    assert body["text"] == "🔴 kubectl-exec: jane on shop/cart"
    assert body["unfurl_links"] is False
    (part,) = body["attachments"]
    assert part["color"] == "#d92d20"
    assert part["blocks"][0]["text"]["text"] == (
        "🔴 *<https://d/00000000-0000-0000-0000-000000000001|kubectl-exec: jane on shop/cart>*"
    )
    fields = {field["text"].split("\n")[0]: field["text"].split("\n")[1] for field in part["blocks"][1]["fields"]}
    assert fields["*Who*"] == "jane"


def test_a_webhook_gets_the_same_without_a_channel(slack, event) -> None:
    """It has its own."""
    hook = SlackSink("slack", SlackSettings(webhook_url="https://hooks.slack.com/services/T/B/x"))
    slack.answers["x"] = [b"ok"]
    assert hook.deliver([event(1)]) == [Done()]
    body = slack.body()
    assert "channel" not in body
    assert body["attachments"][0]["color"] == "#d92d20"


def test_nothing_in_a_name_calls_people_or_becomes_markup() -> None:
    """Escaped as Slack asks for, verbatim, and the code cannot be left from within."""
    made = attachment(Note(title=HOSTILE, severity="low", facts=(("Who", HOSTILE),), command=f"sh ```{HOSTILE}",
                           lines=(HOSTILE,), footer=HOSTILE))  # fmt: skip
    texts = [found for found in _texts(made["blocks"]) if found.get("type") == "mrkdwn"]
    assert len(texts) == 5
    for text in texts:
        assert text["verbatim"] is True
        assert not re.search(r"<(?![|])", text["text"]), text
        assert "&lt;!channel&gt;" in text["text"]
    code = next(text["text"] for text in texts if text["text"].startswith("```"))
    assert code.count("`") == 6


def _texts(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(one for item in value.values() for one in _texts(item))]
    return [one for item in value for one in _texts(item)] if isinstance(value, list) else []


def test_the_longest_hostile_texts_fit_slacks_limits() -> None:
    """Escapes make five characters of one; none is cut in two."""
    made = attachment(Note(title="&" * 2000, severity="low", facts=(("What", "<" * 3000),), command=">" * 3000,
                           lines=("&" * 5000,)))  # fmt: skip
    for text in _texts(made["blocks"]):
        if "text" in text and isinstance(text["text"], str):
            assert len(text["text"]) <= 3000
            assert not re.search(r"&(?!amp;|lt;|gt;)", text["text"])


@pytest.mark.parametrize(
    "word", ["invalid_auth", "not_in_channel", "channel_not_found", "missing_scope", "is_archived"]
)
def test_slacks_own_word_and_what_to_do_reach_the_operator(slack, event, word) -> None:
    """The event waits until somebody has done it."""
    slack.fail("chat.postMessage", word)
    (outcome,) = sink().deliver([event(1)])
    assert outcome == Later(60.0, f"Slack says {word}: {ADVICE[word]}")


def test_slack_asks_for_patience(slack, event) -> None:
    """For as long as it says."""
    slack.fail("chat.postMessage", "ratelimited", 429, Retry_After="17")
    assert sink().deliver([event(1)]) == [Later(17.0, "Slack asks for patience (ratelimited)")]


@pytest.mark.parametrize("word", ["msg_too_long", "invalid_blocks"])
def test_only_what_is_wrong_with_the_message_refuses_it(slack, event, word) -> None:
    """With Slack's word in the dead letter."""
    slack.fail("chat.postMessage", word)
    assert sink().deliver([event(1)]) == [Refused(f"Slack refused the message: {word}")]


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ("internal_error", 200, "Slack: internal_error"),
        ("a sentence with xoxb-1 in it", 200, "Slack: it answers with 200"),
        (b"<html>502</html>", 502, "Slack: it answers with 502"),
    ],
)
def test_other_faults_are_tried_again_and_quote_nothing(slack, event, error, status, words) -> None:
    """A proxy's page is no word of Slack's."""
    slack.fail("chat.postMessage", error, status)
    (outcome,) = sink().deliver([event(1)])
    assert isinstance(outcome, Later)
    assert outcome.reason == words


def test_nobody_there(slack, event) -> None:
    """In words, without the URL."""
    slack.answers["chat.postMessage"] = [URLError(ConnectionRefusedError(111, "Connection refused"))]
    (outcome,) = sink().deliver([event(1)])
    assert isinstance(outcome, Later)
    assert outcome.reason == "Slack: it cannot be reached (Connection refused)"


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (404, b"no_service", "Slack says no_service"),
        (403, b"action_prohibited", "Slack says action_prohibited"),
        (400, b"invalid_payload", "Slack refused the message: invalid_payload"),
        (500, b"rollup_error", "Slack: rollup_error"),
    ],
)
def test_a_webhooks_words(slack, event, status, said, expected) -> None:
    """They come as text."""
    slack.fail("x", said, status)
    hook = SlackSink("slack", SlackSettings(webhook_url="https://hooks.slack.com/services/T/B/x"))
    (outcome,) = hook.deliver([event(1)])
    assert outcome.reason.startswith(expected)


def test_doctor_learns_who_the_token_is_and_whether_the_app_is_in_the_channel(slack) -> None:
    """Posting nothing."""
    slack.answers["auth.test"] = [
        {"ok": True, "team": "Acme", "user": "friction", "_scopes": "chat:write,channels:read"}
    ]
    slack.answers["conversations.info"] = [{"ok": True, "channel": {"is_member": False}}]
    state = sink().probe()
    assert (state.team, state.bot, state.scopes) == ("Acme", "friction", ("chat:write", "channels:read"))
    assert (state.in_channel, state.problem) == (False, "not_in_channel")
    assert "/invite" in state.advice
    assert [method for method, _ in slack.asked] == ["auth.test", "conversations.info"]


def test_doctor_names_a_scope_that_is_missing(slack) -> None:
    """Before the first message fails for it."""
    slack.answers["auth.test"] = [{"ok": True, "team": "Acme", "user": "friction", "_scopes": "channels:read"}]
    assert sink().probe().problem == "missing_scope"


def test_doctor_does_not_need_more_scopes_than_posting_does(slack) -> None:
    """Whether the app is in the channel stays unknown then."""
    slack.answers["auth.test"] = [{"ok": True, "team": "Acme", "user": "friction", "_scopes": "chat:write"}]
    slack.fail("conversations.info", "missing_scope")
    state = sink().probe()
    assert (state.problem, state.in_channel) == ("", None)


def test_doctor_hears_that_the_token_is_wrong(slack) -> None:
    """In Slack's word."""
    slack.fail("auth.test", "invalid_auth")
    assert sink().probe().problem == "invalid_auth"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"token": None, "channel": "C1"}, "`token` is missing"),
        ({"token": TOKEN, "channel": ""}, "`channel` is missing"),
        ({"webhook_url": "https://hooks.slack.com/x"}, "either `webhook_url`, or"),
        ({"token": "xoxb-1\n", "channel": "C1"}, "no Slack token has"),
        ({"api_url": "ftp://x/"}, "`api_url` must begin"),
        ({"timeout_s": 0}, "`timeout_s` must be"),
    ],
)
def test_settings_that_cannot_work(settings, words) -> None:
    """By name; the token stands in no error."""
    with pytest.raises(ConfigError, match=words) as caught:
        sink(**settings)
    assert "xoxb" not in str(caught.value)


def test_the_token_does_not_come_out_by_way_of_repr() -> None:
    """Nor the webhook, which is one."""
    assert "xoxb" not in repr(SlackSettings(token=TOKEN, channel="C1", webhook_url="https://hooks.slack.com/xoxb"))


def test_slacks_client_does_not_log_each_try(slack, event, caplog) -> None:
    """A Slack that is away is said once, by the delivery; hundreds of tries in a night are no news."""
    slack.answers["chat.postMessage"] = [URLError("away")]
    with caplog.at_level("DEBUG"):
        (outcome,) = sink().deliver([event(1)])
    assert isinstance(outcome, Later)
    assert [record for record in caplog.records if record.name.startswith("slack_sdk")] == []
