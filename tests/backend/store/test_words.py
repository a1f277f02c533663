"""The index of words: what is written, changed and deleted is found, found otherwise, and found no more."""

import random
import time
from collections.abc import Callable

import pytest

from forwarder.backend.intake import NewEvent
from forwarder.backend.store import Store, words
from forwarder.backend.store.events import EventFilter

NOW_US = 1_780_000_000_000_000


def found(store: Store, text: str, limit: int = 50) -> list[str]:
    return [event.id for event in store.events.page(EventFilter(text=text), limit=limit).events]


def test_follows_the_events(store: Store, event: Callable[..., NewEvent]) -> None:
    """An update replaces the words, a purge takes them out."""
    store.record([event(id="a", command="ls secretstuff"), event(id="b", command="ls")], NOW_US)
    assert found(store, "secretstuff") == ["a"]
    store.record([event(id="a", revision=1, command="whoami")], NOW_US)
    assert (found(store, "secretstuff"), found(store, "whoami")) == ([], ["a"])
    store.purge(NOW_US + 1, NOW_US)
    assert found(store, "whoami") == []
    store.record([event(id="c", command="other")], NOW_US)
    assert (found(store, "whoami"), found(store, "other")) == ([], ["c"])


@pytest.mark.parametrize(
    "text", ["ls -la", "-", '"', "a AND b", "NEAR(", "col:x", "*", "^a", "'", "()", "\U0001d54f 😀", "a\0b", "x" * 400]
)
def test_any_text_is_a_question(store: Store, event: Callable[..., NewEvent], text: str) -> None:
    """No text is an error: what a search engine would take for its own syntax is words."""
    store.record([event(id="a", command="ls -la")], NOW_US)
    assert found(store, text) == (["a"] if text == "ls -la" else [])


def test_a_frequent_word_ends_in_time(
    store: Store, event: Callable[..., NewEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time of a page is over it ends where it is, and goes on from there."""
    store.record([event(id=f"{n}", command="ls") for n in range(30)], NOW_US)
    monkeypatch.setattr(words, "CANDIDATES", 10)
    monkeypatch.setattr(words, "LOOKED_AT", 10)
    monkeypatch.setattr(words, "BUDGET_S", -1.0)
    began = time.monotonic()
    page = store.events.page(EventFilter(text="ls", severity="low"), limit=20)
    assert page.events == []
    assert page.next
    seen = 1
    while page.next:
        page = store.events.page(EventFilter(text="ls", severity="low"), limit=20, cursor=page.next)
        seen += 1
    assert seen >= 3
    assert time.monotonic() - began < 5


WORDS = ("red", "green", "blue", "dark-red", "red-green", "every")


@pytest.mark.parametrize(
    "text", ["red", "red green", "dark-red", "green-red", "every dark-red", "blue every red", "none"]
)
def test_a_search_that_is_stopped_misses_nothing(
    store: Store, event: Callable[..., NewEvent], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """However early the index is stopped, all pages together hold what it would have found, in the same order."""
    chance = random.Random(4)
    commands = [" ".join(["every", *chance.sample(WORDS, 2)]) for _ in range(60)]
    store.record([event(id=f"{n}", command=command) for n, command in enumerate(commands)], NOW_US)
    whole = found(store, text)
    for name, value in (("LOOKED_AT", 7), ("BUDGET_S", -1.0), ("WORD_S", -1.0), ("STEPS", 1)):
        monkeypatch.setattr(words, name, value)
    page = store.events.page(EventFilter(text=text), limit=5)
    seen = [each.id for each in page.events]
    while page.next:
        page = store.events.page(EventFilter(text=text), limit=5, cursor=page.next)
        seen += [each.id for each in page.events]
    assert seen == whole
