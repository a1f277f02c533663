"""What the rooms of floor 2 promise each other: batches, outcomes, and the two protocols Source and Sink.

A source makes a `Batch` and submits it; when `submit` has returned, everything in it is durable and the source may
acknowledge. A sink is given friction events and answers with one outcome for each.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from forwarder.events.friction import FrictionEvent

Screen = Callable[[bytes | bytearray | memoryview, int, int], bool]
"""`screen(buffer, start, end)`: can any rule match the audit line at buffer[start:end]? Never copies; never says no wrongly."""

Submit = Callable[["Batch"], Awaitable[None]]
"""`await submit(batch)` returns when the batch is durable; raises Overloaded or ShuttingDown, and then nothing was kept."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """One audit line: the bytes of one audit.k8s.io/v1 Event (or EventList) as JSON, without its newline.

    time_s: the envelope's time, Unix seconds, for lines that are cut before their own timestamps; 0.0 when unknown.
    offset: where the line began in its file or message, bytes; -1 when unknown.
    """

    data: bytes
    time_s: float = 0.0
    offset: int = -1


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Bad input, kept so that a person can see what was lost and why. `head` is salvaged, redacted text.

    reason: short, from a closed set (a metric label). source: where it came from. size_bytes, sha256: of the whole payload.
    payload: the raw bytes, only where the operator opted in.
    """

    reason: str
    source: str
    size_bytes: int
    sha256: str
    offset: int = -1
    head: str = ""
    payload: bytes | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What a source hands over at once.

    cluster: from the authenticated identity or the source's setting; "" means the global one.
    origin: who sent it, for logs and dead letters: "forward 10.0.0.7:53122", "file /var/log/audit.log".
    received: how many lines arrived, the screened-out ones included. lines: those that passed the screen.
    rejected: records that the source itself could not turn into lines; each is one of `received`.
    """

    origin: str
    received: int
    lines: Sequence[Line]
    rejected: Sequence[DeadLetter] = ()
    cluster: str = ""


class Done(msgspec.Struct, frozen=True, gc=False):
    """The sink has it."""


class Later(msgspec.Struct, frozen=True, gc=False):
    """Not now; offer it again after `delay_s` seconds. `reason` is for the operator."""

    delay_s: float
    reason: str = ""


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Never: the event becomes a dead letter with this reason (the peer's own words where it has some)."""

    reason: str


Outcome = Done | Later | Refused


class Sink(Protocol):
    """Where friction events go. Runs in a thread of its own; every method is called from that thread only.

    name: the operator's name for it. takes_updates: whether it wants revision 1 of an id it was given before.
    required: whether a full backlog of this sink makes acknowledgements wait (else its oldest events become dead letters).
    """

    name: str
    takes_updates: bool
    required: bool

    def deliver(self, events: Sequence[FrictionEvent]) -> Sequence[Outcome]:
        """One outcome per event, in order. Holds nothing after it returned. Raises nothing: a fault is Later or Refused."""

    def close(self) -> None:
        """Release connections. Called once, after the last deliver."""


class Source(Protocol):
    """Where audit events come in.

    `run` opens its door, calls `started()` once it accepts, and returns when `stopping` is set and everything it had
    submitted is acknowledged. It acknowledges only after `submit` has returned.
    """

    name: str

    async def run(self, submit: Submit, stopping: "Stopping", started: Callable[[], None]) -> None:
        """Raises ConfigError when the door cannot be opened (port in use, file unreadable, bad certificate)."""


class Stopping(Protocol):
    """The part of asyncio.Event that a source needs."""

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...
