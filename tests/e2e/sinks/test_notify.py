"""Real services behind Apprise: a mail server, and JSON over HTTP behind a flaky proxy; one outcome per URL."""

import asyncio
import email
import email.policy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.e2e.product.conftest import wait_until
from tests.e2e.sinks.conftest import Receiver, Recorder, exec_line, serving
from tests.ports import free_port

pytestmark = pytest.mark.e2e


class Mailbox:
    """What a mail server does with each message. refuse: an SMTP answer instead of taking it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.refuse = ""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse:
            return self.refuse
        assert isinstance(envelope.content, bytes)
        self.messages.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 taken"


@contextmanager
def mail_server(mailbox: Mailbox, port: int, password: str = "") -> Iterator[None]:
    """An SMTP server in a thread with a loop of its own."""
    loop = asyncio.new_event_loop()

    def authenticate(_: Any, __: Any, ___: Any, ____: str, given: Any) -> AuthResult:
        return AuthResult(success=given.password == password.encode(), handled=False)

    def session() -> SMTP:
        options: dict[str, Any] = {"loop": loop}
        if password:
            options |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
        return SMTP(mailbox, **options)

    server = loop.run_until_complete(loop.create_server(session, "127.0.0.1", port))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def close() -> None:
        server.close()
        await asyncio.sleep(0.1)

    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def mailto(port: int, password: str = "") -> str:
    login = f"user:{password}@" if password else ""
    return f"mailto://{login}127.0.0.1:{port}?from=friction@example.com&to=team@example.com&mode=insecure"


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_mail_says_all_of_it_and_a_dead_mail_server_delays_nobody_else(receiver: Receiver) -> None:
    """Each URL has its own outcome: the chat has its messages at once, the mails wait for their server, kill included."""
    port, mailbox = free_port(), Mailbox()
    with serving(Recorder()) as chat:
        receiver.configure(
            {
                "people": {
                    "type": "notify",
                    "group_window_s": 0,
                    "max_per_minute": 60,
                    "urls": {
                        "chat": f"json://127.0.0.1:{chat.port}/",
                        "mail": {"url": mailto(port, "s3cret"), "rules": ["kubectl-exec"]},
                        "nobody": {"url": f"json://127.0.0.1:{chat.port}/nobody", "rules": ["secret-*"]},
                    },
                }
            }
        )
        receiver.start()
        receiver.write([exec_line(number) for number in range(6)])
        wait_until(lambda: len(chat.taken) == 6, "the chat to have its messages")
        waiting = {sink.name: sink.waiting for sink in receiver.ledger.sinks}
        assert waiting["people.mail"] == 6
        receiver.kill()
        with mail_server(mailbox, port, "s3cret"):
            receiver.start()
            receiver.settled(6)
            receiver.stop()
    assert len(chat.taken) == 6  # nobody was told twice because another was down
    assert {message["Subject"] for message in mailbox.messages} == {
        f"🔴 kubectl-exec: user-{number} on shop/cart" for number in range(6)
    }
    text = mailbox.messages[0].get_body(("plain", "html")).get_content()
    assert "open now" in text
    assert "Command: id" in text
    assert "s3cret" not in receiver.program.output()
    assert {sink.name: (sink.delivered, sink.dead) for sink in receiver.ledger.sinks} == {
        "people.chat": (6, 0),
        "people.mail": (6, 0),
        "people.nobody": (6, 0),
    }


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_wrong_password_is_told_in_the_servers_words(receiver: Receiver) -> None:
    """And the mail waits for the right one."""
    port, mailbox = free_port(), Mailbox()
    with mail_server(mailbox, port, "right"):
        receiver.configure({"mail": {"type": "notify", "url": mailto(port, "wr0ng")}})
        receiver.start()
        receiver.write([exec_line(1)])
        wait_until(lambda: "535" in receiver.program.output(), "the server's answer")
        receiver.stop()
        assert "wr0ng" not in receiver.program.output()
        receiver.configure({"mail": {"type": "notify", "url": mailto(port, "right")}})
        receiver.start()
        receiver.settled(1)
    assert len(mailbox.messages) == 1


def test_a_flaky_proxy_loses_nothing(receiver: Receiver, flaky_proxy) -> None:
    """Half of the requests fail at nginx; each event is told in the end, and the ledger balances."""
    with serving(Recorder()) as chat:
        port = flaky_proxy(chat.port)
        receiver.configure({"chat": {"type": "notify", "url": f"json://127.0.0.1:{port}/", "group_window_s": 0,
                                     "max_per_minute": 60}})  # fmt: skip
        receiver.start()
        receiver.write([exec_line(number) for number in range(10)])
        ledger = receiver.settled(10)
    assert (ledger.sinks[0].delivered, ledger.sinks[0].dead) == (10, 0)
    said = json.dumps(chat.taken)
    assert all(f"user-{number} on" in said for number in range(10))
