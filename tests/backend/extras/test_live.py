"""The live feed: what is written is told at once and in order, a client resumes where it was, and streams end."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from forwarder.backend.extras import live
from forwarder.backend.extras.live import LiveFeed
from forwarder.backend.intake import NewEvent
from forwarder.backend.store import Store, StoredEvent

NOW_US = 1_780_000_000_000_000
DEADLINE_S = 10.0

MakeEvent = Callable[..., NewEvent]


def everything(_: StoredEvent) -> bool:
    return True


def read(message: bytes) -> list[tuple[str, str, str]]:
    """(id, kind, event's id) of each message in a part of the stream."""
    found = []
    for block in message.decode().strip().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
        found.append(
            (fields.get("id", ""), fields.get("event", ""), json.loads(fields.get("data", "{}")).get("id", ""))
        )
    return found


async def test_as_it_is_written(store: Store, event: MakeEvent) -> None:
    """A new event and its update come at once; what was before is not told."""
    store.record([event(id="old")], NOW_US)
    feed = LiveFeed(store)
    async with asyncio.timeout(DEADLINE_S):
        stream = feed.stream(None, everything)
        assert b"retry: 2000\nid: 1\n\n" in await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))  # noqa: TID251
        await asyncio.sleep(0)
        await asyncio.to_thread(store.record, [event(id="a")], NOW_US)
        feed.notify()
        assert read(await waiting) == [("2", "recorded", "a")]
        await asyncio.to_thread(store.record, [event(id="a", revision=1)], NOW_US)
        feed.notify()
        assert read(await anext(stream)) == [("3", "updated", "a")]
        feed.close()
        assert b"event: end" in await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert feed.clients == 0


async def test_resumes(store: Store, event: MakeEvent) -> None:
    """From behind the last one that a client saw; a filter leaves out events but not the place."""
    store.record([event(id=f"{n}", actor="jane" if n % 2 else "joe") for n in range(4)], NOW_US)
    feed = LiveFeed(store)
    async with asyncio.timeout(DEADLINE_S):
        stream = feed.stream(1, lambda event: event.actor == "jane")
        await anext(stream)
        assert read(await anext(stream)) == [("2", "recorded", "1"), ("4", "recorded", "3")]
        none = feed.stream(0, lambda event: event.actor == "nobody")
        await anext(none)
        assert await anext(none) == b"id: 4\n\n"
        await none.aclose()
        await stream.aclose()


async def test_too_far_behind(store: Store, event: MakeEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that missed too much is told how much, and goes on."""
    monkeypatch.setattr(live, "MAX_REPLAY_EVENTS", 3)
    store.record([event(id=f"{n}") for n in range(10)], NOW_US)
    stream = LiveFeed(store).stream(0, everything)
    async with asyncio.timeout(DEADLINE_S):
        await anext(stream)
        assert await anext(stream) == b'event: gap\ndata: {"missed": 7}\n\n'
        assert [kind for _, kind, _ in read(await anext(stream))] == ["recorded"] * 3
        await stream.aclose()


async def test_a_quiet_stream_shows_that_it_lives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without events a comment comes now and then."""
    monkeypatch.setattr(live, "POLL_S", 0.01)
    monkeypatch.setattr(live, "BEAT_S", 0.02)
    stream = LiveFeed(store).stream(None, everything)
    async with asyncio.timeout(DEADLINE_S):
        await anext(stream)
        assert await anext(stream) == b": still here\n\n"
        await stream.aclose()


def test_too_many(connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One client too many is told to come back."""
    monkeypatch.setattr(live, "MAX_LIVE_CLIENTS", 0)
    answer = connect().get("/api/v1/live")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
