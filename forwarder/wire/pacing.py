"""When to try again, and how fast to go: back-off, Retry-After, a token bucket. Clocks and chance are passed in."""

import email.utils
import random
from collections.abc import Callable
from datetime import UTC

MAX_RETRY_AFTER_S = 300.0  # a peer may ask for more, by mistake or malice; it is asked again after this all the same
MIN_DELAY_S = 0.1  # chance may draw nothing at all, and a loop without a pause helps nobody


class Backoff:
    """Exponential back-off with full jitter: anything between MIN_DELAY_S and a ceiling that doubles up to `cap_s`.

    Full jitter, because many receivers lose one backend in the same moment and must not all return in the same.
    """

    def __init__(self, *, base_s: float, cap_s: float, chance: Callable[[], float] = random.random) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._chance = chance
        self._failures = 0

    def next_s(self) -> float:
        """The delay after one more failure, seconds."""
        ceiling_s = min(self._cap_s, self._base_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return max(MIN_DELAY_S, ceiling_s * self._chance())

    def reset(self) -> None:
        """It worked."""
        self._failures = 0


class TokenBucket:
    """`take` says 0.0 and takes a token, or how long until there is one, seconds."""

    def __init__(self, *, per_minute: float, burst: int, clock: Callable[[], float]) -> None:
        self.interval_s = 60.0 / per_minute
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self) -> float:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) / self.interval_s)
        self._at = now
        if self._tokens >= 1 - 1e-9:  # the sum of many small steps may miss 1 by rounding
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) * self.interval_s


def retry_after_s(value: str | None, now: float) -> float | None:
    """A Retry-After header in either of its forms, as seconds from `now` (Unix seconds); None when it says nothing usable."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_S)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:  # "-0000": UTC, without saying where
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, moment.timestamp() - now), MAX_RETRY_AFTER_S)
