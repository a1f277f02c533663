"""Which message is next: groups, windows, rate and quiet hours, without sending anything."""

from forwarder.alerts import planner
from forwarder.alerts.planner import MAX_WINDOWS, Policy, State, decode, encode, plan, sent
from forwarder.alerts.quiet import parse_quiet_hours
from forwarder.contracts import Done, Later

POLICY = Policy(window_s=300.0, max_per_minute=10)
HOUR_S = 3600.0


def run(events, state, policy, clock, *, calls: int = 100):
    """Plan and send until nothing more may go out; the messages as (reason, [(again, events)…]), and what is held."""
    messages, left = [], list(events)
    for _ in range(calls):
        planned = plan(left, state, policy, clock.now)
        if planned.message is None:
            return messages, left, planned.outcomes
        messages.append(
            (planned.message.reason, [(group.again, len(group.events)) for group in planned.message.groups])
        )
        sent(state, planned.message, policy, clock.now)
        left = [item for place, item in enumerate(left) if place not in planned.carried]
    raise AssertionError("it does not end")


def test_the_first_goes_out_at_once_and_repeats_wait_for_the_end_of_the_window(event, clock) -> None:
    """Then as one message with their number, which opens the next window."""
    state = State()
    messages, left, _ = run([event(1)], state, POLICY, clock)
    assert messages == [("", [(False, 1)])]
    clock.now += 10
    messages, left, outcomes = run([event(2), event(3)], state, POLICY, clock)
    assert (messages, outcomes) == ([], [Later(290.0, held=True)] * 2)
    clock.now += 290
    messages, left, _ = run([*left, event(4)], state, POLICY, clock)
    assert (messages, left) == ([("", [(True, 3)])], [])
    clock.now += 1
    assert run([event(5)], state, POLICY, clock)[0] == []


def test_long_after_its_window_the_same_is_news_again(event, clock) -> None:
    """Nobody remembers this morning's message as the one that is repeated."""
    state = State()
    run([event(1)], state, POLICY, clock)
    clock.now += 2 * HOUR_S
    run([event(2, actor="joe")], state, POLICY, clock)
    assert run([event(3)], state, POLICY, clock)[0] == [("", [(False, 1)])]


def test_other_people_services_rules_clusters_and_outcomes_are_other_groups(event, clock) -> None:
    """Each of them is news."""
    events = [event(1), event(2, actor="joe"), event(3, type="secret-read"), event(4, entity_ref="component:shop/pay"),
              event(5, cluster="b"), event(6, outcome="denied")]  # fmt: skip
    messages, left, _ = run(events, State(), POLICY, clock)
    assert len(messages) == 6
    assert left == []


def test_without_a_window_each_event_is_a_message(event, clock) -> None:
    """Who wants them all gets them all."""
    policy = Policy(window_s=0.0, max_per_minute=10)
    assert run([event(1), event(2)], State(), policy, clock)[0] == [("", [(False, 1)]), ("", [(False, 1)])]


def test_never_more_than_so_many_a_minute_and_the_last_one_stands_for_the_rest(event, clock) -> None:
    """500 groups in one minute: nine messages and one about 491; the next minute begins anew."""
    state = State()
    events = [event(number, actor=f"user-{number}") for number in range(500)]
    messages, left, _ = run(events, state, POLICY, clock)
    assert [len(groups) for _, groups in messages] == [1] * 9 + [491]
    assert [reason for reason, _ in messages] == [""] * 9 + ["rate"]
    assert left == []
    clock.now += 20
    messages, left, outcomes = run([event(1000), event(1001, actor="joe")], state, POLICY, clock)
    assert (messages, outcomes) == ([], [Later(40.0, held=True)] * 2)
    clock.now += 40
    assert len(run(left, state, POLICY, clock)[0]) == 2


def test_a_storm_that_goes_on_is_told_at_the_pace_of_the_limit(event, clock) -> None:
    """In any 60 seconds at most as many as allowed, whatever comes, and no event is left out."""
    policy = Policy(window_s=300.0, max_per_minute=3)
    state, times, carried, left = State(), [], 0, []
    for step in range(300):
        left += [event(step * 10 + number, actor=f"u{step}-{number}") for number in range(10)]
        messages, left, _ = run(left, state, policy, clock)
        times += [clock.now] * len(messages)
        carried += sum(count for _, groups in messages for _, count in groups)
        clock.now += 1
    assert all(sum(start <= moment < start + 60 for moment in times) <= 3 for start in times)
    assert carried + len(left) == 3000
    assert len(times) >= 14


def test_the_gravest_goes_first(event, clock) -> None:
    """And the older of two that are as grave."""
    events = [event(1, severity="low"), event(2, severity="high", actor="b"), event(3, severity="high", actor="a")]
    state, order = State(), []
    for _ in range(3):
        planned = plan(events, state, POLICY, clock.now)
        order.append(planned.message.groups[0].events[0].id)
        sent(state, planned.message, POLICY, clock.now)
        events = [item for place, item in enumerate(events) if place not in planned.carried]
    assert [int(one[-2:]) for one in order] == [2, 3, 1]


def test_a_message_that_failed_lets_the_others_pass(event, clock) -> None:
    """It may be the only one that the service does not like."""
    events = [event(1), event(2, actor="joe", severity="low")]
    first = plan(events, State(), POLICY, clock.now)
    assert first.carried == (0,)
    assert plan(events, State(), POLICY, clock.now, last=first.message.groups[0].key).carried == (1,)


def night(**fields) -> Policy:
    quiet = parse_quiet_hours("22:00-07:00", [], "UTC", where="s")
    return Policy(**({"window_s": 300.0, "max_per_minute": 10, "quiet": quiet} | fields))


def test_the_night_is_quiet_but_for_the_gravest_and_ends_with_one_message(event, clock) -> None:
    """What was held is told at its end, in one message that says so."""
    clock.now += 11 * HOUR_S  # 23:00
    state = State()
    events = [
        event(1, severity="medium"),
        event(2, severity="low", actor="joe"),
        event(3, severity="high", actor="eve"),
    ]
    messages, left, outcomes = run(events, state, night(), clock)
    assert messages == [("", [(False, 1)])]
    assert outcomes == [Later(8 * HOUR_S, held=True)] * 2
    clock.now += 8 * HOUR_S
    state = decode(encode(state))  # a restart in between
    messages, left, _ = run([*left, event(4, actor="ann")], state, night(), clock)
    assert messages == [("quiet", [(False, 1)] * 3)]
    assert left == []
    assert run([event(5, severity="low", actor="new")], state, night(), clock)[0] == [("", [(False, 1)])]


def test_a_test_event_comes_through_at_night(event, clock) -> None:
    """Whoever sends one sits and waits for it."""
    clock.now += 11 * HOUR_S
    assert run([event(1, severity="low", test=True)], State(), night(), clock)[0] == [("", [(False, 1)])]


def test_what_is_remembered_survives_a_restart_and_nothing_else_is_needed(event, clock) -> None:
    """Windows and messages of the last minute, in a few bytes; a clock that is set back unlocks all."""
    state = State()
    run([event(number, actor=f"u{number}") for number in range(30)], state, POLICY, clock)
    again = decode(encode(state))
    assert run([event(99)], again, POLICY, clock)[0] == []
    clock.now -= 30 * 24 * HOUR_S
    assert len(run([event(99, actor="u0")], again, POLICY, clock)[0]) == 1
    assert decode(b"") == State()
    assert decode(b"\x00 not ours") == State()
    assert encode(State()) == b""


def test_windows_are_bounded(event, clock, monkeypatch) -> None:
    """The ones that end first are forgotten."""
    monkeypatch.setattr(planner, "MAX_WINDOWS", 5)
    state = State()
    for number in range(20):
        run([event(number, actor=f"u{number}")], state, POLICY, clock)
        clock.now += 7
    assert len(state.windows) == 5
    assert MAX_WINDOWS > 16 * 60 * 5


def test_nothing_of_it_settles_an_event(event, clock) -> None:
    """A plan alone says only for how long; Done comes from the wire."""
    planned = plan([event(1)], State(), POLICY, clock.now)
    assert planned.outcomes == [Later(0.0, held=True)]
    assert not any(isinstance(outcome, Done) for outcome in planned.outcomes)
