"""Dead letters from outside, beside the service and while it is down."""

import pytest

from forwarder.contracts import Done, Refused
from forwarder.errors import ConfigError
from forwarder.outbox import (
    RetryResult,
    SinkInfo,
    dead_letter,
    dead_letters,
    forget_dead,
    read_ledger,
    retry_dead,
)

BACKEND, SLACK = SinkInfo("backend"), SinkInfo("slack")


def refuse(bench, *sinks: str, events: int = 2) -> None:
    bench.commit(*(bench.event(number) for number in range(1, events + 1)))
    for sink in sinks:
        bench.answer(sink, Refused("no"))


@pytest.mark.parametrize("running", [True, False], ids=["beside-the-service", "while-it-is-down"])
def test_a_retried_delivery_is_due_again_for_its_sink_alone(bench, running) -> None:
    """Its rows were trimmed long ago; the other sink, which took the event, does not see it again."""
    bench.open(BACKEND, SLACK)
    refuse(bench, "slack")
    bench.answer("backend", Done())
    assert bench.sql("SELECT count(*) FROM events") == [(0,)]
    if not running:
        bench.close()
    assert retry_dead(bench.path) == RetryResult(put_back=2)
    if not running:
        bench.open(BACKEND, SLACK)
    assert bench.due("slack") == ["event 1", "event 2"]
    assert bench.due("backend") == []
    assert dead_letters(bench.path) == []
    assert bench.balanced()
    bench.answer("slack", Done())
    slack = bench.outbox.ledger().sinks[1]
    assert (slack.eligible, slack.delivered, slack.waiting, slack.dead) == (2, 2, 0, 0)


def test_some_can_be_chosen(bench) -> None:
    """By number, and by sink."""
    bench.open(BACKEND, SLACK)
    refuse(bench, "backend", "slack")
    newest = dead_letters(bench.path)[0]
    assert retry_dead(bench.path, [newest.id]) == RetryResult(put_back=1)
    assert retry_dead(bench.path, [newest.id]) == RetryResult()
    assert retry_dead(bench.path, sink="backend") == RetryResult(put_back=2)
    assert [letter.name for letter in dead_letters(bench.path)] == ["slack"]
    assert bench.balanced()


def test_an_update_stays_an_update(bench) -> None:
    """A sink that takes none must still be able to tell after a retry."""
    bench.open(BACKEND)
    bench.commit(bench.event(1))
    bench.answer("backend", Done())
    bench.commit(bench.event(1, revision=1))
    bench.answer("backend", Refused("no"))
    retry_dead(bench.path)
    assert [(update, event.revision) for _, update, event, _ in bench.outbox.due("backend", 9)] == [(True, 1)]


def test_a_delivery_without_its_sink_stays(bench) -> None:
    """There is nobody to give it to."""
    bench.open(BACKEND, SLACK)
    refuse(bench, "slack")
    bench.open(BACKEND)
    assert retry_dead(bench.path) == RetryResult(no_sink=2)
    assert len(dead_letters(bench.path)) == 2
    assert bench.balanced()


def test_a_record_is_handed_out_and_forgotten_when_it_was_replayed(bench, record) -> None:
    """Its line has to pass detection again, so it is not retried here."""
    bench.open(BACKEND)
    bench.commit(dead=[record(payload=b'{"kind":"Event"}'), record()])
    second, first = dead_letters(bench.path)
    assert retry_dead(bench.path, [first.id]) == RetryResult(records=1)
    found = dead_letter(bench.path, first.id)
    assert found is not None
    assert found.payload == b'{"kind":"Event"}'
    assert forget_dead(bench.path, [first.id, first.id]) == 1
    assert dead_letter(bench.path, first.id) is None
    assert [letter.id for letter in dead_letters(bench.path)] == [second.id]


def test_a_forgotten_delivery_stays_counted_as_dead(bench) -> None:
    """Forgetting delivers nothing, so the ledger still says what was lost."""
    bench.open(BACKEND)
    refuse(bench, "backend")
    assert forget_dead(bench.path, [letter.id for letter in dead_letters(bench.path)]) == 2
    assert read_ledger(bench.path).sinks[0].dead == 2
    assert bench.balanced()


def test_caps_hold_after_retries_and_forgetting(bench, record, monkeypatch) -> None:
    """The sums behind the cap follow what is taken out, so that room is used again, and no more than it."""
    monkeypatch.setattr("forwarder.outbox.deadletters.MAX_DEAD_LETTERS", 4)
    outbox = bench.open(BACKEND)
    refuse(bench, "backend", events=4)
    retry_dead(bench.path, [letter.id for letter in dead_letters(bench.path)[:2]])
    bench.commit(dead=[record(), record()])
    assert outbox.ledger().dead_letters_evicted == 0
    bench.commit(dead=[record()])
    assert outbox.ledger().dead_letters_evicted == 1
    assert len(dead_letters(bench.path)) == 4


def test_no_outbox_no_retry(tmp_path) -> None:
    """The command line says so instead of making a file."""
    with pytest.raises(ConfigError, match="there is no outbox here"):
        retry_dead(tmp_path / "outbox.db")
