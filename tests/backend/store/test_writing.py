"""One row per id whatever arrives how often in which order; what is listed, counted and deleted."""

import threading
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwarder.backend.intake import NewEvent, read_event
from forwarder.backend.scoring import DAY_US
from forwarder.backend.store import Store
from forwarder.backend.store.writing import PURGE_STEP_EVENTS

MakeEvent = Callable[..., NewEvent]

NOW_US = 1_780_000_000_000_000


def test_round_trip(store: Store, event: MakeEvent) -> None:
    """Everything that was recorded is read back."""
    sent = event(
        id="a", revision=1, actor="jané 😀", duration_s=1.5, response_code=101, command="sh", source_ips=["::1"]
    )
    store.record([sent], NOW_US)
    found = store.find("a")
    assert found is not None
    assert {name: getattr(found, name) for name in NewEvent.__struct_fields__ if name != "occurred_us"} == {
        name: getattr(sent, name) for name in NewEvent.__struct_fields__ if name != "occurred_us"
    }
    assert (found.occurred_us, found.recorded_us, found.seq) == (NOW_US, NOW_US, 1)


def test_revisions(store: Store, event: MakeEvent) -> None:
    """A higher revision updates the row, an equal or lower one is a duplicate, and the time of arrival stays."""
    session = event(id="a", revision=0, stage="ResponseStarted")
    final = event(id="a", revision=1, stage="ResponseComplete", response_code=101, duration_s=12.5, outcome="failed")
    assert store.record([session], NOW_US) == ["recorded"]
    assert store.record([session], NOW_US + 1) == ["duplicate"]
    assert store.record([final], NOW_US + 2) == ["updated"]
    assert store.record([final, session], NOW_US + 3) == ["duplicate", "duplicate"]
    found = store.find("a")
    assert found is not None
    assert (found.revision, found.stage, found.response_code, found.duration_s, found.outcome) == (
        (1, "ResponseComplete", 101, 12.5, "failed")
    )
    assert (found.recorded_us, found.occurred_us, store.count()) == (NOW_US, NOW_US, 1)


def test_one_batch_counts_like_many(store: Store, event: MakeEvent) -> None:
    """Within a batch each event is judged as if those before it had come alone."""
    batch = [event(id="a", revision=revision) for revision in (0, 2, 1, 2, 3)] + [event(id="b")]
    assert store.record(batch, NOW_US) == ["recorded", "updated", "duplicate", "duplicate", "updated", "recorded"]
    assert store.count() == 2


def test_empty_batch(store: Store) -> None:
    """Nothing is nothing."""
    assert store.record([], NOW_US) == []


deliveries = st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)), max_size=8), max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries)
def test_idempotent(open_store: Callable[[], Store], batches: list[list[tuple[str, int]]]) -> None:
    """Over any deliveries: rows = distinct ids, each at its highest revision, and every result tells what happened."""
    store = open_store()
    highest: dict[str, int] = {}
    for batch in batches:
        results = store.record([_event(name, revision) for name, revision in batch], NOW_US)
        for (name, revision), result in zip(batch, results, strict=True):
            known = highest.get(name)
            expected = "recorded" if known is None else "updated" if revision > known else "duplicate"
            assert result == expected
            highest[name] = revision if known is None else max(known, revision)
    rows = store.latest(100)
    assert {row.id: (row.revision, row.response_code) for row in rows} == {
        name: (revision, 100 + revision) for name, revision in highest.items()
    }
    assert len(rows) == store.count() == len(highest)
    store.close()


def _event(name: str, revision: int) -> NewEvent:
    fields = {"entity_ref": "c:n/a", "type": "abc", "severity": "low", "id": name, "revision": revision}
    made = read_event({**fields, "response_code": 100 + revision})
    assert isinstance(made, NewEvent)
    return made


def test_concurrent_writers(store: Store) -> None:
    """Threads that deliver the same ids at once record each of them once and lose none."""
    results: list[str] = []

    def deliver(step: int) -> None:
        for start in range(10):
            batch = [_event(f"id-{(start * 7 + i * step) % 40}", 0) for i in range(10)]
            results.extend(store.record(batch, NOW_US))

    threads = [threading.Thread(target=deliver, args=(step,)) for step in (1, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("recorded") == store.count() == 40
    assert len(results) == 300


def test_missing_time_of_an_update(store: Store, event: MakeEvent) -> None:
    """A later revision without a time leaves the time that is stored."""
    store.record([event(id="a", timestamp="2026-01-31T12:00:00Z")], NOW_US)
    store.record([event(id="a", revision=1)], NOW_US)
    found = store.find("a")
    assert found is not None
    assert found.occurred_us == 1_769_860_800_000_000


def test_tests_stay_apart(store: Store, event: MakeEvent) -> None:
    """Test events are stored and listed on request, and are in no score and no count."""
    store.record([event(id="a", test=True), event(id="b")], NOW_US)
    assert [row.id for row in store.latest(10)] == ["b"]
    assert {row.id for row in store.latest(10, include_tests=True)} == {"a", "b"}
    assert (store.count(), store.count(include_tests=True)) == (1, 2)
    assert store.scores.friction("component:shop/payments-api", NOW_US).bypass_count == 1


def test_latest(store: Store, event: MakeEvent) -> None:
    """The latest to happen comes first whatever its zone or order of arrival; ties by arrival; the limit holds."""
    times = ["2026-01-31T12:00:00Z", "2026-01-31T12:30:00+01:00", "2026-01-31T12:00:00", "2026-02-01"]
    store.record([event(id=f"{index}", timestamp=text) for index, text in enumerate(times)], NOW_US)
    assert [row.id for row in store.latest(10)] == ["3", "2", "0", "1"]
    assert [row.id for row in store.latest(2)] == ["3", "2"]
    assert [row.id for row in store.latest(10, since_us=1_769_860_800_000_000)] == ["3", "2", "0"]
    assert store.latest(10, entity_ref="component:shop/other") == []


def test_purge(store: Store, event: MakeEvent) -> None:
    """Events from before the edge go, in as many steps as it takes; those at the edge stay."""
    edge = NOW_US - 30 * DAY_US
    store.record([event() for _ in range(PURGE_STEP_EVENTS + 1)], edge - 1)
    store.record([event(id="kept")], edge)
    assert store.purge(edge, NOW_US) == PURGE_STEP_EVENTS + 1
    assert [row.id for row in store.latest(10)] == ["kept"]
    assert store.purge(edge, NOW_US) == 0


def test_from_the_future(store: Store, event: MakeEvent) -> None:
    """An event dated in the year 9999 happened when it arrived: it neither raises a score nor stays for ever."""
    store.record([event(id="a", timestamp="9999-12-31T00:00:00Z")], NOW_US - 31 * DAY_US)
    store.record([event(id="b", timestamp="9999-12-31T00:00:00Z")], NOW_US)
    assert [row.occurred_us for row in store.latest(10)] == [NOW_US, NOW_US - 31 * DAY_US]
    assert store.purge(NOW_US - 30 * DAY_US, NOW_US) == 1
    assert [row.id for row in store.latest(10)] == ["b"]


def test_closed(store: Store, event: MakeEvent) -> None:
    """A purge that is overtaken by the end of the store stops."""
    store.record([event(id="a")], 0)
    store.close()
    assert store.purge(NOW_US, NOW_US) == 0
