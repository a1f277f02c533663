"""Marks: what they cover, what they hide, when they end; never silent, always to be undone."""

from collections.abc import Callable
from typing import Any

import pytest

from forwarder.backend.intake import NewEvent, format_timestamp
from forwarder.backend.store import Store
from forwarder.backend.store.triage import FOREVER_US, CoversNothing
from forwarder.backend.store.views import DAY_US, HOUR_US

MakeEvent = Callable[..., NewEvent]

NOW_US = 1_780_000_000_000_000
REF = "component:shop/payments-api"


def expect(store: Store, **fields: Any) -> Any:
    pattern = {"actor": "", "rule": "", "entity_ref": "", "author": "me", "reason": "drill", "now_us": NOW_US}
    return store.triage.expect_pattern(**{**pattern, "until_us": FOREVER_US, **fields})


def count(store: Store, now_us: int = NOW_US) -> int:
    return store.scores.friction(REF, now_us).bypass_count


def test_a_pattern_covers_what_is_there_and_what_comes(store: Store, event: MakeEvent) -> None:
    """Until its date, and nobody else's events."""
    store.record([event(id="a", actor="jane"), event(id="b", actor="joe")], NOW_US)
    mark = expect(store, actor="jane", rule="kubectl-exec", entity_ref=REF, until_us=NOW_US + HOUR_US)
    store.record([event(id="c", actor="jane"), event(id="d", actor="jane", type="config-drift")], NOW_US)
    late = [event(id="e", actor="jane", timestamp=format_timestamp(NOW_US + 2 * HOUR_US))]
    store.record(late, NOW_US + 3 * HOUR_US)
    assert count(store, NOW_US + 3 * HOUR_US) == 3
    found = store.triage.find(mark.id)
    assert (found.hidden, found.author, found.reason, found.ended_us) == (2, "me", "drill", 0)


def test_undo(store: Store, event: MakeEvent) -> None:
    """Everything counts again, the mark stays in the list with who ended it, and ends only once."""
    store.record([event(actor="jane") for _ in range(5)], NOW_US)
    mark = expect(store, actor="jane")
    assert count(store) == 0
    ended = store.triage.undo(mark.id, author="boss", now_us=NOW_US + 1)
    assert (ended.hidden, ended.ended_by, ended.ended_how, ended.ended_us) == (0, "boss", "undone", NOW_US + 1)
    assert count(store) == 5
    assert store.triage.undo(mark.id, author="boss", now_us=NOW_US) is None
    assert store.triage.undo(99, author="boss", now_us=NOW_US) is None
    assert (store.triage.marks(), store.triage.marks("ended")) == ([], [ended])


def test_two_marks_on_one_event(store: Store, event: MakeEvent) -> None:
    """When one of them ends, the other still covers it."""
    store.record([event(actor="jane")], NOW_US)
    first, second = expect(store, actor="jane"), expect(store, rule="kubectl-exec")
    assert (first.hidden, second.hidden) == (1, 0)
    store.triage.undo(first.id, author="me", now_us=NOW_US)
    assert count(store) == 0
    assert store.triage.find(second.id).hidden == 1


def test_single_events(store: Store, event: MakeEvent) -> None:
    """Marked one by one; a mark lapses at its date, and the event counts again."""
    store.record([event(id="a"), event(id="b"), event(id="t", test=True)], NOW_US)
    made = store.triage.expect_events(
        ["a", "t", "nothing", "a"], author="me", reason="r", now_us=NOW_US, until_us=NOW_US + DAY_US
    )
    assert [(mark.event_id, mark.hidden, mark.entity_ref) for mark in made.marks] == [("a", 1, REF)]
    assert (made.unknown, made.already_marked, made.tests) == (["nothing"], [], ["t"])
    again = store.triage.expect_events(["a"], author="me", reason="r", now_us=NOW_US)
    assert (again.marks, again.unknown, again.already_marked) == ([], [], ["a"])
    assert count(store) == 1
    store.maintain(NOW_US + DAY_US)
    assert count(store, NOW_US + DAY_US) == 2
    assert [mark.ended_how for mark in store.triage.marks("ended")] == ["lapsed"]


def test_a_pattern_whose_date_has_passed(store: Store, event: MakeEvent) -> None:
    """It covers what happened before, also what arrives late; one that covers nothing is refused and leaves no trace."""
    store.record([event(id="a", actor="jane", timestamp=format_timestamp(NOW_US - 2 * HOUR_US)), event(id="b")], NOW_US)
    with pytest.raises(CoversNothing):
        expect(store, actor="joe", until_us=NOW_US)
    with pytest.raises(CoversNothing):
        expect(store, actor="jane", until_us=NOW_US - 3 * HOUR_US)
    assert store.triage.marks("all") == []
    mark = expect(store, actor="jane", until_us=NOW_US - HOUR_US)
    store.record([event(id="c", actor="jane", timestamp=format_timestamp(NOW_US - 90 * 60_000_000))], NOW_US)
    store.record([event(id="d", actor="jane")], NOW_US)
    assert (store.triage.find(mark.id).hidden, count(store)) == (2, 2)
    assert expect(store, actor="joe", until_us=NOW_US + 1).hidden == 0


def test_marks_lapse_with_what_they_cover(store: Store, event: MakeEvent) -> None:
    """When the retention has taken it, nothing is in force for it any more; until then the mark stays, even with nothing."""
    store.record([event(id="a"), event(id="b", actor="jane")], NOW_US)
    store.triage.expect_events(["a"], author="me", reason="r", now_us=NOW_US)
    expect(store, actor="jane", until_us=NOW_US + HOUR_US)
    expect(store, actor="joe", until_us=NOW_US + HOUR_US)
    store.maintain(NOW_US + 30 * DAY_US)
    assert len(store.triage.marks()) == 3
    store.maintain(NOW_US + 30 * DAY_US + 1)
    assert [mark.actor for mark in store.triage.marks()] == ["joe", "jane"]
    store.maintain(NOW_US + 30 * DAY_US + HOUR_US)
    assert {(mark.hidden, mark.ended_how) for mark in store.triage.marks("ended")} == {(0, "lapsed")}
    assert store.triage.marks() == []


def test_an_update_keeps_its_mark(store: Store, event: MakeEvent) -> None:
    """A session that was marked while open stays marked when it ends."""
    store.record([event(id="a", stage="ResponseStarted")], NOW_US)
    store.triage.expect_events(["a"], author="me", reason="r", now_us=NOW_US)
    store.record([event(id="a", revision=1, stage="ResponseComplete")], NOW_US)
    assert count(store) == 0


def test_suppressed(store: Store, event: MakeEvent) -> None:
    """What is in force is asked for single events before anybody is told of them."""
    jane, joe = event(actor="jane"), event(actor="joe")
    assert not store.suppressed(jane)
    mark = expect(store, actor="jane")
    assert store.suppressed(jane)
    assert not store.suppressed(joe)
    store.triage.undo(mark.id, author="me", now_us=NOW_US)
    assert not store.suppressed(jane)


def test_a_mark_names_something(store: Store) -> None:
    """Everything at once is nothing that one can expect."""
    with pytest.raises(ValueError, match="names an actor"):
        expect(store)


def test_lists(store: Store) -> None:
    """Newest first, by what they are about; what is about anything is about it too."""
    jane, rule, both = (
        expect(store, **fields) for fields in ({"actor": "jane"}, {"rule": "x"}, {"actor": "joe", "rule": "x"})
    )
    assert [mark.id for mark in store.triage.marks(actor="jane")] == [rule.id, jane.id]
    assert [mark.id for mark in store.triage.marks(before=both.id)] == [rule.id, jane.id]
    assert [mark.id for mark in store.triage.marks(limit=1)] == [both.id]
