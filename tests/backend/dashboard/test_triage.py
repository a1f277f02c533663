"""Triage through its pages: marking, what it does to the score, undoing, and forms that are refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from forwarder.backend.access import keys as keys_module
from forwarder.backend.access.keys import KeyStore
from forwarder.backend.dashboard.triage import Refused, read_wish
from forwarder.backend.store import Store
from tests.backend.conftest import ENTITY, NOW_US
from tests.backend.dashboard.conftest import Look

Payload = Callable[..., dict[str, Any]]
Connect = Callable[..., TestClient]
WISH = {"actor": "jane", "reason": "on call", "author": "me", "until": "2026-12-31"}


def score(client: TestClient) -> int:
    return int(client.get(f"/friction/{ENTITY}").json()["frictionScore"]["score"])


def post(client: TestClient, path: str, form: dict[str, str], **headers: str) -> str:
    answer = client.post(path, data=form, headers=headers, follow_redirects=False)
    assert answer.status_code == 303, answer.text[:300]
    return str(answer.headers["location"])


def test_mark_and_undo(client: TestClient, payload: Payload, look: Look) -> None:
    """A mark takes events out of the score, says so everywhere with reason and author, and gives them back."""
    client.post("/events", json=[payload(actor="jane"), payload(actor="joe")])
    assert score(client) == 40
    where = post(client, "/triage", WISH)
    assert score(client) == 20
    seen = look(client, where)
    for part in ("Marked as expected", "1 mark, 1 event taken out", "“on call”", "me", "2026-12-31"):
        assert part in seen.text, part
    hidden = next(address for address, words in seen.links if "events hidden by this mark" in words)
    assert "jane" in look(client, hidden).text
    page = look(client, f"/service?ref={ENTITY}")
    assert "1 expected event does not count" in page.text
    assert "expected" in look(client, "/search").text
    number = seen.having("input", name="mark")[0]["value"]
    where = post(client, "/triage/undo", {"mark": number})
    assert score(client) == 40
    text = look(client, where).text
    assert "Undone: it counts again." in text
    assert "undone by somebody without a key" in text


def test_one_event(client: TestClient, payload: Payload, look: Look) -> None:
    """A single event, without an end; marking it twice says that nothing changed, and so it is for one that cannot be."""
    client.post("/events", json=[payload(id="a"), payload(id="b"), payload(id="t", test=True)])
    form = {"event": "a", "reason": "a drill", "author": "me"}
    post(client, "/triage", form)
    assert score(client) == 20
    assert "Expected: “a drill”, says me" in look(client, "/event?id=a").text
    for event, words in (
        ("a", "that event is expected"),
        ("t", "that is a test event"),
        ("x", "that event is not there"),
    ):
        assert f"Nothing changed: {words}" in look(client, post(client, "/triage", form | {"event": event})).text
    assert "no end" in look(client, "/triage").text


def test_what_comes_later(client: TestClient, payload: Payload) -> None:
    """A mark holds for what happens until its day."""
    post(client, "/triage", WISH | {"actor": "", "rule": "kubectl-exec", "entity": ENTITY})
    client.post("/events", json=[payload(), payload(type="port-forward")])
    assert score(client) == 20


def test_prefilled(client: TestClient, look: Look) -> None:
    """The links beside events fill the form in."""
    seen = look(client, f"/triage?actor=jane&rule=kubectl-exec&entity={ENTITY}")
    values = {found["name"]: found.get("value", "") for tag, found in seen.tags if tag == "input" and "name" in found}
    assert (values["actor"], values["rule"], values["entity"]) == ("jane", "kubectl-exec", ENTITY)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", values["until"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reason": " "}, "Say why"),
        ({"author": ""}, "Say who you are"),
        ({"actor": ""}, "Name an actor, a rule or a service"),
        ({"entity": "shop/cart"}, "kind:namespace/name"),
        ({"until": ""}, "Say until when"),
        ({"until": "soon"}, "Write the day as 2026-01-31"),
        ({"until": "2020-01-01"}, "over already"),
        ({"reason": "x" * 501}, "at most 500"),
        ({"actor": "x" * 201}, "too long"),
    ],
)
def test_refused(client: TestClient, look: Look, change: dict[str, str], words: str) -> None:
    """A form that cannot be taken comes back filled in, with what is missing; nothing was marked."""
    answer = client.post("/triage", data=WISH | change)
    assert answer.status_code == 422
    assert words in answer.text
    assert 'value="jane"' in answer.text or "actor" in change
    assert "Nothing is expected" in answer.text


def test_the_key_is_the_author(connect: Connect, store: Store, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is signed in cannot mark in somebody else's name, and who may only read cannot mark at all."""
    monkeypatch.setattr(keys_module, "FRESH_S", 0.0)
    keys = KeyStore(store.database)
    jane, reader = keys.create("jane", ["read", "change"], NOW_US), keys.create("reader", ["read"], NOW_US)
    client = connect(listen="0.0.0.0:8000")
    headers = {"Authorization": f"Bearer {jane}"}
    post(client, "/triage", WISH | {"author": "the boss"}, **headers)
    client.headers.update(headers)
    text = look(client, "/triage").text
    assert "jane," in text
    assert "the boss" not in text
    client.headers["Authorization"] = f"Bearer {reader}"
    assert client.post("/triage", data=WISH).status_code == 403
    assert "needs a key that may change things" in look(client, "/triage").text


def test_undo_nothing(client: TestClient, look: Look) -> None:
    """A mark that is not in force leaves everything as it is."""
    for number in ("7", "x", "", "9" * 30):
        assert "undone already" in look(client, post(client, "/triage/undo", {"mark": number})).text


def test_way_back(client: TestClient) -> None:
    """After a form one comes back to where it stood, never to another site."""
    assert post(client, "/triage", WISH | {"next": "/actor?name=jane"}) == "/actor?name=jane&news=marked"
    assert post(client, "/triage", WISH | {"next": "//evil.example"}) == "/?news=marked"


def test_ended_marks_are_paged(client: TestClient, store: Store, look: Look) -> None:
    """The list of ended marks goes back to the first one."""
    for number in range(60):
        mark = store.triage.expect_pattern(
            actor=f"a{number}", rule="", entity_ref="", author="me", reason="r", now_us=NOW_US, until_us=NOW_US + 1
        )
        store.triage.undo(mark.id, author="me", now_us=NOW_US)
    first = look(client, "/triage")
    second = look(client, next(address for address, words in first.links if words == "Older"))
    found = {address for page in (first, second) for address in page.addresses() if address.startswith("/actor?")}
    assert len(found) == 60


def test_control_characters() -> None:
    """A reason is told to people and may end in a log: it is one line of plain text."""
    wish = read_wish({"actor": "a", "reason": "on\x00\r\ncall", "until": "2026-12-31"}, "jane", NOW_US)
    assert wish.reason.split() == ["on", "call"]
    assert wish.reason.isprintable()


def test_wish_of_a_whole_day() -> None:
    """`until` is a day, and all of it."""
    wish = read_wish({"actor": "a", "reason": "r", "until": "2026-12-31"}, "jane", NOW_US)
    assert wish.until_us == 1_798_761_600_000_000
    assert wish.author == "jane"
    with pytest.raises(Refused, match="too long"):
        read_wish({"event": "x" * 201, "reason": "r"}, "jane", NOW_US)
