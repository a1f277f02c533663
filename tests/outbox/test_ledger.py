"""The ledger says what is in the file, from anywhere, and notices when that does not add up."""

import pytest

from forwarder.contracts import Done, Refused
from forwarder.outbox import SinkInfo, read_ledger

BACKEND, SLACK = SinkInfo("backend"), SinkInfo("slack", takes_updates=False)


def busy(bench) -> None:
    bench.open(BACKEND, SLACK)
    bench.commit(*(bench.event(number) for number in range(6)))
    bench.commit(bench.event(0, revision=1), bench.event(1))
    bench.answer("backend", Done(), 3)
    bench.answer("backend", Refused("no"), 1)


def test_it_reads_the_same_beside_the_service_and_without_it(bench) -> None:
    """`forwarder status` works while things are down."""
    busy(bench)
    beside = read_ledger(bench.path, now=bench.clock.now)
    bench.close()
    assert read_ledger(bench.path, now=bench.clock.now) == beside
    assert (beside.detected, beside.new, beside.update, beside.duplicate, beside.expired) == (8, 6, 1, 1, 0)
    backend, slack = beside.sinks
    assert (backend.eligible, backend.delivered, backend.waiting, backend.dead) == (7, 3, 3, 1)
    assert (slack.eligible, slack.delivered, slack.waiting, slack.dead) == (6, 0, 6, 0)
    assert beside.dead_letters == 1
    assert beside.bytes > 0
    assert beside.balanced() == []


def test_it_knows_how_long_the_oldest_has_waited(bench, clock) -> None:
    """Per sink, and over all of them; nothing when nothing waits."""
    outbox = bench.open(BACKEND, SLACK)
    assert outbox.ledger().oldest_waiting_s is None
    bench.commit(bench.event(1))
    clock.now += 40
    bench.commit(bench.event(2))
    bench.answer("backend", Done(), 1)
    clock.now += 2
    ledger = outbox.ledger()
    assert [sink.oldest_waiting_s for sink in ledger.sinks] == [2.0, 42.0]
    assert ledger.oldest_waiting_s == 42.0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param("UPDATE ledger SET value = value + 1 WHERE name = 'detected'", "detected 9", id="detected"),
        pytest.param("UPDATE sinks SET delivered = delivered + 1 WHERE key = 1", "sink backend", id="delivered"),
        pytest.param("DELETE FROM events WHERE seq = 6", "sink slack", id="a-lost-row"),
        pytest.param("UPDATE sinks SET cursor = cursor + 1 WHERE key = 2", "sink slack", id="a-cursor-gone-ahead"),
        pytest.param("INSERT INTO outcomes VALUES (2, 5, NULL, 1)", "sink slack", id="an-outcome-nobody-gave"),
    ],
)
def test_a_lost_event_is_noticed(bench, damage, said) -> None:
    """Waiting is counted from the rows, so a row that vanished breaks the equation instead of bending it."""
    busy(bench)
    bench.sql(damage)
    violations = read_ledger(bench.path).balanced()
    assert any(said in violation for violation in violations)
