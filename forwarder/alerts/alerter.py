"""The part that every sink for people shares: what it wants, which message is next, and what becomes of the events.

A sink has an Alerter, passes `wants`, `memory` and `deliver` on to it, and brings `send`, which puts one message on the
wire and answers with one outcome for it. Outcomes of the events and the memory that belongs to them are stored together
by the delivery before it asks again, so one call of `deliver` sends at most one message.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from forwarder.alerts import audit, planner
from forwarder.alerts.filters import FilterSettings, Severity, check, wanted
from forwarder.alerts.planner import Message, Policy
from forwarder.alerts.quiet import parse_quiet_hours
from forwarder.alerts.wording import Note, note
from forwarder.contracts import Done, Later, Outcome, Stage, Stream
from forwarder.errors import ConfigError
from forwarder.events.friction import FrictionEvent

BATCH_EVENTS = 2_000  # looked at for one message: 6 ms to read them, and a digest of so many is as good as one of more
MAX_WAITING_EVENTS = 50_000  # as many as are looked at behind one that is held; nobody reads about more
MAX_PER_MINUTE = 60  # Slack takes one a second in a channel; nobody reads more


class AlertSettings(FilterSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """stream: `friction` events, or chosen `audit` events, which go by way of the outbox. select, stages, ignore_system:
    which ones, as for every audit stream. What else it wants to hear is said by FilterSettings. When and how:

    group_window_s: so long repeats (same rule, service, actor, outcome and cluster) are held and then told as one message
    with their number; default 300, 0 sends each. max_per_minute: messages; the last one that a minute has room for
    stands for all that wait. Default 10.
    quiet_hours: `22:00-07:00`; what is below `quiet_except` is told afterwards, in one message. quiet_days: `[sat, sun]`,
    the same for whole days. timezone: of both, such as Europe/Berlin; the default is UTC. quiet_except: high.
    dashboard_url: what a message links to; {id}, {entity_ref}, {service}, {namespace}, {cluster} and {rule} are filled in.
    """

    stream: Stream = "friction"
    select: list[dict[str, Any]] = msgspec.field(default_factory=list)
    stages: list[Stage] = msgspec.field(default_factory=list)
    ignore_system: bool = False
    group_window_s: float = 300.0
    max_per_minute: int = 10
    quiet_hours: str = ""
    quiet_days: list[str] = msgspec.field(default_factory=list)
    timezone: str = ""
    quiet_except: Severity = "high"
    dashboard_url: str = ""


class Alerter:
    """One sink's. `memory` is what the delivery keeps for it; nothing else of it outlives a call but when to try again."""

    def __init__(
        self,
        name: str,
        settings: AlertSettings,
        send: Callable[[Note], Outcome],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """send: one message out, whatever happens without raising. Raises ConfigError."""
        self.memory = b""
        self._settings = settings
        self._policy = _policy(name, settings)
        self._send = send
        self._clock = clock
        self._not_before = 0.0  # the peer does not want to be asked earlier
        self._reason = ""
        self._last = ""  # the group whose message failed last

    def wants(self, event: FrictionEvent, stored_s: float) -> bool:
        """Whether people are to be told of it at all."""
        return audit.wants(event, self._settings.stream) and wanted(event, stored_s, self._settings)

    def deliver(self, events: Sequence[FrictionEvent]) -> list[Outcome]:
        """Send the next message, if one may go out; see `planner` for which."""
        now = self._clock()
        if 0 < self._not_before - now <= planner.MINUTE_S * 10:
            return [Later(self._not_before - now, self._reason)] * len(events)
        state = planner.decode(self.memory)
        plan = planner.plan(events, state, self._policy, now, last=self._last)
        outcomes = plan.outcomes
        if plan.message is not None:
            outcome = self._try(plan.message)
            for place in plan.carried:
                outcomes[place] = outcome
            if not isinstance(outcome, Later):  # a refused message counts as well: it must not become a hail of them
                planner.sent(state, plan.message, self._policy, self._clock())
        self.memory = planner.encode(state)
        return outcomes

    def _try(self, message: Message) -> Outcome:
        settings = self._settings
        text = note(message, dashboard_url=settings.dashboard_url, max_per_minute=settings.max_per_minute)
        outcome = self._send(text)
        self._last = "" if isinstance(outcome, Done) else message.groups[0].key
        if isinstance(outcome, Later):
            self._not_before, self._reason = self._clock() + outcome.delay_s, outcome.reason
        return outcome


# --- private ---------------------------------------------------------------------------------------------------------


def _policy(name: str, settings: AlertSettings) -> Policy:
    where = f"sinks.{name}"
    if not 0 <= settings.group_window_s <= 86_400:
        raise ConfigError("`group_window_s` must be between 0 and 86400", where=where)
    if not 1 <= settings.max_per_minute <= MAX_PER_MINUTE:
        raise ConfigError(f"`max_per_minute` must be between 1 and {MAX_PER_MINUTE}", where=where)
    check(name, settings)
    if settings.dashboard_url and not settings.dashboard_url.startswith(("http://", "https://")):
        raise ConfigError("`dashboard_url` must begin with http:// or https://", where=where)
    quiet = parse_quiet_hours(settings.quiet_hours, settings.quiet_days, settings.timezone, where=where)
    return Policy(
        window_s=settings.group_window_s,
        max_per_minute=settings.max_per_minute,
        quiet=quiet,
        breaks_quiet=settings.quiet_except,
    )
