"""What goes wrong: a page in the frame for a browser, JSON for a program, the same status for both."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from forwarder.backend.dashboard.problems import wants_page
from forwarder.backend.guard import HEADERS
from forwarder.backend.store import Store
from tests.backend.dashboard.conftest import Look

Connect = Callable[..., TestClient]
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("path", "status", "title", "words"),
    [
        ("/nowhere", 404, "No such page", "There is nothing at this address."),
        ("/service/x", 404, "No such page", "There is nothing at this address."),
        ("/static/nothing.css", 404, "No such page", "There is nothing at this address."),
        ("/triage/undo", 405, "Not by this way", "not to be opened like this"),
        ("/friction/x", 400, "That address is not valid", "Not an entity reference; write kind:namespace/name."),
        ("/events?limit=many", 422, "That address is not valid", "limit: Input should be a valid integer"),
    ],
)
def test_a_page_for_a_browser(client: TestClient, look: Look, path: str, status: int, title: str, words: str) -> None:
    """Inside the frame, with a way on; a program gets its JSON."""
    seen = look(client, path, status)
    assert title in seen.text
    assert words in seen.text
    assert {"/", "/search", "/triage"} <= seen.addresses()
    assert [tag for tag, _ in seen.tags].count("h1") == 1
    plain = client.get(path)
    assert (plain.status_code, plain.headers["content-type"]) == (status, "application/json")
    assert plain.json()["detail"]


def test_what_the_status_needs_is_kept(client: TestClient) -> None:
    """Which methods are allowed, the strict policy; and no page of an error is kept by anybody."""
    answer = client.get("/triage/undo", headers=BROWSER)
    assert answer.headers["allow"] == "POST"
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("path", ["/api/v1/nowhere", "/api", "/api/v1/events/nothing"])
def test_the_api_answers_programs(client: TestClient, path: str) -> None:
    """Whoever asks."""
    answer = client.get(path, headers=BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


def test_an_address_is_shown_as_text(client: TestClient, look: Look) -> None:
    """Nothing of what was asked for becomes markup, or stands on the page at all."""
    assert "hunter2" not in look(client, "/<script>hunter2</script>", 404).html


def test_a_fault_of_ours(client: TestClient, store: Store, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that says so, without the fault's own words."""

    def fail(*_: object, **__: object) -> None:
        raise KeyError("hunter2")

    monkeypatch.setattr(store.events, "page", fail)
    seen = look(client, "/search", 500)
    assert "Something went wrong" in seen.text
    assert "internal error" not in seen.text
    assert "hunter2" not in seen.html


def test_a_database_that_is_away(client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page needs nothing of it, and says when to come back."""

    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("hunter2"))

    monkeypatch.setattr(store.events, "page", fail)
    answer = client.get("/search", headers=BROWSER)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "The database is not available; try again." in answer.text
    assert "hunter2" not in answer.text


def test_refused_at_the_gate(connect: Connect, look: Look) -> None:
    """A name that is not this machine's, and too many requests; before anybody is known."""
    client = connect(rate_limit_per_minute=1)
    strange = client.get("/", headers=BROWSER | {"Host": "evil.example"})
    assert strange.status_code == 421
    assert "Without a key this backend answers to localhost only" in strange.text
    client.get("/")
    answer = client.get("/", headers=BROWSER)
    assert answer.status_code == 429
    assert answer.headers["retry-after"]
    assert "Too many requests" in answer.text


@pytest.mark.parametrize(
    ("path", "accept", "page"),
    [
        ("/x", BROWSER["Accept"], True),
        ("/x", "*/*", False),
        ("/x", "application/json", False),
        ("/x", None, False),
        ("/api/x", "text/html", False),
        ("/apix", "text/html", True),
    ],
)
def test_who_wants_a_page(path: str, accept: str | None, page: bool) -> None:
    """What a browser sends, and nobody else."""
    headers: list[Any] = [(b"accept", accept.encode())] if accept else []
    assert wants_page({"type": "http", "path": path, "headers": headers}) is page
