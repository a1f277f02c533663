"""The queue of each client: what it loses, when it is told, and what is never encoded."""

import logging
import threading

import pytest

from forwarder.feed import audience
from forwarder.feed.audience import Audience, Dropped, Item
from forwarder.telemetry import Telemetry


class Encoded:
    """Items that remember how often they were encoded."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def item(self, number: int, size_bytes: int = 10) -> Item:
        def encode() -> list[bytes]:
            self.calls.append(number)
            return [b"%d" % number]

        return Item(encode, size_bytes)

    def items(self, *numbers: int) -> list[Item]:
        return [self.item(number) for number in numbers]


def taken(watcher: audience.Watcher) -> list[object]:
    """Everything that waits: bytes of events, numbers of losses."""
    found: list[object] = []
    while (item := watcher.take()) is not None:
        found += [item.count] if isinstance(item, Dropped) else item.messages()
    return found


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def room(telemetry: Telemetry, max_events: int = 4) -> Audience:
    return Audience("alerts", max_events=max_events, telemetry=telemetry)


def nothing() -> None:
    """A wake-up that nobody needs."""


def test_an_event_is_encoded_once_for_all_clients(telemetry: Telemetry) -> None:
    """And not before the first of them reads it."""
    many, encoded = room(telemetry), Encoded()
    watchers = [many.join(nothing) for _ in range(3)]
    many.offer(encoded.items(1, 2))
    assert encoded.calls == []
    assert [taken(watcher) for watcher in watchers] == [[b"1", b"2"]] * 3
    assert encoded.calls == [1, 2]


def test_without_clients_nothing_is_kept_or_encoded(telemetry: Telemetry) -> None:
    """Whoever comes later sees what happens later."""
    nobody, encoded = room(telemetry), Encoded()
    assert not nobody
    nobody.offer(encoded.items(1))
    assert taken(nobody.join(nothing)) == []
    assert nobody
    assert encoded.calls == []


def test_a_full_queue_loses_the_newest_and_tells_how_many_in_their_place(telemetry: Telemetry) -> None:
    """What was lost is counted, never encoded, and told between what came before and what comes after."""
    full, encoded = room(telemetry), Encoded()
    watcher = full.join(nothing)
    full.offer(encoded.items(1, 2, 3, 4, 5, 6))
    full.offer(encoded.items(7))
    assert telemetry.value("forwarder_feed_dropped", stream="alerts") == 3
    assert [watcher.take().messages() for _ in range(2)] == [[b"1"], [b"2"]]  # type: ignore[union-attr]
    full.offer(encoded.items(8))
    assert taken(watcher) == [b"3", b"4", 4]
    full.offer(encoded.items(9))
    assert taken(watcher) == [b"9"]
    assert encoded.calls == [1, 2, 3, 4, 9]


def test_a_full_queue_takes_nothing_until_half_of_it_was_read(telemetry: Telemetry) -> None:
    """A client that is always a little too slow is told of few long gaps, not of one between any two events."""
    full, encoded = room(telemetry, max_events=100), Encoded()
    watcher = full.join(nothing)
    found: list[object] = []
    for number in range(1000):  # twice as many come as it reads
        full.offer([encoded.item(number)])
        if number % 2 and (item := watcher.take()) is not None:
            found += [item.count] if isinstance(item, Dropped) else item.messages()
    found += taken(watcher)
    gaps = [count for count in found if isinstance(count, int)]
    assert 0 < len(gaps) < 12
    assert sum(gaps) + len(found) - len(gaps) == 1000
    assert sum(gaps) == telemetry.value("forwarder_feed_dropped", stream="alerts")


def test_a_slow_client_costs_the_others_nothing(telemetry: Telemetry) -> None:
    """Each has a queue of its own."""
    both, encoded = room(telemetry), Encoded()
    slow, fast = both.join(nothing), both.join(nothing)
    seen: list[object] = []
    for number in range(20):
        both.offer([encoded.item(number)])
        seen += taken(fast)
    assert seen == [b"%d" % number for number in range(20)]
    assert taken(slow) == [b"0", b"1", b"2", b"3", 16]


def test_lines_that_wait_have_a_byte_cap(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand lines of 8 MiB are not a queue any more."""
    monkeypatch.setattr(audience, "MAX_QUEUE_BYTES", 100)
    large, encoded = room(telemetry, max_events=1000), Encoded()
    watcher = large.join(nothing)
    large.offer([encoded.item(number, 60) for number in range(5)])
    assert taken(watcher) == [b"0", b"1", 3]
    large.offer([encoded.item(9, 60)])
    assert taken(watcher) == [b"9"]


def test_a_client_is_woken_once_and_only_when_it_waits(telemetry: Telemetry) -> None:
    """A wake-up is a system call; an empty offer wakes nobody and is not taken for one."""
    wakes: list[None] = []
    one, encoded = room(telemetry), Encoded()
    watcher = one.join(lambda: wakes.append(None))
    one.offer(encoded.items(1))
    assert wakes == []  # it has not looked yet, and will find it
    assert taken(watcher) == [b"1"]
    one.offer([])
    assert wakes == []
    one.offer(encoded.items(2))
    one.offer(encoded.items(3))
    assert len(wakes) == 1


def test_who_left_is_offered_nothing(telemetry: Telemetry) -> None:
    """And is not counted."""
    one, encoded = room(telemetry), Encoded()
    watcher = one.join(nothing)
    assert telemetry.value("forwarder_feed_clients", stream="alerts") == 1
    one.leave(watcher)
    assert telemetry.value("forwarder_feed_clients", stream="alerts") == 0
    one.offer(encoded.items(1))
    assert taken(watcher) == []


def test_a_bug_in_encoding_ends_no_stream_and_quotes_no_event(caplog: pytest.LogCaptureFixture) -> None:
    """The event is left out; the log says what kind of fault it was."""

    def broken() -> list[bytes]:
        raise ValueError("hunter2")

    with caplog.at_level(logging.ERROR):
        assert Item(broken).messages() == ()
    assert "ValueError" in caplog.text
    assert "hunter2" not in caplog.text


def test_threads_lose_nothing_between_them(telemetry: Telemetry) -> None:
    """Offered = read + lost, whatever runs when."""
    shared, encoded = room(telemetry, max_events=50), Encoded()
    woken = threading.Event()
    watcher = shared.join(woken.set)
    producers = [
        threading.Thread(target=lambda: [shared.offer(encoded.items(1)) for _ in range(5000)]) for _ in range(2)
    ]
    for thread in producers:
        thread.start()
    events = lost = 0
    while True:
        item = watcher.take()
        if isinstance(item, Dropped):
            lost += item.count
        elif item is not None:
            events += 1
        elif not woken.wait(0.5):
            break
        else:
            woken.clear()
    for thread in producers:
        thread.join()
    assert events + lost == 10_000
