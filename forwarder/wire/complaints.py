"""Log lines about peers, one for each kind of trouble and peer and minute.

A client that cannot get in tries again, for hours, from many connections: the first line helps, the thousandth hides
the others. What was held back is counted in the next line about the same thing. Whoever mends a client meets one cause
after the other: a new cause is said at once, a few of them at least.
"""

import logging
from collections.abc import Callable

import msgspec

INTERVAL_S = 60.0
MAX_CAUSES = 5  # of one kind of trouble, of one peer, in one interval: some texts hold numbers that the peer chooses
MAX_REMEMBERED = 1024  # peers and kinds of trouble; beyond it a peer may be logged once more than it should


class _Said(msgspec.Struct):
    """since: when the interval began. causes: the texts that were logged in it. held_back: lines that were not."""

    since: float
    causes: set[str]
    held_back: int = 0


class Complaints:
    """Says each thing about each peer at most once in INTERVAL_S. clock: seconds, monotonic."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[tuple[str, str], _Said] = {}

    def say(self, peer: str, kind: str, text: str, *, level: int = logging.WARNING) -> None:
        """Log `text` about `peer`, unless it was logged a moment ago, or enough of the same `kind`. Text of ours only."""
        now = self._clock()
        said = self._said.pop((peer, kind), None)
        if said is not None and now - said.since < INTERVAL_S:
            self._said[peer, kind] = said
            if text in said.causes or len(said.causes) >= MAX_CAUSES:
                said.held_back += 1
                return
            said.causes.add(text)
            self._log.log(level, "%s: %s", peer, text)
            return
        more = f" ({said.held_back} more times since the last line about it)" if said and said.held_back else ""
        self._log.log(level, "%s: %s%s", peer, text, more)
        self._said[peer, kind] = _Said(now, {text})
        while len(self._said) > MAX_REMEMBERED:
            del self._said[next(iter(self._said))]
