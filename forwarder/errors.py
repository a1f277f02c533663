"""Every error this package raises on purpose.

ForwarderError
├── ConfigError            settings, rules or command line; the command line exits with 2
├── ForwardProtocolError   the peer's bytes are not the Forward protocol; its connection is closed
├── MalformedEvent         one line is no audit event; it becomes a dead letter, its batch goes on
├── Overloaded             not accepted now; the source must not acknowledge, its peer sends again
└── ShuttingDown           the same, because the process is about to end

A message says what is wrong, where, and what to do next. It never carries a payload, a token or a key.
"""


class ForwarderError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(ForwarderError):
    """A setting, a rule or an argument that cannot be used; a person has to change something."""

    def __init__(self, message: str, *, where: str = "") -> None:
        """`where` is `file:line` or the name of the setting; it is put in front of the message."""
        super().__init__(f"{where}: {message}" if where else message)


class ForwardProtocolError(ForwarderError):
    """Bytes that are not the Forward protocol, or exceed one of its limits."""


class MalformedEvent(ForwarderError):
    """A line from which no audit event can be read. `reason` is short and free of payload: it is a metric label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Overloaded(ForwarderError):
    """A batch that cannot be made durable now. Nothing of it was kept; the sender should try again later."""

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class ShuttingDown(ForwarderError):
    """A batch that came after the doors closed. Nothing of it was kept; the sender should try again elsewhere or later."""
