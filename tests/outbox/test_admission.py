"""What becomes of an event: new, update, duplicate or expired."""

import pytest

from forwarder.contracts import Done
from forwarder.outbox import CommitResult, SinkInfo
from forwarder.outbox.admission import SEEN_ROW_BYTES, SEEN_SHARE

DAY_S = 86_400


def test_an_id_is_new_once(bench) -> None:
    """The same event again, in the same batch or in a later one, is a duplicate and is not stored."""
    bench.open(SinkInfo("backend"))
    assert bench.commit(bench.event(1), bench.event(1)) == CommitResult(new=1, duplicate=1)
    assert bench.commit(bench.event(1)) == CommitResult(duplicate=1)
    assert bench.due("backend") == ["event 1"]


@pytest.mark.parametrize(
    ("revisions", "results"),
    [
        pytest.param((0, 1), ("new", "update"), id="opened-then-closed"),
        pytest.param((1, 0), ("new", "duplicate"), id="closed-then-opened"),
        pytest.param((0, 1, 1, 0), ("new", "update", "duplicate", "duplicate"), id="each-read-twice"),
        pytest.param((1,), ("new",), id="only-the-end-was-seen"),
    ],
)
def test_a_higher_revision_is_an_update(bench, revisions, results) -> None:
    """The highest revision of an id decides; what is not above it adds nothing."""
    bench.open(SinkInfo("backend"))
    for revision, result in zip(revisions, results, strict=True):
        assert bench.commit(bench.event(1, revision=revision)) == CommitResult(**{result: 1})


def test_ids_survive_a_restart(bench) -> None:
    """A log that is read again after a restart doubles nothing, even when everything was delivered and trimmed."""
    bench.open(SinkInfo("backend"))
    bench.commit(bench.event(1))
    bench.answer("backend", Done())
    bench.open(SinkInfo("backend"))
    assert bench.commit(bench.event(1)) == CommitResult(duplicate=1)


def test_older_than_the_window_is_expired(bench) -> None:
    """An event whose own time is before the window is counted, not stored: it could be a duplicate nobody remembers."""
    bench.open(SinkInfo("backend"), seen_days=35)
    just_in, out = bench.event(1, age_s=35 * DAY_S - 1), bench.event(2, age_s=35 * DAY_S + 1)
    assert bench.commit(just_in, out) == CommitResult(new=1, expired=1)
    assert bench.due("backend") == ["event 1"]
    assert bench.balanced()


def test_forgotten_ids_come_back_as_expired_not_as_new(bench, clock) -> None:
    """When an id leaves the window, so does its event: it can never be counted a second time."""
    outbox = bench.open(SinkInfo("backend"), seen_days=35)
    event = bench.event(1)
    bench.commit(event)
    clock.now += 36 * DAY_S
    outbox.prune().result(20)
    assert bench.sql("SELECT count(*) FROM seen") == [(0,)]
    assert bench.commit(event) == CommitResult(expired=1)


@pytest.mark.parametrize("timestamp", ["", "yesterday", "2025-06-15T12:00:00", "99999-01-01T00:00:00Z"])
def test_a_time_that_cannot_be_read_counts_as_now(bench, timestamp) -> None:
    """Neither a broken timestamp nor one without a zone costs the event."""
    bench.open(SinkInfo("backend"))
    assert bench.commit(bench.event(1, timestamp=timestamp)) == CommitResult(new=1)


def test_ids_have_a_share_of_the_file(bench, monkeypatch) -> None:
    """Beyond their share the oldest ids are forgotten early, so that ids alone never fill an outbox for good."""
    monkeypatch.setattr("forwarder.outbox.admission.SEEN_ROW_BYTES", (1 << 20) // SEEN_SHARE // 10)
    outbox = bench.open(SinkInfo("backend"), max_bytes=1 << 20)
    bench.commit(*(bench.event(number, age_s=100 - number) for number in range(15)))
    assert outbox.prune().result(20) is False
    assert bench.commit(bench.event(14), bench.event(4, age_s=96)) == CommitResult(duplicate=1, new=1)
    assert SEEN_ROW_BYTES < 200


def test_a_bad_id_fails_its_batch_alone(bench) -> None:
    """An event that cannot be stored is an error of its own batch, and its text does not quote the event."""
    outbox = bench.open(SinkInfo("backend"))
    bad = outbox.commit([bench.event(1), bench.event(2, id="secret-token")])
    good = outbox.commit([bench.event(3)])
    assert good.result(20) == CommitResult(new=1)
    with pytest.raises(ValueError, match="cannot be stored") as caught:
        bad.result(20)
    assert "secret-token" not in str(caught.value)
    assert bench.due("backend") == ["event 3"]


def test_every_detected_event_is_in_the_ledger(bench) -> None:
    """detected = new + update + duplicate + expired, over many batches."""
    outbox = bench.open(SinkInfo("backend"))
    bench.commit(bench.event(1), bench.event(2), bench.event(1, revision=1))
    bench.commit(bench.event(1), bench.event(3, age_s=90 * DAY_S))
    ledger = outbox.ledger()
    assert (ledger.detected, ledger.new, ledger.update, ledger.duplicate, ledger.expired) == (5, 2, 1, 1, 1)
    assert bench.balanced()


def test_events_for_one_sink_alone_are_nothing_to_the_others_and_no_friction(bench) -> None:
    """Once per id; the sums of friction do not see them, the sink's own do."""
    outbox = bench.open(SinkInfo("backend"), SinkInfo("slack"))
    for _ in range(2):
        result = outbox.commit([bench.event(1)], (), [("slack", bench.event(7)), ("slack", bench.event(8))]).result(20)
    assert result == CommitResult(duplicate=1)
    assert (bench.due("backend"), bench.due("slack")) == (["event 1"], ["event 1", "event 7", "event 8"])
    bench.answer("slack", Done())
    ledger = outbox.ledger()
    assert (ledger.detected, ledger.new, ledger.duplicate) == (2, 1, 1)
    assert {sink.name: (sink.eligible, sink.delivered, sink.waiting) for sink in ledger.sinks} == {
        "backend": (1, 0, 1),
        "slack": (3, 3, 0),
    }
    assert bench.balanced()


def test_what_is_too_old_to_be_told_from_a_repeat_is_not_told(bench) -> None:
    """As with friction."""
    outbox = bench.open(SinkInfo("slack"))
    outbox.commit([], (), [("slack", bench.event(1, age_s=36 * DAY_S))]).result(20)
    assert bench.due("slack") == []
