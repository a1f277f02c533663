"""Dead letters as the service keeps them: bounded, counted, harmless to look at."""

import logging

import pytest

from forwarder.contracts import Refused
from forwarder.outbox import SinkInfo, dead_letters
from forwarder.outbox.deadletters import MAX_DEAD_BYTES, MAX_HEAD_CHARS

BACKEND = SinkInfo("backend")


def test_a_rejected_record_is_kept_as_it_was_described(bench, record) -> None:
    """Reason, source, size, digest, place and head; the payload only where it was handed over."""
    bench.open(BACKEND)
    bench.commit(dead=[record(offset=42, head="{not json"), record(payload=b"\x00raw\xff")])
    second, first = dead_letters(bench.path)
    assert (first.kind, first.name, first.reason, first.size_bytes, first.offset_bytes, first.head) == (
        "record", "file audit.log", "not_json", 7, 42, "{not json")  # fmt: skip
    assert (first.payload, second.payload, first.sha256) == (None, b"\x00raw\xff", "ab" * 32)
    assert first.at == bench.clock.now


def test_text_is_cut_and_cannot_reach_a_terminal(bench, record) -> None:
    """Control characters and lone surrogates (which SQLite would refuse) become spaces."""
    bench.open(BACKEND)
    bench.commit(dead=[record(head="a\x1b]0;title\x07\ud800" + "x" * 5000, source="peer\r\n")])
    (kept,) = dead_letters(bench.path)
    assert kept.head.startswith("a ]0;title  x")
    assert len(kept.head) == MAX_HEAD_CHARS
    assert kept.name == "peer  "


def test_the_number_is_capped_and_the_oldest_go(bench, record, caplog, monkeypatch) -> None:
    """A flood of bad lines costs bounded space; what goes is counted in ledger and metric, and logged as an error."""
    monkeypatch.setattr("forwarder.outbox.deadletters.MAX_DEAD_LETTERS", 3)
    outbox = bench.open(BACKEND)
    with caplog.at_level(logging.ERROR):
        bench.commit(dead=[record(head=str(number)) for number in range(5)])
        bench.commit(dead=[record(head="last")])
    assert [letter.head for letter in dead_letters(bench.path)] == ["last", "4", "3"]
    assert outbox.ledger().dead_letters == 3
    assert outbox.ledger().dead_letters_evicted == 3
    assert bench.telemetry.value("forwarder_dead_letters_evicted") == 3
    assert "dead letters had to go" in caplog.text


def test_the_bytes_are_capped_with_the_outbox(bench, record) -> None:
    """At most an eighth of the outbox's own limit: dead letters alone never fill it."""
    outbox = bench.open(BACKEND, max_bytes=8 << 20)
    for _ in range(20):
        bench.commit(dead=[record(payload=b"x" * 100_000)])
    assert outbox.ledger().dead_letters == (1 << 20) // 100_231
    assert sum(len(letter.payload or b"") for letter in dead_letters(bench.path)) <= 1 << 20


def test_one_giant_does_not_push_out_all_others(bench, record, monkeypatch) -> None:
    """Its description is kept, its payload is not."""
    monkeypatch.setattr("forwarder.outbox.deadletters.MAX_DEAD_BYTES", 8_000)
    bench.open(BACKEND)
    bench.commit(dead=[record(head="small", payload=b"x"), record(head="giant", payload=b"x" * 2_001)])
    assert [(letter.head, letter.payload) for letter in dead_letters(bench.path)] == [("giant", None), ("small", b"x")]
    assert MAX_DEAD_BYTES == 64 << 20


def test_refused_events_are_logged_without_the_peers_words(bench, caplog) -> None:
    """The words may quote the event; they are in the dead letter, for whoever may read the file."""
    bench.open(BACKEND)
    bench.commit(bench.event(1))
    with caplog.at_level(logging.ERROR):
        bench.answer("backend", Refused("actor: hunter2 is no actor"))
    assert "refused 1 events" in caplog.text
    assert "hunter2" not in caplog.text
    assert "hunter2" in dead_letters(bench.path)[0].reason


@pytest.mark.parametrize("kinds", [("record", "delivery")])
def test_both_kinds_are_told_apart(bench, record, kinds) -> None:
    """They can be listed one by one, by kind and by name, newest first."""
    bench.open(BACKEND)
    bench.commit(bench.event(1), dead=[record()])
    bench.answer("backend", Refused("no"))
    assert [[letter.kind for letter in dead_letters(bench.path, kind=kind)] for kind in kinds] == [
        ["record"],
        ["delivery"],
    ]
    assert [letter.kind for letter in dead_letters(bench.path, name="backend")] == ["delivery"]
    assert len(dead_letters(bench.path, limit=1)) == 1
