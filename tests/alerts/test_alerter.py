"""One sink's alerter: one message a call, its outcome for all it was about, and what is remembered."""

import pytest

from forwarder.alerts.alerter import Alerter, AlertSettings
from forwarder.contracts import Done, Later, Refused
from forwarder.errors import ConfigError


class Wire:
    """Answers with what it is told; Done otherwise."""

    def __init__(self) -> None:
        self.notes = []
        self.answers = []

    def __call__(self, note):
        self.notes.append(note)
        return self.answers.pop(0) if self.answers else Done()


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_one_message_a_call_and_the_rest_stays_due(event, clock, wire) -> None:
    """So that a kill doubles one message at most: its answer is stored before the next is sent."""
    alerter = Alerter("slack", AlertSettings(), wire, clock=clock)
    assert alerter.deliver([event(1), event(2, actor="joe")]) == [Done(), Later(0.0, held=True)]
    assert len(wire.notes) == 1


def test_memory_is_all_that_a_restart_needs(event, clock, wire) -> None:
    """A new process with the old memory holds the repeat."""
    first = Alerter("slack", AlertSettings(), wire, clock=clock)
    first.deliver([event(1)])
    second = Alerter("slack", AlertSettings(), wire, clock=clock)
    second.memory = first.memory
    assert second.deliver([event(2)]) == [Later(300.0, held=True)]


def test_a_failure_puts_off_all_and_is_not_remembered_as_sent(event, clock, wire) -> None:
    """The service is left alone for as long as it asked; then the other group has its turn first."""
    alerter = Alerter("slack", AlertSettings(), wire, clock=clock)
    events = [event(1), event(2, actor="joe", severity="low")]
    wire.answers = [Later(30.0, "down")]
    assert alerter.deliver(events) == [Later(30.0, "down"), Later(0.0, held=True)]
    assert alerter.memory == b""
    clock.now += 10
    assert alerter.deliver(events) == [Later(20.0, "down")] * 2
    clock.now += 20
    assert alerter.deliver(events) == [Later(0.0, held=True), Done()]
    assert "joe" in wire.notes[-1].title


def test_a_refused_message_is_refused_for_all_it_was_about_and_counts(event, clock, wire) -> None:
    """A service that refuses everything is not hailed with messages."""
    alerter = Alerter("slack", AlertSettings(max_per_minute=1), wire, clock=clock)
    wire.answers = [Refused("no")]
    assert alerter.deliver([event(1), event(2)]) == [Refused("no")] * 2
    assert alerter.deliver([event(3, actor="joe")]) == [Later(60.0, held=True)]


def test_filters_come_first(event, clock, wire) -> None:
    """See test_filters.py."""
    alerter = Alerter("slack", AlertSettings(minimum_severity="high"), wire, clock=clock)
    assert alerter.wants(event(1), clock.now)
    assert not alerter.wants(event(1, severity="low"), clock.now)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"group_window_s": -1}, "`group_window_s` must be between"),
        ({"max_per_minute": 0}, "`max_per_minute` must be between 1 and 60"),
        ({"dashboard_url": "javascript:alert(1)"}, "must begin with http:// or https://"),
        ({"quiet_hours": "night"}, "is no span of hours"),
        ({"max_age_s": -5}, "`max_age_s` must not be below 0"),
    ],
)
def test_settings_that_cannot_be_meant(settings, words, wire) -> None:
    """Refused by name before anything runs."""
    with pytest.raises(ConfigError, match=words):
        Alerter("slack", AlertSettings(**settings), wire)
