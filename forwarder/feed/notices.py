"""Our own log lines as notices of the feed: start, stop, reload, trouble. They never hold a payload."""

import logging
from collections.abc import Callable

LEVELS = {logging.DEBUG: "DEBUG", logging.INFO: "INFO", logging.WARNING: "WARN", logging.ERROR: "ERROR"}

Notify = Callable[[str, str, float], None]
"""`notify(level, text, time_s)`; from any thread, must not wait or log."""


class Notices(logging.Handler):
    """Hands what our loggers say to `notify`, while it is attached."""

    def __init__(self, notify: Notify) -> None:
        super().__init__(logging.INFO)
        self._notify = notify

    def attach(self) -> None:
        logging.getLogger("forwarder").addHandler(self)

    def detach(self) -> None:
        logging.getLogger("forwarder").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._notify(LEVELS.get(record.levelno, "ERROR"), record.getMessage(), record.created)
        except Exception:  # noqa: BLE001 - as logging has it: a line that cannot be told breaks nothing
            self.handleError(record)
