"""How many requests one key, or one address without a key, may make: a bucket for each that refills steadily.

A bucket holds a minute's worth, so that a receiver which flushes its backlog is not stopped for being quick at once.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_BUCKETS = 10_000  # addresses come and go; the least recently seen is forgotten, which only fills its bucket


class Limits:
    """For one event loop. per_minute: of each bucket; 0: no limit."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> int:
        """Take one from the bucket `name`: 0 when there was one, else the whole seconds until there is."""
        if not self._per_minute:
            return 0
        now = self._clock()
        left, seen = self._buckets.pop(name, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - seen) * self._per_minute / 60)
        wait_s = 0
        if left < 1:
            wait_s = math.ceil((1 - left) * 60 / self._per_minute)
        else:
            left -= 1
        self._buckets[name] = (left, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return wait_s
