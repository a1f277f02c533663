"""Scores from buckets are scores from events: over any history, half-life and edge of the window, at any moment."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from forwarder.backend.intake import NewEvent, format_timestamp, read_event
from forwarder.backend.schema import names, pairs, tallies
from forwarder.backend.store import Store, rolling
from forwarder.backend.store.rebuild import build_all
from forwarder.backend.store.scores import ScoreFilter
from forwarder.backend.store.state import change_state, read_state
from forwarder.backend.store.triage import FOREVER_US, CoversNothing
from forwarder.backend.store.views import DAY_US, HOUR_US

OpenStore = Callable[[], Store]
MakeEvent = Callable[..., NewEvent]

NOW_US = 1_780_000_000_000_000  # 20:26:40: the window's edge cuts an hour and a day
ENTITIES = ("c:n/a", "c:n/b", "c:m/a")


def make(**fields: Any) -> NewEvent:
    event = read_event({"entity_ref": "c:n/a", "type": "kubectl-exec", "severity": "low", **fields})
    assert isinstance(event, NewEvent), event
    return event


def direct(store: Store, entity_ref: str, half_life_days: float, window_days: int, now_us: int) -> tuple[float, int]:
    """Points and count as the formula gives them, from every event."""
    found = [
        event
        for event in store.latest(10_000, entity_ref=entity_ref)
        if event.mark == 0 and now_us - window_days * DAY_US <= event.occurred_us
    ]
    ages = [(now_us - event.occurred_us) / DAY_US for event in found]
    return math.fsum(event.points * 0.5 ** (age / half_life_days) for event, age in zip(found, ages, strict=True)), len(
        found
    )


def check(store: Store, now_us: int) -> None:
    """Both ways to tell a score agree with the direct sum."""
    listed = {entity.entity_ref: entity for entity in store.scores.page(ScoreFilter(), now_us, limit=1000).entities}
    for entity_ref in ENTITIES:
        told = store.scores.explain(entity_ref, now_us)
        points, count = direct(store, entity_ref, told.half_life_days, told.window_days, now_us)
        assert told.count == count
        assert math.isclose(told.points, points, rel_tol=1e-9, abs_tol=1e-12)
        assert store.scores.friction(entity_ref, now_us).score == told.score
        if count:
            assert listed[entity_ref].count == count
            assert math.isclose(listed[entity_ref].points, points, rel_tol=1e-9, abs_tol=1e-12)
        else:
            assert entity_ref not in listed


def sums(store: Store, connection: sa.Connection) -> tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any]]:
    rows = connection.execute(sa.select(tallies)).all()
    counts = connection.execute(sa.select(names.c.id, names.c["count"]).where(names.c["count"] != 0)).all()
    return (
        {tuple(row[:5]): (row[5], row[6], row[7]) for row in rows},
        {tuple(row[:3]): row[3] for row in connection.execute(sa.select(pairs))},
        {row[0]: row[1] for row in counts},
    )


def check_buckets(store: Store, now_us: int) -> None:
    """What was kept while writing is what a new sum over all events gives."""
    with store.database.writing() as connection:
        kept, kept_pairs, kept_names = sums(store, connection)
        active = read_state(connection).active
        build_all(connection, store._names, read_state(connection), now_us)
        made, made_pairs, made_names = sums(store, connection)
    assert (kept_pairs, kept_names) == (made_pairs, made_names)
    assert {key: row[0] for key, row in kept.items()} == {key: row[0] for key, row in made.items()}
    for key, row in made.items():
        assert math.isclose(kept[key][1 + active], row[1 + active], rel_tol=1e-9, abs_tol=1e-9)


moments = st.integers(-40 * 24 * 60, 30).map(lambda minutes: minutes * 60_000_000)
near_edges = st.sampled_from([-30 * DAY_US, -30 * DAY_US - 1, -30 * DAY_US + 1, -3 * DAY_US, 0, -HOUR_US, 10 * DAY_US])
one_event = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abcdefghijkl"),
        "revision": st.integers(0, 3),
        "entity_ref": st.sampled_from(ENTITIES),
        "type": st.sampled_from(("kubectl-exec", "config-drift")),
        "actor": st.sampled_from(("jane", "joe")),
        "workflow": st.sampled_from(("", "debug")),
        "cluster": st.sampled_from(("", "east")),
        "points": st.integers(1, 100),
        "at": moments | near_edges,
        "test": st.sampled_from((False, False, False, True)),
        "tags": st.sampled_from(((), ("team:red",))),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.lists(one_event, min_size=1, max_size=8)),
        st.tuples(st.just("pass"), st.sampled_from((0, 1_000_000, 20 * 60_000_000, HOUR_US, 25 * HOUR_US, 9 * DAY_US))),
        st.tuples(st.just("maintain"), st.none()),
        st.tuples(st.just("half-life"), st.sampled_from((0.01, 0.5, 7.0, 90.0))),
        st.tuples(st.just("rebuild"), st.integers(0, 4)),
        st.tuples(st.just("window"), st.sampled_from((1, 3, 30, 60))),
        st.tuples(st.just("expect"), st.sampled_from(("jane", "kubectl-exec", "c:n/a"))),
        st.tuples(st.just("expect one"), st.sampled_from("abcdefghijkl")),
        st.tuples(st.just("undo"), st.integers(1, 4)),
        st.tuples(st.just("purge"), st.sampled_from((0, 3, 29, 30))),
    ),
    max_size=12,
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink, Phase.explain},
)
@given(steps)
def test_exact(open_store: OpenStore, history: list[tuple[str, Any]]) -> None:
    """After every step of any history, scores are the direct sum to 1e-9, and buckets are what a rebuild gives."""
    store, now_us = open_store(), NOW_US
    for what, value in history:
        if what == "record":
            batch = [
                make(**{**fields, "timestamp": format_timestamp(now_us + fields["at"])} | {"at": None})
                for fields in value
            ]
            store.record(batch, now_us)
        elif what == "pass":
            now_us += value
        elif what == "maintain":
            store.maintain(now_us)
        elif what == "half-life":
            store.settings.change({"half_life_days": value}, author="", now_us=now_us)
        elif what == "rebuild":
            for _ in range(value):
                store.rebuild_step(now_us)
        elif what == "window":
            store.settings.change({"score_retention_days": value}, author="", now_us=now_us)
        elif what == "expect":
            pattern = {"actor": "", "rule": "", "entity_ref": ""}
            pattern[{"j": "actor", "k": "rule", "c": "entity_ref"}[value[0]]] = value
            with contextlib.suppress(CoversNothing):
                store.triage.expect_pattern(**pattern, author="me", reason="", now_us=now_us, until_us=now_us - HOUR_US)
        elif what == "expect one":
            store.triage.expect_events([value], author="me", reason="", now_us=now_us, until_us=now_us + HOUR_US)
        elif what == "undo":
            store.triage.undo(value, author="me", now_us=now_us)
        else:
            store.purge(now_us - value * DAY_US, now_us)
        check(store, now_us)
    while store.rebuild_step(now_us):
        check(store, now_us)
    check(store, now_us)
    check_buckets(store, now_us)
    check(store, now_us)
    store.close()


@pytest.mark.parametrize(("age_days", "score"), [(0, 100), (7, 50), (14, 25), (21, 12), (29.99, 5)])
def test_half_life(store: Store, age_days: float, score: int) -> None:
    """Five high events make 100 on the day and half of it with each week that passes."""
    store.record([make(points=10) for _ in range(5)], NOW_US)
    assert store.scores.friction("c:n/a", NOW_US + round(age_days * DAY_US)).score == score


def test_window_edge(store: Store) -> None:
    """An event as old as the window counts; one a microsecond older neither scores nor is counted."""
    edge_us = NOW_US - 30 * DAY_US
    events = [
        make(timestamp=format_timestamp(at), points=100, workflow=w) for at, w in ((edge_us, ""), (edge_us - 1, "late"))
    ]
    store.record(events, NOW_US)
    found = store.scores.friction("c:n/a", NOW_US)
    assert (found.bypass_count, found.score, found.top_friction_workflow) == (1, 10, "none")


def test_old_sums_are_made_anew(store: Store) -> None:
    """Far from the moment that weights are as of, a write moves that moment first: nothing overflows."""
    store.settings.change({"half_life_days": 0.01}, author="", now_us=NOW_US)
    store.record([make(points=100)], NOW_US)
    store.record([make(points=100)], NOW_US + 25 * DAY_US)
    check(store, NOW_US + 25 * DAY_US)
    assert store.scores.friction("c:n/a", NOW_US + 25 * DAY_US).score == 100


def test_a_later_half_life_holds_at_once_or_not_yet(store: Store) -> None:
    """While a new half-life is worked in, scores are told with the old one; then with the new one, in one step."""
    store.record([make(id=f"{n}", timestamp=format_timestamp(NOW_US - n * DAY_US)) for n in range(10)], NOW_US)
    store.settings.change({"half_life_days": 2.0}, author="me", now_us=NOW_US)
    told = []
    while True:
        told.append(store.scores.explain("c:n/a", NOW_US).half_life_days)
        check(store, NOW_US)
        if not store.rebuild_step(NOW_US):
            break
    assert set(told) == {7.0}
    assert store.scores.explain("c:n/a", NOW_US).half_life_days == 2.0
    check(store, NOW_US)


def test_ends_of_days(store: Store) -> None:
    """A day's score is written down when it has ended, and stays when its events are gone."""
    store.record([make(points=50, timestamp=format_timestamp(NOW_US - DAY_US))], NOW_US - DAY_US)
    store.maintain(NOW_US)
    before = store.scores.history("c:n/a", NOW_US)
    assert [point.day for point in before] == ["2026-05-27", "2026-05-28"]
    store.purge(NOW_US, NOW_US)
    after = store.scores.history("c:n/a", NOW_US)
    assert after[0] == before[0]
    assert (after[1].score, after[1].count) == (0, 0)


def test_history_of_days_before_the_store(store: Store) -> None:
    """Events of the past give their days a score too, as it would have been."""
    store.record([make(points=50, timestamp=format_timestamp(NOW_US - 3 * DAY_US))], NOW_US)
    told = store.scores.history("c:n/a", NOW_US)
    midnight_us = NOW_US // DAY_US * DAY_US
    expected = [direct(store, "c:n/a", 7.0, 30, midnight_us - n * DAY_US)[0] for n in (2, 1, 0)]
    assert [point.points for point in told[:-1]] == pytest.approx(expected)
    assert len(told) == 4


def test_sums_made_at_the_first_start(store: Store) -> None:
    """Sums that are missing are made when the store is opened."""
    store.record([make(id=f"{n}") for n in range(20)], NOW_US)
    with store.database.writing() as connection:
        connection.execute(sa.delete(tallies))
        change_state(connection, read_state(connection), built=False)
    store.build()
    check(store, NOW_US)
    assert store.scores.friction("c:n/a", NOW_US).bypass_count == 20


def test_marks_hide_until_undone(store: Store) -> None:
    """A mark takes points out of the score, and its end brings them back."""
    store.record([make(actor="jane", points=50)], NOW_US)
    mark = store.triage.expect_pattern(
        actor="jane", rule="", entity_ref="", author="me", reason="drill", now_us=NOW_US, until_us=FOREVER_US
    )
    assert (store.scores.friction("c:n/a", NOW_US).score, mark.hidden) == (0, 1)
    store.triage.undo(mark.id, author="me", now_us=NOW_US)
    assert store.scores.friction("c:n/a", NOW_US).score == 100


def test_what_has_left_the_window_is_found_by_time(store: Store) -> None:
    """Readers reckon out a few seconds of events, every time: they are not looked for service by service."""
    if not store.database.sqlite:
        pytest.skip("a plan of SQLite")
    text = str(rolling._STRETCH.compile(dialect=sqlite.dialect()))
    with store.database.reading() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (0,) * text.count("?"))]
    assert plan[0].startswith("SEARCH events USING INDEX events_occurred "), plan
