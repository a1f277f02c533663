"""Events as lines of JSON on standard output: the audit tailer's job, for the log collection of a cluster to pick up.

    sinks:
      stdout: {stream: audit}           # or without it: friction events

Our own logs go to standard error, so nothing else stands between the lines. At-least-once: what was written and not yet
acknowledged when the process was killed is written again. A reader that does not read stops the writing, not the receiver.
"""

import os
from collections.abc import Sequence

from forwarder.contracts import Done, Later, Outcome, StreamSettings
from forwarder.events import friction
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.telemetry import Telemetry

STDOUT = 1
CLOSED_DELAY_S = 5.0  # whoever reads is gone, or the disk behind it is full; both may pass


class StdoutSettings(StreamSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Beside what every sink of a stream has:

    updates: whether the end of a session is a second line with the same id (friction events only).
    required: whether acks wait when too many friction events wait for this sink; else the oldest become dead letters.
    """

    updates: bool = True
    required: bool = False


class StdoutSink:
    """A `contracts.Sink` and `contracts.AuditSink`: one event, one line."""

    batch_events = 500  # about 1 MB of audit events in one write

    def __init__(self, name: str, settings: StdoutSettings, telemetry: Telemetry, descriptor: int = STDOUT) -> None:
        """descriptor: an open file descriptor to write to."""
        self.name = name
        self.takes_updates = settings.updates
        self.required = settings.required
        self._descriptor = descriptor
        self._rest = (
            b""  # of a line whose beginning is out and which counts as written; it comes first, or two would mix
        )

    def deliver(self, events: Sequence[FrictionEvent] | Sequence[OutgoingEvent]) -> Sequence[Outcome]:
        """One outcome per event; those behind a fault are Later."""
        lines = [
            (event.json if isinstance(event, OutgoingEvent) else friction.encode(event)) + b"\n" for event in events
        ]
        data = b"".join(lines)
        written = 0
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._descriptor, self._rest) :]
            with memoryview(data) as view:
                while written < len(data):
                    written += os.write(self._descriptor, view[written:])
        except OSError as error:
            begun, end = 0, 0
            while end < written:
                end += len(lines[begun])
                begun += 1
            self._rest = self._rest or data[written:end]
            put_off = Later(CLOSED_DELAY_S, f"standard output: {error.strerror}")
            return [Done()] * begun + [put_off] * (len(events) - begun)
        return [Done()] * len(events)

    def close(self) -> None:
        """Standard output is not ours to close."""
