"""Log lines about peers, one for each kind of trouble and peer and minute.

A client that cannot get in tries again, for hours, from many connections: the first line helps, the thousandth hides
the others. What was held back is counted in the next line about the same thing.
"""

import logging
from collections.abc import Callable

INTERVAL_S = 60.0
MAX_REMEMBERED = 1024  # peers and kinds of trouble; beyond it a peer may be logged once more than it should


class Complaints:
    """Says each thing about each peer at most once in INTERVAL_S. clock: seconds, monotonic."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when it was said, and how often it was held back

    def say(self, peer: str, kind: str, text: str, *, level: int = logging.WARNING) -> None:
        """Log `text` about `peer`, unless the same `kind` was logged about it a moment ago. Text of ours only."""
        now = self._clock()
        said, held_back = self._said.pop((peer, kind), (-INTERVAL_S, 0))
        if now - said < INTERVAL_S:
            self._said[peer, kind] = (said, held_back + 1)
            return
        more = f" ({held_back} more times since the last line about it)" if held_back else ""
        self._log.log(level, "%s: %s%s", peer, text, more)
        self._said[peer, kind] = (now, 0)
        while len(self._said) > MAX_REMEMBERED:
            del self._said[next(iter(self._said))]
