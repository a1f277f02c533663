"""What the rooms of floor 2 promise each other: batches, outcomes, and the protocols of sources, sinks and taps.

A source makes a `Batch` and submits it; when `submit` has returned, everything in it is durable and the source may
acknowledge. A sink is given friction events and answers with one outcome for each; an audit sink is given the audit
events themselves. A tap is shown both and has no say.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import msgspec

from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent

Screen = Callable[[bytes | bytearray | memoryview, int, int], bool]
"""`screen(buffer, start, end)`: can any rule match the audit line at buffer[start:end]? Never copies; never says no wrongly."""


def candidates(screen: Screen, buffer: bytes | bytearray, spans: Sequence[tuple[int, int]]) -> Sequence[int]:
    """The positions in `spans` of the lines that `screen` lets pass; a screen that can look at many at once is asked once."""
    at_once = getattr(screen, "candidates", None)
    if at_once is not None:
        found: Sequence[int] = at_once(buffer, spans)
        return found
    return [position for position, (start, end) in enumerate(spans) if screen(buffer, start, end)]


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
    """Not now; offer it again after `delay_s` seconds. `reason` is for the operator.

    held: the sink's own choice (it groups, it is night) and no trouble: counted neither as a try nor as a retry. Held
    for 0 s is an event whose turn comes after this one's answers are durable; nothing is stored about it.
    """

    delay_s: float
    reason: str = ""
    held: bool = False


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Never: the event becomes a dead letter with this reason (the peer's own words where it has some)."""

    reason: str


Outcome = Done | Later | Refused


class Sink(Protocol):
    """Where friction events go. Runs in a thread of its own; every method is called from that thread only.

    name: the operator's name for it. takes_updates: whether it wants revision 1 of an id it was given before.
    required: whether a full backlog of this sink makes acknowledgements wait (else its oldest events become dead letters).

    A sink may have more; `forwarder.delivery` says what.
    """

    name: str
    takes_updates: bool
    required: bool

    def deliver(self, events: Sequence[FrictionEvent]) -> Sequence[Outcome]:
        """One outcome per event, in order. Holds nothing after it returned. Raises nothing: a fault is Later or Refused."""

    def close(self) -> None:
        """Release connections. Called once, after the last deliver."""


class AuditSink(Protocol):
    """Where the audit events themselves go; otherwise as Sink. One class may be both, by its setting `stream`.

    At-least-once: what was under way when the process ended, or was not acknowledged to its sender, comes again.
    """

    name: str

    def deliver(self, events: Sequence[OutgoingEvent]) -> Sequence[Outcome]:
        """One outcome per event, in order. Refused is counted and gone: an audit stream has no dead letters."""

    def close(self) -> None:
        """Release connections. Called once, after the last deliver."""


Stream = Literal["friction", "audit"]
Stage = Literal["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the settings of every sink begin with that can take audit events.

    stream: `friction` events, or the `audit` events themselves; the rest here is about an audit stream only.
    select: which audit events, each item as the `match` of a rule; one that fits is enough; empty: all.
    stages: RequestReceived, ResponseStarted, ResponseComplete, Panic; empty: all that the audit policy lets through.
    ignore_system: leave out what controllers, kubelets, service accounts and the robots of `detection.robots` do.
    redact: hide secret and config map data, tokens, credentials in commands; false sends lines as they came.
    when_down: `drop`: when the queue is full its oldest events are dropped and counted, and nothing else waits for this
    sink. `block`: what it has not taken is not acknowledged to its sender, so nothing is lost while it is down, and
    everything waits.
    queue_events: how many events wait in memory at most. queue_bytes: and how many bytes of them.
    """

    stream: Stream = "friction"
    select: list[dict[str, Any]] = []
    stages: list[Stage] = []
    ignore_system: bool = False
    redact: bool = True
    when_down: Literal["drop", "block"] = "drop"
    queue_events: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    queue_bytes: int | str = 32 << 20


class Tap(Protocol):
    """Somebody who watches what passes. Never in the way: both calls return at once, raise nothing, and hold no more than
    their own bound. Called from the event loop, after what is shown is durable.
    """

    @property
    def wants_audit(self) -> bool:
        """Whether anybody watches audit events now; only then are all lines decoded."""

    def friction(self, events: Sequence[FrictionEvent]) -> None:
        """Friction events as detected: repeats of a batch that was sent again are among them."""

    def audit(self, events: Sequence[OutgoingEvent]) -> None:
        """Audit events of a batch, while `wants_audit`."""


class Source(Protocol):
    """Where audit events come in.

    `run` opens its door, calls `started()` once it accepts, and returns when `stopping` is set and everything it had
    submitted is acknowledged. It acknowledges only after `submit` has returned.
    """

    name: str

    async def run(self, submit: Submit, stopping: "Stopping", started: Callable[[], None]) -> None:
        """Raises ConfigError when the door cannot be opened (port in use, file unreadable, bad certificate)."""


@runtime_checkable
class HasWorkers(Protocol):
    """What a source has besides, whose lines are screened in processes of their own: they must be told by which rules."""

    def set_rules(self, ruleset: Any, own_namespace: str, robots: list[str]) -> None:
        """A detection.rules.RuleSet, and what Detector wants beside it."""

    def set_everything(self, wanted: bool) -> None:
        """Whether every line is wanted, as somebody wants the audit events themselves."""


class Stopping(Protocol):
    """The part of asyncio.Event that a source needs."""

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...
