"""An outbox in a temporary folder, on a clock that stands still, and events to put into it."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forwarder.contracts import DeadLetter, Outcome
from forwarder.events.friction import FrictionEvent
from forwarder.outbox import CommitResult, Outbox, SinkInfo
from forwarder.telemetry import Telemetry

ANSWER_WITHIN_S = 20.0  # a test that waits longer has failed; it never waits when all is well


class Clock:
    """Unix seconds that move when told to."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """An open outbox with the calls that tests make, each waiting until it is durable."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.clock = clock
        self.telemetry = Telemetry()
        self.outbox: Outbox | None = None

    def open(self, *sinks: SinkInfo, **options: Any) -> Outbox:
        """Open; what was open before is closed, as by a restart."""
        self.close()
        outbox = Outbox(self.path, sinks, telemetry=self.telemetry, clock=self.clock, **options)
        outbox.open()
        self.outbox = outbox
        return outbox

    def close(self) -> None:
        if self.outbox is not None:
            self.outbox.close()
            self.outbox = None

    def event(self, number: int = 0, *, revision: int = 0, age_s: float = 0.0, **fields: Any) -> FrictionEvent:
        """The same number is the same id."""
        moment = datetime.fromtimestamp(self.clock.now - age_s, UTC).isoformat()
        known = {"entity_ref": "component:shop/cart", "type": "kubectl-exec", "severity": "high", "actor": "jane",
                 "workflow": "debug", "description": f"event {number}", "points": 10, "audit_id": f"audit-{number}",
                 "verb": "create", "resource": "pods", "timestamp": moment, "revision": revision,
                 "id": str(uuid.UUID(int=number + 1))}  # fmt: skip
        return FrictionEvent(**(known | fields))

    def commit(self, *events: FrictionEvent, dead: Sequence[DeadLetter] = ()) -> CommitResult:
        assert self.outbox is not None
        return self.outbox.commit(events, dead).result(ANSWER_WITHIN_S)

    def settle(self, sink: str, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        assert self.outbox is not None
        self.outbox.settle(sink, outcomes).result(ANSWER_WITHIN_S)

    def due(self, sink: str, limit: int = 1000) -> list[str]:
        """The descriptions of what is due."""
        assert self.outbox is not None
        return [event.description for _, _, event, _ in self.outbox.due(sink, limit)]

    def answer(self, sink: str, outcome: Outcome, limit: int = 1000) -> int:
        """Let the sink answer everything due with `outcome`; how many there were."""
        assert self.outbox is not None
        due = self.outbox.due(sink, limit)
        self.settle(sink, [(seq, outcome) for seq, *_ in due])
        return len(due)

    def sql(self, query: str, *values: object) -> list[Any]:
        """Look, or interfere, from a connection of one's own."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(query, values).fetchall()

    def balanced(self) -> bool:
        assert self.outbox is not None
        assert self.outbox.ledger().balanced() == []
        return True


def letter(reason: str = "not_json", **fields: Any) -> DeadLetter:
    return DeadLetter(**({"reason": reason, "source": "file audit.log", "size_bytes": 7, "sha256": "ab" * 32} | fields))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bench(tmp_path: Path, clock: Clock) -> Iterator[Bench]:
    bench = Bench(tmp_path / "outbox.db", clock)
    yield bench
    bench.close()


@pytest.fixture
def record() -> Callable[..., DeadLetter]:
    return letter
