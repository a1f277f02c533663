"""A made-up audit log that is like a real one, with the list of what should be found in it.

    log = SampleLog(seed=7, start_time=time.time() - 3600)
    lines = list(log.lines(100_000))           # without their newlines
    expected = {(action.audit_id, action.rule) for action in log.actions}

The same seed and start time give the same bytes. Lines come in the order of their stageTimestamp, as an apiserver writes
them, in its key order and Go's escaping; a mean line has about 2.8 kB. Machines make most of them; people make the
friction, and near misses of every kind that friction.yaml has to tell from it. For demonstrations, tests and benchmarks.
"""

import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from forwarder.events.sample_cluster import Cluster
from forwarder.events.sample_lines import Template
from forwarder.events.sample_machines import traffic
from forwarder.events.sample_people import People, Request

DEFAULT_FRICTION_SHARE = 0.01  # of the requests; real clusters see between a tenth and ten times as much
DEFAULT_LINES_PER_S = 200.0  # a cluster of some fifty nodes, audited at Metadata with bodies for writes
MAX_OPEN_WATCHES = 200  # further watches wait until some have ended, so that an endless log needs bounded memory
SESSION_S = (1.0, 240.0)  # how long shells and tunnels stay open
WATCH_S = (300.0, 600.0)  # how long informers ask to watch
DRAWN_AT_ONCE = 1024  # templates; one draw for each line would be a third of its cost


class SampleAction(msgspec.Struct, frozen=True, kw_only=True):
    """One friction event that should be found: by which rule, about what, and who.

    revision: 0 while only the first stage of a session is written, else 1; duration_s: of an ended session.
    received: requestReceivedTimestamp. command: of an exec, word by word.
    """

    rule: str
    actor: str
    entity_ref: str
    audit_id: str
    received: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    revision: int
    acting_as: str = ""
    command: tuple[str, ...] = ()
    duration_s: float | None = None


class _Open(msgspec.Struct, frozen=True):
    """A request that has started to stream and is not over."""

    template: Template
    audit_id: bytes
    received: bytes
    received_s: float
    is_watch: bool


class SampleLog:
    """An endless log; `actions` is what should have been found in the lines given out so far."""

    def __init__(
        self,
        seed: int = 1,
        *,
        start_time: float,
        lines_per_s: float = DEFAULT_LINES_PER_S,
        friction_share: float = DEFAULT_FRICTION_SHARE,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """start_time: Unix seconds of the first line; lines_per_s: how fast the log's own time passes.

        friction_share: of the requests, 0..0.3; near misses are as frequent. clock: for live logs, where time passes.
        """
        self._rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._cluster = Cluster(self._rng)
        self._people = People(self._cluster)
        self._traffic = traffic(self._cluster)
        self._now = start_time
        self._step_s = 1.0 / lines_per_s
        self._friction_share = friction_share
        self._clock = clock
        self._version = 200_000
        self._drawn: deque[Template] = deque()
        self._requests: deque[Request] = deque()
        self._ends: list[tuple[float, int, _Open]] = []
        self._started = 0
        self._watches = 0
        self._second = -1
        self._second_text = b""
        self._actions: dict[tuple[str, str], SampleAction] = {}

    @property
    def actions(self) -> list[SampleAction]:
        """In the order in which they began."""
        return list(self._actions.values())

    def forget_actions(self) -> None:
        """Drop the list; for live logs that nobody compares with."""
        self._actions.clear()

    def lines(self, count: int) -> Iterator[bytes]:
        """`count` lines without newline; towards the end, what is open is closed, so that sessions are complete."""
        for remaining in range(count, 0, -1):
            yield self.close_one() if remaining <= len(self._ends) else self.line()

    @property
    def open_requests(self) -> int:
        """Sessions and watches whose last stage is still to come."""
        return len(self._ends)

    def close_one(self) -> bytes:
        """The last stage of what would end next, now; only while there are open requests."""
        self._pass_time()
        return self._end(*heapq.heappop(self._ends)[1:])

    def line(self) -> bytes:
        """The next line."""
        self._pass_time()
        if self._ends and self._ends[0][0] <= self._now:
            return self._end(*heapq.heappop(self._ends)[1:])
        if not self._requests:
            draw = self._rng.random()
            if draw < self._friction_share:
                self._requests += self._people.friction()
            elif draw < 2 * self._friction_share:
                self._requests += self._people.near_miss()
        if self._requests:
            return self._by_person(self._requests.popleft())
        template = self._draw()
        while template.two_stages and self._watches >= MAX_OPEN_WATCHES:
            template = self._draw()
        return self._begin(template, is_watch=True)[0]

    # --- one line ---

    def _pass_time(self) -> None:
        self._now += self._step_s
        if self._clock is not None:
            self._now = max(self._now - self._step_s, self._clock()) + 1e-6

    def _draw(self) -> Template:
        if not self._drawn:
            shares = [kind.share for kind in self._traffic]
            choice = self._rng.choice
            self._drawn.extend(
                choice(kind.templates) for kind in self._rng.choices(self._traffic, shares, k=DRAWN_AT_ONCE)
            )
        return self._drawn.popleft()

    def _begin(self, template: Template, *, is_watch: bool) -> tuple[bytes, bytes, bytes]:
        """The first (or only) line of a request, its auditID and when it was received."""
        received_s = self._now - self._rng.random() * 0.02
        audit_id, received = self._audit_id(), self._timestamp(received_s)
        stage = b"ResponseComplete"
        if template.two_stages:
            stage = b"ResponseStarted"
            least, most = WATCH_S if is_watch else SESSION_S
            opened = _Open(template, audit_id, received, received_s, is_watch)
            self._started += 1
            self._watches += is_watch
            heapq.heappush(self._ends, (self._now + self._rng.uniform(least, most), self._started, opened))
        return self._render(template, audit_id, stage, received), audit_id, received

    def _end(self, _order: int, opened: _Open) -> bytes:
        self._watches -= opened.is_watch
        key = (opened.audit_id.decode(), opened.received.decode())
        action = self._actions.get(key)
        if action is not None:
            duration_s = round(self._now - opened.received_s, 6)
            self._actions[key] = msgspec.structs.replace(action, revision=1, duration_s=duration_s)
        return self._render(opened.template, opened.audit_id, b"ResponseComplete", opened.received)

    def _by_person(self, request: Request) -> bytes:
        line, audit_id, received = self._begin(Template(request.event, two_stages=request.two_stages), is_watch=False)
        if request.rule:
            reference = request.event["objectRef"]
            action = SampleAction(
                rule=request.rule,
                actor=request.actor,
                entity_ref=f"component:{request.namespace}/{request.workload}",
                audit_id=audit_id.decode(),
                received=received.decode(),
                verb=request.event["verb"],
                resource=reference["resource"],
                subresource=reference.get("subresource", ""),
                namespace=request.namespace,
                name=request.name,
                revision=0 if request.two_stages else 1,
                acting_as=request.acting_as,
                command=request.command,
            )
            self._actions[action.audit_id, action.received] = action
        return line

    def _render(self, template: Template, audit_id: bytes, stage: bytes, received: bytes) -> bytes:
        self._version += 1
        return template.render((audit_id, stage, received, self._timestamp(self._now), b"%d" % self._version))

    def _audit_id(self) -> bytes:
        digits = b"%032x" % self._rng.getrandbits(128)
        return b"%b-%b-4%b-a%b-%b" % (digits[:8], digits[8:12], digits[13:16], digits[17:20], digits[20:])

    def _timestamp(self, seconds: float) -> bytes:
        """RFC 3339 with microseconds, as metav1.MicroTime writes it."""
        whole = int(seconds)
        if whole != self._second:
            self._second = whole
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)).encode()
        return b"%b.%06dZ" % (self._second_text, int((seconds - whole) * 1e6))
