"""Whose turn it is: cursors, postponed events, caps, and rows that nobody needs any more."""

import logging

import pytest

from forwarder.contracts import Done, Later, Refused
from forwarder.errors import Overloaded
from forwarder.outbox import SinkInfo, backlog, dead_letters
from forwarder.outbox.backlog import MAX_POSTPONED_S


def sink_of(bench, name):
    return next(sink for sink in bench.outbox.ledger().sinks if sink.name == name)


def fill(bench, events: int, start: int = 1) -> None:
    bench.commit(*(bench.event(number) for number in range(start, start + events)))


def test_due_events_come_in_order_and_stay_due_until_answered(bench) -> None:
    """A sink that took events and died before answering is offered them again."""
    bench.open(SinkInfo("backend"))
    fill(bench, 5)
    assert bench.due("backend", 3) == bench.due("backend", 3) == ["event 1", "event 2", "event 3"]
    bench.answer("backend", Done(), 3)
    assert bench.due("backend") == ["event 4", "event 5"]


def test_one_sink_does_not_wait_for_another(bench) -> None:
    """Each sink has its own cursor; rows stay until the last one is past them, then they go."""
    bench.open(SinkInfo("backend"), SinkInfo("slack"))
    fill(bench, 4)
    assert bench.answer("backend", Done()) == 4
    assert len(bench.due("slack")) == 4
    assert bench.sql("SELECT count(*) FROM events") == [(4,)]
    bench.answer("slack", Done())
    assert bench.sql("SELECT count(*) FROM events") == [(0,)]
    assert bench.balanced()


def test_a_postponed_event_lets_the_others_pass(bench, clock) -> None:
    """Later concerns one event; it comes back when its time has come."""
    outbox = bench.open(SinkInfo("backend"))
    fill(bench, 3)
    (first, *_), *rest = outbox.due("backend", 10)
    bench.settle("backend", [(first, Later(30.0)), *((seq, Done()) for seq, *_ in rest)])
    assert bench.due("backend") == []
    clock.now += 29
    assert bench.due("backend") == []
    clock.now += 1
    assert bench.due("backend") == ["event 1"]
    assert sink_of(bench, "backend").waiting == 1
    bench.answer("backend", Done())
    assert sink_of(bench, "backend").delivered == 3
    assert bench.sql("SELECT count(*) FROM outcomes") == [(0,)]
    assert bench.balanced()


def test_a_restart_offers_again_what_was_put_off(bench) -> None:
    """The operator may have restarted because the cause is mended; how often it was tried is still known."""
    bench.open(SinkInfo("backend"))
    fill(bench, 2)
    bench.answer("backend", Later(60.0))
    bench.open(SinkInfo("backend"))
    assert bench.due("backend") == ["event 1", "event 2"]
    assert bench.sql("SELECT attempts FROM outcomes") == [(1,), (1,)]
    assert bench.balanced()


def test_a_clock_that_was_set_back_does_not_postpone_for_years(bench, clock) -> None:
    """A due time further away than any sink may ask for is no due time."""
    bench.open(SinkInfo("backend"))
    fill(bench, 1)
    bench.answer("backend", Later(60.0))
    clock.now -= 365 * 86_400
    assert bench.due("backend") == ["event 1"]


def test_no_sink_postpones_for_longer_than_the_bound(bench, clock) -> None:
    """A sink that says "in a year" is asked again after an hour."""
    bench.open(SinkInfo("backend"))
    fill(bench, 1)
    bench.answer("backend", Later(1e9))
    clock.now += MAX_POSTPONED_S
    assert bench.due("backend") == ["event 1"]


def test_a_refused_event_is_a_dead_letter_and_refuses_no_neighbour(bench) -> None:
    """It keeps the sink's words, without control characters, and the event."""
    outbox = bench.open(SinkInfo("backend"))
    fill(bench, 3)
    seqs = [seq for seq, *_ in outbox.due("backend", 10)]
    bench.settle("backend", [(seqs[0], Done()), (seqs[1], Refused("bad \x1b[31mentity\n")), (seqs[2], Done())])
    (kept,) = dead_letters(bench.path)
    assert (kept.kind, kept.name, kept.reason) == ("delivery", "backend", "bad  [31mentity ")
    assert kept.event_id == bench.event(2).id
    assert b"event 2" in (kept.payload or b"")
    assert sink_of(bench, "backend").dead == 1
    assert bench.balanced()


def test_updates_are_only_for_sinks_that_take_them(bench) -> None:
    """For the others an update is not even eligible, and their cursor passes it."""
    bench.open(SinkInfo("backend"), SinkInfo("slack", takes_updates=False))
    bench.commit(bench.event(1))
    bench.commit(bench.event(1, revision=1))
    assert [(update, event.revision) for _, update, event, _ in bench.outbox.due("backend", 9)] == [
        (False, 0),
        (True, 1),
    ]
    assert [(update, event.revision) for _, update, event, _ in bench.outbox.due("slack", 9)] == [(False, 0)]
    bench.answer("slack", Done())
    bench.answer("backend", Done())
    assert sink_of(bench, "slack").eligible == 1
    assert sink_of(bench, "backend").eligible == 2
    assert bench.sql("SELECT count(*) FROM events") == [(0,)]
    assert bench.balanced()


def test_a_required_sink_at_its_cap_makes_senders_wait(bench) -> None:
    """Nothing of the refused batch is kept, and it is accepted once the sink has taken some."""
    bench.open(SinkInfo("backend", required=True, max_waiting_events=3))
    fill(bench, 3)
    with pytest.raises(Overloaded) as caught:
        bench.commit(bench.event(9))
    assert caught.value.reason == "sink_backlog"
    assert bench.outbox.ledger().detected == 3
    bench.answer("backend", Done(), 1)
    assert bench.commit(bench.event(9)).new == 1
    assert bench.balanced()


def test_dead_letters_do_not_wait_for_a_sink(bench, record) -> None:
    """A batch without events adds nothing to a backlog, so a full one does not refuse it."""
    bench.open(SinkInfo("backend", required=True, max_waiting_events=1))
    fill(bench, 1)
    bench.commit(dead=[record()])
    assert len(dead_letters(bench.path)) == 1


def test_another_sink_at_its_cap_loses_its_oldest_to_the_dead_letters(bench, caplog) -> None:
    """The newest stay, the loss is counted and logged as an error, and no other sink notices."""
    bench.open(SinkInfo("backend"), SinkInfo("slack", max_waiting_events=2))
    with caplog.at_level(logging.ERROR):
        fill(bench, 5)
    assert bench.due("slack") == ["event 4", "event 5"]
    assert len(bench.due("backend")) == 5
    assert [letter.reason for letter in dead_letters(bench.path)] == ["backlog_full"] * 3
    assert sink_of(bench, "slack").dead == 3
    assert "slack" in caplog.text
    assert bench.balanced()


def test_an_event_pushed_out_in_flight_that_arrives_is_no_dead_letter(bench) -> None:
    """Done for an event that the cap had given up takes the dead letter back; the ledger still balances."""
    outbox = bench.open(SinkInfo("slack", max_waiting_events=2))
    fill(bench, 2)
    in_flight = outbox.due("slack", 10)
    fill(bench, 2, start=3)
    assert len(dead_letters(bench.path)) == 2
    bench.settle("slack", [(seq, Done()) for seq, *_ in in_flight])
    assert dead_letters(bench.path) == []
    assert (sink_of(bench, "slack").delivered, sink_of(bench, "slack").dead) == (2, 0)
    assert bench.balanced()


def test_an_answer_that_comes_twice_counts_once(bench) -> None:
    """The second answer about an event changes nothing."""
    outbox = bench.open(SinkInfo("backend"))
    fill(bench, 2)
    answers = [(seq, Done()) for seq, *_ in outbox.due("backend", 10)]
    bench.settle("backend", answers[1:])
    bench.settle("backend", answers)
    bench.settle("backend", answers)
    assert sink_of(bench, "backend").delivered == 2
    assert bench.balanced()


def test_a_new_sink_starts_at_the_present_end(bench) -> None:
    """A sink that is added does not get the past."""
    bench.open(SinkInfo("backend"))
    fill(bench, 2)
    bench.open(SinkInfo("backend"), SinkInfo("slack"))
    assert bench.due("slack") == []
    fill(bench, 1, start=3)
    assert bench.due("slack") == ["event 3"]
    assert len(bench.due("backend")) == 3
    assert bench.balanced()


def test_what_waited_for_a_removed_sink_becomes_dead_letters(bench, caplog) -> None:
    """Nothing waits for ever for a sink nobody configures; the loss is an error, and the rows can go."""
    bench.open(SinkInfo("backend"), SinkInfo("slack"))
    fill(bench, 3)
    bench.answer("slack", Done(), 1)
    bench.answer("backend", Done())
    with caplog.at_level(logging.ERROR):
        bench.open(SinkInfo("backend"))
    assert {letter.reason for letter in dead_letters(bench.path)} == {"sink_removed"}
    gone = sink_of(bench, "slack")
    assert (gone.active, gone.eligible, gone.delivered, gone.waiting, gone.dead) == (False, 3, 1, 0, 2)
    assert "slack" in caplog.text
    fill(bench, 1, start=9)
    assert bench.sql("SELECT count(*) FROM events") == [(1,)]
    assert bench.balanced()


def test_a_sink_that_returns_goes_on_counting(bench) -> None:
    """Removed and configured again, it starts at the end and keeps its sums."""
    bench.open(SinkInfo("backend"), SinkInfo("slack"))
    fill(bench, 2)
    bench.open(SinkInfo("backend"))
    bench.open(SinkInfo("backend"), SinkInfo("slack"))
    fill(bench, 1, start=3)
    assert bench.due("slack") == ["event 3"]
    assert sink_of(bench, "slack").eligible == 3
    assert bench.balanced()


@pytest.mark.parametrize(("before", "after", "waiting"), [(True, False, 1), (False, True, 2)])
def test_a_sink_may_change_its_mind_about_updates(bench, before, after, waiting) -> None:
    """What waits is counted anew; the ledger balances before and after."""
    bench.open(SinkInfo("x", takes_updates=before))
    bench.commit(bench.event(1))
    bench.commit(bench.event(1, revision=1))
    bench.open(SinkInfo("x", takes_updates=after))
    assert len(bench.due("x")) == waiting == sink_of(bench, "x").waiting
    assert bench.balanced()


def test_a_full_look_ahead_waits_for_its_head(bench, monkeypatch) -> None:
    """Outcomes beyond the cursor are bounded: far behind a postponed event nothing is offered until it is settled."""
    monkeypatch.setattr("forwarder.outbox.backlog.LOOKAHEAD_EVENTS", 4)
    outbox = bench.open(SinkInfo("backend"))
    fill(bench, 10)
    (head, *_), *rest = outbox.due("backend", 10)
    assert len(rest) == 3
    bench.settle("backend", [(head, Later(60.0)), *((seq, Done()) for seq, *_ in rest)])
    assert bench.due("backend") == []
    assert bench.balanced()


def test_an_event_that_all_others_overtake_becomes_a_dead_letter(bench, clock, monkeypatch) -> None:
    """An event on which its sink fails every time, and only on it, must not hold up the rest for ever."""
    monkeypatch.setattr("forwarder.outbox.backlog.LOOKAHEAD_EVENTS", 4)
    outbox = bench.open(SinkInfo("backend"))
    fill(bench, 10)
    for _ in range(10):
        head, *rest = [seq for seq, *_ in outbox.due("backend", 10)]
        bench.settle("backend", [(head, Later(1.0)), *((seq, Done()) for seq in rest)])
        clock.now += 1
    (kept,) = dead_letters(bench.path)
    assert "event 1" in (kept.payload or b"").decode()
    assert "event 5" in bench.due("backend")[0]
    assert bench.balanced()


def test_a_sink_that_is_down_makes_no_dead_letters(bench, clock, monkeypatch) -> None:
    """When nothing gets through, no event is the culprit, however often each was tried."""
    monkeypatch.setattr("forwarder.outbox.backlog.LOOKAHEAD_EVENTS", 4)
    bench.open(SinkInfo("backend"))
    fill(bench, 10)
    for _ in range(30):
        assert bench.answer("backend", Later(1.0)) == 4
        clock.now += 1
    assert dead_letters(bench.path) == []
    assert bench.balanced()


def test_a_stored_event_that_cannot_be_read_is_a_dead_letter(bench) -> None:
    """One damaged row does not stop its sink."""
    bench.open(SinkInfo("backend"))
    fill(bench, 2)
    bench.sql("UPDATE events SET payload = ? WHERE seq = 1", b"{broken")
    assert bench.due("backend") == ["event 2"]
    bench.answer("backend", Done())
    assert [letter.reason for letter in dead_letters(bench.path)] == ["the stored event cannot be read"]
    assert bench.balanced()


def test_held_events_count_no_tries_and_leave_more_room_behind_them(bench, monkeypatch) -> None:
    """A night of quiet makes no dead letters, and what comes after it is looked at all the same."""
    monkeypatch.setattr(backlog, "LOOKAHEAD_EVENTS", 2)
    monkeypatch.setattr(backlog, "HOLDING_LOOKAHEAD_EVENTS", 6)
    monkeypatch.setattr(backlog, "OVERTAKEN_ATTEMPTS", 2)
    outbox = bench.open(SinkInfo("slack", holds=True))
    bench.commit(*(bench.event(number) for number in range(1, 6)))
    for _ in range(4):
        assert bench.due("slack", 1) == ["event 1"]
        bench.answer("slack", Later(600.0, held=True), 1)
        bench.clock.now += 601
    bench.answer("slack", Later(600.0, held=True), 1)
    assert bench.due("slack") == ["event 2", "event 3", "event 4", "event 5"]
    bench.answer("slack", Done())
    assert sink_of(bench, "slack").waiting == 1
    assert outbox.ledger().dead_letters == 0
    assert bench.balanced()


def test_a_sinks_memory_lives_and_dies_with_it(bench) -> None:
    """Stored with its answers, there after a restart, gone when the sink is no longer configured."""
    outbox = bench.open(SinkInfo("slack"), SinkInfo("other"))
    bench.commit(bench.event(1))
    seq = outbox.due("slack", 1)[0][0]
    outbox.settle("slack", [(seq, Done())], b"remembered").result(20)
    assert (outbox.memory("slack"), outbox.memory("other")) == (b"remembered", b"")
    assert bench.open(SinkInfo("slack"), SinkInfo("other")).memory("slack") == b"remembered"
    bench.open(SinkInfo("other"))
    assert bench.open(SinkInfo("slack"), SinkInfo("other")).memory("slack") == b""


def test_an_outbox_of_before_sinks_had_a_memory_gets_one(bench) -> None:
    """It is a table that may be missing, not another format."""
    bench.open(SinkInfo("slack"))
    bench.close()
    bench.sql("DROP TABLE sink_memory")
    assert bench.open(SinkInfo("slack")).memory("slack") == b""
