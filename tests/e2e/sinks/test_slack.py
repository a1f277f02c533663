"""A receiver process and a Slack that enforces its API: every event told, kills and outages included."""

import json
import re
import signal
import time
from collections import Counter
from typing import Any

import pytest

from forwarder.contracts import Later
from forwarder.sinks.slack import SlackSettings, SlackSink
from tests.e2e.product.conftest import wait_until
from tests.e2e.sinks.conftest import Answer, Receiver, Recorder, exec_line, serving
from tests.e2e.test_backend_sink import drip, hang, peer
from tests.e2e.test_backend_sink import event as friction_event
from tests.ports import free_port

pytestmark = pytest.mark.e2e

TOKEN = "xoxb-e2e-token"
ID = re.compile(r"id ([0-9a-f-]{36})")


class Slack(Recorder):
    """chat.postMessage as Slack answers it: token, channel, blocks within their limits."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(self.post, port)

    def post(self, path: str, body: Any, headers: Any) -> Answer:
        if path != "/api/chat.postMessage":
            return self.no("unknown_method")
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.no("invalid_auth")
        if body["channel"] != "C1":
            return self.no("channel_not_found")
        (part,) = body["attachments"]
        for block in part["blocks"]:
            texts = [block["text"]] if "text" in block else block.get("fields") or block["elements"]
            if len(texts) > 10 or any(not 0 < len(text["text"]) <= 3000 for text in texts):
                return self.no("invalid_blocks")
        return (
            200,
            json.dumps({"ok": True, "channel": "C1", "ts": "1.2"}).encode(),
            {"Content-Type": "application/json"},
        )

    @staticmethod
    def no(word: str) -> Answer:
        return 200, json.dumps({"ok": False, "error": word}).encode(), {"Content-Type": "application/json"}

    @property
    def posted(self) -> list[str]:
        """The ids below the messages that were taken."""
        return [found.group(1) for body in self.taken if (found := ID.search(json.dumps(body)))]


def settings(slack: Slack, **more: Any) -> dict[str, Any]:
    return {
        "slack": {
            "token": TOKEN,
            "channel": "C1",
            "api_url": f"{slack.url}/api/",
            "group_window_s": 0,
            "max_per_minute": 60,
            "timeout_s": 2,
            **more,
        }
    }


def test_kills_lose_nothing_and_repeat_at_most_the_message_under_way(receiver: Receiver) -> None:
    """30 events, one message each, and three kills in the middle."""
    with serving(Slack()) as slack:
        receiver.configure(settings(slack))
        receiver.write([exec_line(number) for number in range(30)])
        for at in (5, 12, 20):
            receiver.start()
            wait_until(lambda at=at: len(slack.taken) >= at, f"{at} messages")
            receiver.kill()
        receiver.start()
        ledger = receiver.settled(30)
        receiver.stop()
    assert (ledger.sinks[0].delivered, ledger.sinks[0].dead) == (30, 0)
    counts = Counter(slack.posted)
    assert len(counts) == 30
    assert len(slack.posted) <= 33
    assert max(counts.values()) <= 2


def test_an_outage_is_survived_and_slacks_patience_is_kept(receiver: Receiver) -> None:
    """Nobody listens, then it asks for patience, then it takes all; nothing becomes a dead letter."""
    port = free_port()
    receiver.configure(
        {"slack": {"token": TOKEN, "channel": "C1", "api_url": f"http://127.0.0.1:{port}/api/", "group_window_s": 0,
                   "max_per_minute": 60, "timeout_s": 2}}
    )  # fmt: skip
    receiver.start()
    receiver.write([exec_line(number) for number in range(5)])
    wait_until(lambda: "cannot be reached" in receiver.program.output(), "the outage to be told")
    with serving(Slack(port)) as slack:
        wait_begins = []

        def patience(*_: Any) -> Answer:
            wait_begins.append(time.monotonic())
            slack.answer = slack.post
            return 429, json.dumps({"ok": False, "error": "ratelimited"}).encode(), {
                "Retry-After": "2", "Content-Type": "application/json"}  # fmt: skip

        slack.answer = patience
        receiver.settled(5)
        assert time.monotonic() - wait_begins[0] >= 2.0
        receiver.stop()
    assert len(set(slack.posted)) == 5
    assert receiver.ledger.dead_letters == 0
    assert TOKEN not in receiver.program.output()


def test_a_wrong_token_is_told_in_slacks_word_and_mended_without_loss(receiver: Receiver) -> None:
    """The event waits; with the right token after a restart it goes out."""
    with serving(Slack()) as slack:
        receiver.configure(settings(slack, token="xoxb-wrong"))
        receiver.start()
        receiver.write([exec_line(1)])
        wait_until(lambda: "Slack says invalid_auth: the token is wrong" in receiver.program.output(), "the word")
        receiver.stop()
        assert "xoxb-wrong" not in receiver.program.output()
        receiver.configure(settings(slack))
        receiver.start()
        receiver.settled(1)
    assert len(slack.posted) == 1


def test_repeats_become_one_message_with_their_number(receiver: Receiver) -> None:
    """Across a kill: the window and what it holds are on disk."""
    with serving(Slack()) as slack:
        receiver.configure(settings(slack, group_window_s=6))
        receiver.start()
        receiver.write([exec_line(1, user="jane", objectRef=ref("cart"))])
        wait_until(lambda: len(slack.taken) == 1, "the first message")
        receiver.write([exec_line(number, user="jane", objectRef=ref("cart")) for number in range(2, 9)])
        wait_until(lambda: receiver.ledger.new == 8, "the repeats to be stored")
        receiver.kill()
        assert receiver.ledger.sinks[0].waiting == 7
        receiver.start()
        receiver.settled(8)
        assert receiver.program.stop(signal.SIGTERM) == 0
    assert [body["text"] for body in slack.taken][1:] == ["🔴 kubectl-exec: jane on shop/cart — 7 more times"]


def ref(name: str) -> dict[str, str]:
    return {"resource": "pods", "namespace": "shop", "name": name, "apiVersion": "v1", "subresource": "exec"}


def test_a_storm_is_told_in_numbers(receiver: Receiver) -> None:
    """Hundreds of events, never more messages than allowed, and every one is accounted for."""
    with serving(Slack()) as slack:
        receiver.configure(settings(slack, max_per_minute=4, group_window_s=300))
        receiver.start()
        receiver.write([exec_line(number) for number in range(400)])
        receiver.settled(400)
        assert len(slack.taken) <= 8
        digests = [body["text"] for body in slack.taken if "held back: more than 4 messages a minute" in body["text"]]
        assert sum(int(text.split()[1]) for text in digests) + len(slack.taken) - len(digests) == 400


def test_audit_events_go_to_slack_once_each_through_a_kill(receiver: Receiver) -> None:
    """What an audit-to-Slack webhook did: chosen audit events, stage by stage; read again they are not told again."""
    with serving(Slack()) as slack:
        receiver.configure(
            settings(slack, stream="audit", select=[{"resource": "secrets"}], stages=["ResponseComplete"]),
            detection={"rules": []},
        )
        secret = {"resource": "secrets", "namespace": "shop", "name": "db"}
        lines = [exec_line(number, objectRef=secret, verb="get", stage=stage, requestURI="/api/v1/namespaces/shop/secrets/db")
                 for number in range(12) for stage in ("RequestReceived", "ResponseComplete")]  # fmt: skip
        receiver.write([exec_line(100), *lines])
        receiver.start()
        wait_until(lambda: len(slack.taken) >= 4, "the first messages")
        receiver.kill()
        (receiver.folder / "position.json").unlink()  # the whole log is read again
        receiver.start()
        wait_until(lambda: len(set(slack.posted)) == 12 and receiver.ledger.sinks[0].waiting == 0, "all of them")
        receiver.stop()
    assert len(slack.posted) <= 13
    assert {body["text"] for body in slack.taken} == {
        f"🔵 user-{n}: get secrets shop/db, ResponseComplete" for n in range(12)
    }


@pytest.mark.parametrize(
    "behave", [hang, lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n")], ids=["hangs", "drips"]
)
def test_a_slack_that_never_answers_is_given_up_in_time(behave) -> None:
    """Whatever its client waits for; the event waits here."""
    with peer(behave) as (port, _):
        one = SlackSink(
            "slack", SlackSettings(token=TOKEN, channel="C1", api_url=f"http://127.0.0.1:{port}/", timeout_s=0.5)
        )
        began = time.monotonic()
        (outcome,) = one.deliver([friction_event(1)])
        assert time.monotonic() - began < 2
    assert isinstance(outcome, Later)
    assert outcome.reason == "Slack: no answer within 0.5 s"
