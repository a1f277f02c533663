"""Log lines about a state that lasts: said when it begins, then at most once in SAY_AGAIN_S."""

import logging
import time

SAY_AGAIN_S = 60.0  # often enough to be seen in any excerpt, seldom enough not to fill a disk that is full already


class Notices:
    """`say` may be called by any thread; a lost race says one line twice."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[
            str, float
        ] = {}  # by topic; topics are fixed words and names of sinks, so their number is bounded

    def say(self, level: int, topic: str, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log `message` unless `topic` was spoken of within SAY_AGAIN_S."""
        now = time.monotonic()
        last = self._said.get(topic)
        if last is None or now - last >= SAY_AGAIN_S:
            self._said[topic] = now
            self._log.log(level, message, *args, exc_info=exc_info)
