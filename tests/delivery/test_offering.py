"""What a sink's answers lead to: a pause, a word in the log, a count. Delivery's and Stream's own tests use it further."""

from collections.abc import Sequence

import pytest

from forwarder.contracts import Done, Later, Outcome
from forwarder.delivery.offering import BATCH_EVENTS, BROKEN_DELAYS_S, MIN_PAUSE_S, Offering
from forwarder.telemetry import Telemetry


class Sink:
    name = "slow"

    def __init__(self, *answers: Sequence[Outcome] | Exception) -> None:
        self.answers = list(answers)

    def deliver(self, events: Sequence[str]) -> Sequence[Outcome]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_sink_that_raises_is_offered_the_same_again_ever_later() -> None:
    """And is not left alone after it worked once."""
    offering: Offering[str] = Offering(
        Sink(ValueError("x"), ValueError("x"), [Done()], ValueError("x")), Telemetry(), "here"
    )
    delays = [
        [outcome]
        for outcome in (Later(BROKEN_DELAYS_S[0]), Later(BROKEN_DELAYS_S[1]), Done(), Later(BROKEN_DELAYS_S[0]))
    ]
    assert [list(offering.offer(["e"])) for _ in range(4)] == delays


def test_too_few_answers_are_a_bug_of_the_sink(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could say which event they are about."""
    offering: Offering[str] = Offering(Sink([Done()]), Telemetry(), "here")
    assert list(offering.offer(["a", "b"])) == [Later(BROKEN_DELAYS_S[0])] * 2
    assert "which is a bug" in caplog.text


def test_a_sink_is_left_alone_after_it_put_off_two_batches_whole() -> None:
    """One may be about its events; and `later` that means `now` still is a pause."""
    telemetry = Telemetry()
    offering: Offering[str] = Offering(Sink(), telemetry, "here")
    assert offering.pause_s([Later(7.0), Later(3.0)]) == 0.0
    assert offering.pause_s([Later(7.0), Later(3.0)]) == 3.0
    assert offering.pause_s([Later(0.0)]) == MIN_PAUSE_S
    assert offering.pause_s([Done(), Later(9.0)]) == 0.0
    assert offering.pause_s([Later(9.0)]) == 0.0


def test_trouble_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    """With the sink's own words, made harmless for a terminal, and every retry counted."""
    telemetry = Telemetry()
    caplog.set_level("INFO")
    offering: Offering[str] = Offering(
        Sink([Later(1, "no\x1b[2Jroom")], [Later(1, "no room")], [Done()], [Done()]), telemetry, "in memory"
    )
    for _ in range(4):
        offering.offer(["e"])
    assert [record.message for record in caplog.records] == [
        "the sink slow puts events off: no [2Jroom; they wait in memory",
        "the sink slow takes events again",
    ]
    assert telemetry.value("forwarder_sink_retries", sink="slow") == 2
    assert offering.batch_events == BATCH_EVENTS
