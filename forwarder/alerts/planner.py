"""Which message goes out next: repeats grouped, nights kept quiet, at most so many a minute. Pure; all of it durable.

One call plans one message. The events that it carries are settled before the next is planned, together with what has to
be remembered (`State`): the ends of the windows in which repeats are held, and when messages went out. So a kill at any
moment loses nothing, and sends at most the one message again whose sending was not yet stored. Held events stay in the
outbox, where the ledger counts them as waiting; nothing of them is here.

    the first event of a group (rule, service, actor, outcome, cluster)   goes out at once and opens a window
    its repeats                                                           wait until the window ends, then go out as one
    more groups than messages left this minute                            the last message stands for all, with numbers
    quiet hours, below the severity that may break them                   wait until they are over, then go out as one
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from forwarder.alerts.audit import PREFIX
from forwarder.alerts.filters import RANK
from forwarder.alerts.quiet import QuietHours
from forwarder.contracts import Later, Outcome
from forwarder.events.friction import FrictionEvent

MINUTE_S = 60.0
SETTLING_S = 60.0  # so long after its window an event is still called a repeat
MAX_WINDOWS = 5_000  # open at once: 16 messages a minute for 5 hours; beyond it the ones that end first are forgotten

Reason = Literal["", "rate", "quiet"]
_NONE: Reason = ""
_RATE: Reason = "rate"
_QUIET: Reason = "quiet"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """window_s: how long repeats of a group are held; 0 groups nothing. breaks_quiet: the severity that wakes people."""

    window_s: float
    max_per_minute: int
    quiet: QuietHours | None = None
    breaks_quiet: str = "high"


class State(msgspec.Struct):
    """What has to survive a restart. windows: group -> when its window ends. sent: messages of the last minute.

    quiet_until: something is held since the quiet hours that end then; 0 when nothing is. All in Unix seconds.
    """

    windows: dict[str, float] = {}
    sent: list[float] = []
    quiet_until: float = 0.0


class Group(msgspec.Struct, frozen=True):
    """Events that say the same, in order; never empty. again: one message about it went out a window ago."""

    key: str
    events: tuple[FrictionEvent, ...]
    again: bool = False


class Message(msgspec.Struct, frozen=True):
    """One message: about one group, or a digest of several, the gravest first. reason: why it is a digest."""

    groups: tuple[Group, ...]
    reason: Reason = ""

    @property
    def events(self) -> int:
        return sum(len(group.events) for group in self.groups)

    @property
    def severity(self) -> str:
        return max((event.severity for group in self.groups for event in group.events), key=RANK.__getitem__)


class Plan(msgspec.Struct, frozen=True):
    """outcomes: one for each event, as if nothing were sent. carried: the places of those that `message` is about."""

    outcomes: list[Outcome]
    carried: tuple[int, ...] = ()
    message: Message | None = None


def plan(events: Sequence[FrictionEvent], state: State, policy: Policy, now: float, *, last: str = "") -> Plan:
    """The next message, if one may go out now. `state` is only changed in what it says about quiet hours.

    last: the group whose message failed a moment ago; the others get their turn first.
    """
    outcomes: list[Outcome] = [Later(0.0, held=True)] * len(events)
    ready = _ready(events, outcomes, state, policy, now)
    if not ready:
        if state.quiet_until <= now:
            state.quiet_until = 0.0
        return Plan(outcomes)
    recent = [sent for sent in state.sent if now - MINUTE_S < sent <= now]
    free = policy.max_per_minute - len(recent)
    if free <= 0:
        for place in (place for places in ready.values() for place in places):
            outcomes[place] = Later(min(recent) + MINUTE_S - now, held=True)
        return Plan(outcomes)
    over = 0.0 < state.quiet_until <= now
    order = sorted(ready.items(), key=lambda item: (item[0] == last, -_rank(events, item[1]), item[1][0]))
    if len(order) > 1 and (over or (free == 1 and len(order) > free)):
        chosen, reason = order, _QUIET if over else _RATE
    else:
        chosen, reason = order[:1], _NONE
    groups = tuple(Group(key, tuple(events[place] for place in places), key in state.windows) for key, places in chosen)
    carried = tuple(place for _, places in chosen for place in places)
    return Plan(outcomes, carried, Message(groups, reason))


def sent(state: State, message: Message, policy: Policy, now: float) -> None:
    """Remember that `message` went out. A digest opens no windows: what it named is not yet known one by one."""
    state.sent = [*(moment for moment in state.sent if now - MINUTE_S < moment <= now), now]
    windows = {
        key: end
        for key, end in state.windows.items()
        if now - SETTLING_S < end <= now + policy.window_s  # an end further away is of a clock that was set back
    }
    if message.reason:
        for group in message.groups:
            windows.pop(group.key, None)
    elif policy.window_s > 0:
        windows[message.groups[0].key] = now + policy.window_s
    for key in sorted(windows, key=windows.__getitem__)[: max(0, len(windows) - MAX_WINDOWS)]:
        del windows[key]
    state.windows = windows
    if state.quiet_until <= now:
        state.quiet_until = 0.0


def encode(state: State) -> bytes:
    """As it is stored; empty while there is nothing to remember."""
    return msgspec.json.encode(state) if state.windows or state.sent or state.quiet_until else b""


def decode(memory: bytes) -> State:
    """What `encode` gave; anything else is a fresh start."""
    try:
        return msgspec.json.decode(memory, type=State) if memory else State()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return State()


# --- private ---------------------------------------------------------------------------------------------------------


def _ready(
    events: Sequence[FrictionEvent], outcomes: list[Outcome], state: State, policy: Policy, now: float
) -> dict[str, list[int]]:
    """The places of the events that may go out now, by group; for the others, `outcomes` says how long they are held."""
    quiet_ends = policy.quiet.ends(now) if policy.quiet else None
    ready: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        if quiet_ends is not None and RANK[event.severity] < RANK[policy.breaks_quiet] and not event.test:
            outcomes[place] = Later(quiet_ends - now, held=True)
            state.quiet_until = quiet_ends
            continue
        key = group_key(event) if policy.window_s > 0 else event.id
        ends = state.windows.get(key, 0.0)
        if now < ends <= now + policy.window_s:
            outcomes[place] = Later(ends - now, held=True)
        else:
            ready.setdefault(key, []).append(place)
    return ready


def group_key(event: FrictionEvent) -> str:
    """What makes two events the same to a reader; short, and the same after a restart."""
    stage = event.stage if event.type.startswith(PREFIX) else ""  # of audit events each stage is news of its own
    parts = (event.cluster, event.type, event.entity_ref, event.actor, event.outcome, stage)
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:16]


def _rank(events: Sequence[FrictionEvent], places: Iterable[int]) -> int:
    return max(RANK[events[place].severity] for place in places)
