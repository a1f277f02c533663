"""Who watches one stream, and the queue of each: how a slow client loses its own events and nobody else's.

    audience = Audience("alerts", max_events=1000, telemetry=telemetry)
    audience.offer([Item(lambda: encode(event)), …])      any thread; never waits, encodes nothing
    watcher = audience.join(wake)                         the feed's thread
    watcher.take()                                        -> Item | Dropped | None

An item is shared by all queues it stands in, and encoded when the first of them is read.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from forwarder.telemetry import Telemetry

log = logging.getLogger(__name__)

Stream = Literal["alerts", "logs", "messages"]

MAX_QUEUE_BYTES = 16 << 20  # of what waits for one client: 1000 mean audit lines are 3 MiB, but one line may have 8 MiB


class Item:
    """One event on its way to everybody who watches; `messages` is for the feed's thread only."""

    __slots__ = ("_encode", "_encoded", "size_bytes")

    def __init__(self, encode: Callable[[], Sequence[bytes]], size_bytes: int = 1024) -> None:
        """encode: gives the messages of the event. size_bytes: what it keeps alive until then, about."""
        self._encode: Callable[[], Sequence[bytes]] | None = encode
        self._encoded: Sequence[bytes] = ()
        self.size_bytes = size_bytes

    def messages(self) -> Sequence[bytes]:
        """The event as the bytes of messages, encoded once; empty where a fault of ours kept that from working."""
        if self._encode is not None:
            encode, self._encode = self._encode, None  # the line is let go
            try:
                self._encoded = encode()
            except Exception as error:  # noqa: BLE001 - one odd event ends no stream; its text may quote the event
                log.error("the feed could not encode an event (%s), which is a bug", type(error).__name__)
        return self._encoded


class Dropped(msgspec.Struct, frozen=True):
    """So many events were lost in this place of the stream."""

    count: int


class Watcher:
    """One client of one stream. `take` is for the thread that sends, `offer` for any."""

    def __init__(self, wake: Callable[[], None], max_events: int) -> None:
        """wake: called, from any thread, when `take` would give something after it had given None."""
        self._wake = wake
        self._max_events = max_events
        self._lock = threading.Lock()
        self._waiting: deque[Item | Dropped] = deque()
        self._bytes = 0
        self._dropped = 0
        self._idle = False

    def offer(self, items: Sequence[Item]) -> int:
        """Queue what has room; how many were lost. Never waits."""
        lost = 0
        with self._lock:
            for item in items:
                if self._has_no_room():
                    lost += 1
                    self._dropped += 1
                    continue
                if self._dropped:
                    self._waiting.append(Dropped(self._dropped))
                    self._dropped = 0
                self._waiting.append(item)
                self._bytes += item.size_bytes
            wake = self._idle and bool(self._waiting)
            if wake:
                self._idle = False
        if wake:
            self._wake()
        return lost

    def take(self) -> Item | Dropped | None:
        """The next to send; how many were lost, in their place; None when nothing waits."""
        with self._lock:
            if self._waiting:
                taken = self._waiting.popleft()
                if isinstance(taken, Item):
                    self._bytes -= taken.size_bytes
                return taken
            if self._dropped:
                taken, self._dropped = Dropped(self._dropped), 0
                return taken
            self._idle = True
            return None

    def _has_no_room(self) -> bool:
        """Once full, it takes nothing until half of it was read: one long gap is told once, not each second event."""
        share = 0.5 if self._dropped else 1.0
        return len(self._waiting) >= self._max_events * share or self._bytes >= MAX_QUEUE_BYTES * share


class Audience:
    """Everybody who watches one stream."""

    def __init__(self, stream: Stream, *, max_events: int, telemetry: Telemetry) -> None:
        self.stream = stream
        self._max_events = max_events
        self._watchers: tuple[Watcher, ...] = ()  # replaced, never changed: `offer` reads it without a lock
        self._clients = telemetry["forwarder_feed_clients"].labels(stream)
        self._dropped = telemetry["forwarder_feed_dropped"].labels(stream)
        self._clients.set(0)

    def __bool__(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    def offer(self, items: Sequence[Item]) -> None:
        """Put the same items into everybody's queue."""
        lost = sum(watcher.offer(items) for watcher in self._watchers)
        if lost:
            self._dropped.inc(lost)

    def join(self, wake: Callable[[], None]) -> Watcher:
        """A new client; the feed's thread only."""
        watcher = Watcher(wake, self._max_events)
        self._watchers = (*self._watchers, watcher)
        self._clients.set(len(self._watchers))
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """A client that went away; the feed's thread only."""
        self._watchers = tuple(other for other in self._watchers if other is not watcher)
        self._clients.set(len(self._watchers))
