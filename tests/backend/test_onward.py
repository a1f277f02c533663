"""What goes on from the backend: the first sight of an event, durable elsewhere before it is stored here."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from forwarder.backend.api import create_app
from forwarder.backend.intake import NewEvent
from forwarder.backend.onward import Onward, as_friction
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from forwarder.errors import ForwarderError, Overloaded, ShuttingDown
from forwarder.events.friction import FrictionEvent
from tests.backend.conftest import BASE_URL, ENTITY, NOW_S, NOW_US, TestClient

ID = "11111111-1111-5111-8111-111111111111"


class FakeExit:
    """Keeps what it is given; `stored` is what the store held at that moment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.events: list[FrictionEvent] = []
        self.stored: list[int] = []
        self.counts: dict[str, int] = {}
        self.failure: ForwarderError | None = None

    def open(self) -> None: ...

    def close(self) -> None: ...

    def put(self, events: Sequence[FrictionEvent]) -> None:
        if self.failure:
            raise self.failure
        self.events += events
        self.stored.append(self._store.count())

    def skipped(self, reason: str, events: int) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + events


@pytest.fixture
def exit_(store: Store) -> FakeExit:
    return FakeExit(store)


def test_an_event_goes_on_before_it_is_stored(store: Store, exit_: FakeExit, event: Callable[..., NewEvent]) -> None:
    """Were it the other way round, a crash in between would store it and tell nobody, ever."""
    assert Onward(store, exit_).record([event(id=ID)], NOW_US) == ["recorded"]
    assert [one.id for one in exit_.events] == [ID]
    assert exit_.stored == [0]
    assert store.count() == 1


def test_only_the_first_sight_goes_on(store: Store, exit_: FakeExit, event: Callable[..., NewEvent]) -> None:
    """Not what another receiver delivered too, not the end of a session whose beginning was told."""
    onward = Onward(store, exit_)
    onward.record([event(id=ID)], NOW_US)
    assert onward.record([event(id=ID), event(id=ID, revision=1)], NOW_US) == ["duplicate", "updated"]
    assert len(exit_.events) == 1
    assert exit_.counts == {"known": 1}


def test_what_was_stored_before_there_were_sinks_is_no_first_sight(
    store: Store, exit_: FakeExit, event: Callable[..., NewEvent]
) -> None:
    """Naming a sink tells nobody of the past."""
    store.record([event(id=ID)], NOW_US)
    Onward(store, exit_).record([event(id=ID, revision=1)], NOW_US)
    assert exit_.events == []


def test_a_batch_tells_each_event_once_by_its_newest_revision(
    store: Store, exit_: FakeExit, event: Callable[..., NewEvent]
) -> None:
    """A session that was opened and closed between two deliveries is one message, the whole one."""
    batch = [event(id=ID), event(id="b"), event(id=ID, revision=1, response_code=101)]
    assert Onward(store, exit_).record(batch, NOW_US) == ["recorded", "recorded", "updated"]
    assert [(one.revision, one.response_code) for one in exit_.events] == [(1, 101), (0, 0)]


def test_tests_and_what_triage_suppresses_stay_here(
    store: Store, exit_: FakeExit, event: Callable[..., NewEvent]
) -> None:
    """Both are stored and answered like any other."""
    onward = Onward(store, exit_, suppressed=lambda one: one.actor == "on-call")
    batch = [event(id="a", test=True), event(id="b", actor="on-call"), event(id="c", actor="jane")]
    assert onward.record(batch, NOW_US) == ["recorded"] * 3
    assert [one.actor for one in exit_.events] == ["jane"]
    assert exit_.counts == {"test": 1, "suppressed": 1}
    assert store.count(include_tests=True) == 3


@pytest.mark.parametrize("failure", [Overloaded("outbox_full"), ShuttingDown("the outbox is closed")])
def test_what_cannot_go_on_is_not_stored(
    store: Store, exit_: FakeExit, payload: Callable[..., dict[str, Any]], failure: ForwarderError
) -> None:
    """The sender is told to come back, and it goes on and is stored then."""
    exit_.failure = failure
    with TestClient(create_app(store, BackendSettings(), lambda: NOW_S, exit_), base_url=BASE_URL) as client:
        answer = client.post("/events", json=payload(id=ID))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert store.count() == 0
        exit_.failure = None
        assert client.post("/events", json=[payload(id=ID), {"type": "broken"}]).status_code == 200
    assert [one.id for one in exit_.events] == [ID]
    assert store.count() == 1


def test_a_sink_gets_every_field(event: Callable[..., NewEvent]) -> None:
    """As the receiver sent it: columns and details alike."""
    sent = {
        "entity_ref": ENTITY, "type": "kubectl-exec", "severity": "medium", "actor": "jane", "workflow": "debug",
        "description": "a shell", "timestamp": "2026-03-01T10:00:00.000000Z", "service": "payments-api", "namespace": "shop",
        "points": 6, "id": ID, "revision": 1, "audit_id": "a-1", "cluster": "c-1", "verb": "get", "resource": "pods",
        "subresource": "exec", "name": "p-0", "container": "app", "node": "n-1", "outcome": "denied", "response_code": 403,
        "acting_as": "root", "via": "proxy", "source_ips": ["10.0.0.1"], "user_agent": "kubectl", "command": "sh -c id",
        "tty": True, "stage": "ResponseComplete", "duration_s": 1.5, "tags": ["t"], "partial": True,
    }  # fmt: skip
    made = as_friction(event(**sent), NOW_US)
    assert {name: getattr(made, name) for name in sent} == sent | {"source_ips": ("10.0.0.1",), "tags": ("t",)}
    assert set(sent) | {"test"} == set(FrictionEvent.__struct_fields__)


def test_a_healert_event_gets_what_it_lacks(event: Callable[..., NewEvent]) -> None:
    """The moment of arrival, and an id that is a UUID: always the same one for the same id."""
    made = as_friction(event(id="mine:1"), NOW_US)
    assert made.timestamp == "2026-05-28T20:26:40.000000Z"
    assert made.id == as_friction(event(id="mine:1"), NOW_US).id != as_friction(event(id="mine:2"), NOW_US).id
    assert as_friction(event(id=ID.upper().replace("1", "A")), NOW_US).id != ID.replace("1", "a")
