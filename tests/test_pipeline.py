"""The way of a batch: what is durable when `submit` returns, what was kept when it raised, what is counted."""

import asyncio
import gc
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from forwarder.contracts import Batch, DeadLetter, Line, Submit
from forwarder.errors import Overloaded, ShuttingDown
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.outbox import dead_letters, read_ledger
from forwarder.pipeline import BLOCKING_BATCHES, Pipeline
from forwarder.registry import load_config
from forwarder.settings import parse_document
from forwarder.tasks import cancel, spawn
from forwarder.telemetry import Telemetry

LOG = [line for line in Path("tests/data/control-plane/audit.log").read_bytes().splitlines() if b'"exec"' in line]
RULES = "rules:\n  - {name: exec-rule, description: x, severity: high, match: {resource: pods, subresource: exec}}\n"


def fresh(line: bytes) -> bytes:
    """As if it had happened today: the outbox counts what is older than 35 days as expired."""
    event = json.loads(line)
    for key in ("requestReceivedTimestamp", "stageTimestamp"):
        event[key] = "2100-" + event[key][5:]
    return json.dumps(event).encode()


EXECS = [fresh(line) for line in LOG]
QUIET = b'{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","stage":"ResponseComplete","verb":"list","user":{"username":"bob"}}'


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Pipeline]]:
    """Pipelines with an open outbox, a file source that is never run, and a backend that nobody serves."""
    opened: list[Pipeline] = []

    def build(*, sources: dict[str, Any] | None = None, sinks: dict[str, Any] | None = None, **outbox: Any) -> Pipeline:
        (tmp_path / "rules.yaml").write_text(RULES)
        settings = {
            "sources": {"file": {"path": str(tmp_path / "audit.log")}, **(sources or {})},
            "sinks": {"backend": {"url": "http://127.0.0.1:9"}, **(sinks or {})},
            "detection": {"rules": ["rules.yaml"]},
            "outbox": {"path": "outbox.db", **outbox},
        }
        pipeline = Pipeline(
            load_config(parse_document(json.dumps(settings), str(tmp_path / "f.yaml")), {}), Telemetry()
        )
        pipeline.outbox.open()
        opened.append(pipeline)
        return pipeline

    yield build
    for pipeline in opened:
        pipeline.outbox.close()


def batch(*lines: bytes, received: int | None = None, rejected: tuple[DeadLetter, ...] = ()) -> Batch:
    return Batch(
        origin="test",
        received=received or len(lines) + len(rejected),
        lines=[Line(line) for line in lines],
        rejected=rejected,
    )


async def acknowledged(submit: Submit, given: Batch) -> bool:
    """What every source does: acknowledge when, and only when, submit returned."""
    try:
        await submit(given)
    except (Overloaded, ShuttingDown, RuntimeError):
        return False
    return True


def lines(pipeline: Pipeline) -> dict[str, float]:
    names = ("received", "unmatched", "matched", "rejected")
    return {name: pipeline.telemetry.value(f"forwarder_lines_{name}") for name in names}


async def test_when_submit_returns_the_events_are_durable(make: Callable[..., Pipeline]) -> None:
    """Another process would read them from the file now."""
    pipeline = make()
    await pipeline.submit_for("file")(batch(*EXECS, QUIET))
    ledger = read_ledger(pipeline.loaded.outbox_path)
    assert (ledger.new, ledger.update, ledger.detected) == (4, 4, 8)
    assert ledger.balanced() == []
    assert lines(pipeline) == {"received": 9, "unmatched": 1, "matched": 8, "rejected": 0}


def test_all_sources_share_one_budget_of_bytes(make: Callable[..., Pipeline]) -> None:
    """A second door is no second helping of memory."""
    pipeline = make(sources={"more": {"type": "forward"}, "yet-more": {"type": "forward", "listen": "127.0.0.1:1"}})
    file, one, two = (vars(source) for source in pipeline.sources.values())
    assert one["budget"] is two["budget"] is file["_budget"]


async def test_a_batch_that_was_given_up_and_fails_later_is_no_forgotten_error(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The source's time is over before the outbox says no; nobody is left to hear it, and nothing is wrong."""
    pipeline, answers = make(), [Future[Any]()]
    monkeypatch.setattr(pipeline.outbox, "commit", lambda *_: answers[0])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await pipeline.submit_for("file")(batch(*EXECS))
    answers.pop().set_exception(Overloaded("outbox_locked"))
    await asyncio.sleep(0.01)
    gc.collect()
    assert caplog.text == ""


async def test_a_batch_that_came_twice_is_counted_once(make: Callable[..., Pipeline]) -> None:
    """The acknowledgement got lost; the sender sent again."""
    pipeline = make()
    for _ in range(2):
        await pipeline.submit_for("file")(batch(*EXECS))
    ledger = read_ledger(pipeline.loaded.outbox_path)
    assert (ledger.new, ledger.update, ledger.duplicate) == (4, 4, 8)


async def test_a_batch_without_events_needs_no_commit(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """99 of 100 batches of a quiet cluster cost no fsync."""
    pipeline = make()
    monkeypatch.setattr(pipeline.outbox, "commit", lambda *_: pytest.fail("committed"))
    assert await acknowledged(pipeline.submit_for("file"), batch(QUIET, received=700))
    assert lines(pipeline) == {"received": 700, "unmatched": 700, "matched": 0, "rejected": 0}


async def test_bad_lines_become_dead_letters_and_their_neighbours_go_on(make: Callable[..., Pipeline]) -> None:
    """With reason, source, size and hash; the raw line only where the operator opted in."""
    pipeline = make()
    letter = DeadLetter(reason="not_a_map", source="test", size_bytes=3, sha256="00")
    await pipeline.submit_for("file")(batch(b"not json", *EXECS, rejected=(letter,)))
    found = dead_letters(pipeline.loaded.outbox_path, limit=10)
    assert sorted((item.reason, item.size_bytes, item.payload) for item in found) == [
        ("not_a_map", 3, None),
        ("not_json", 8, None),
    ]
    assert lines(pipeline) == {"received": 10, "unmatched": 0, "matched": 8, "rejected": 2}
    assert read_ledger(pipeline.loaded.outbox_path).new == 4


async def test_the_raw_line_is_kept_where_the_operator_opted_in(make: Callable[..., Pipeline]) -> None:
    """`outbox.keep_payloads`; such a letter can be fed in again."""
    pipeline = make(keep_payloads=True)
    await pipeline.submit_for("file")(batch(b"not json"))
    assert [item.payload for item in dead_letters(pipeline.loaded.outbox_path, limit=10)] == [b"not json"]


async def test_a_hostile_text_does_not_block_its_batch(make: Callable[..., Pipeline]) -> None:
    """Lone surrogates are JSON, but no Unicode that a database takes: never a batch that can never be accepted."""
    hostile = EXECS[0].replace(b"alice@corp.example", b"al\\ud800ice")
    pipeline = make()
    assert await acknowledged(pipeline.submit_for("file"), batch(hostile, *EXECS[1:]))
    assert read_ledger(pipeline.loaded.outbox_path).new == 4


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def failed(error: Exception) -> Callable[..., Future[Any]]:
    def fail(*_: Any, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(error)
        return future

    return fail


@pytest.mark.parametrize(
    "break_it",
    [
        lambda p, m: m.setattr(p.detector, "examine", failing(RuntimeError("a bug in detection"))),
        lambda p, m: m.setattr(p, "_dead_letter", failing(RuntimeError("a bug in redaction"))),
        lambda p, m: m.setattr(p.outbox, "commit", failing(RuntimeError("a bug before the queue"))),
        lambda p, m: m.setattr(p.outbox, "commit", failed(Overloaded("disk_full"))),
        lambda p, m: m.setattr(p.outbox, "commit", failed(ShuttingDown("closed"))),
        lambda p, m: m.setattr(p, "_closing", True),
    ],
    ids=["detection", "dead-letter", "enqueue", "disk-full", "outbox-closed", "shutting-down"],
)
async def test_whatever_stage_fails_no_acknowledgement_leaves(
    make: Callable[..., Pipeline],
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[Pipeline, pytest.MonkeyPatch], None],
) -> None:
    """Invariant 1: and nothing of the batch is counted or kept, so that it may be sent again."""
    pipeline = make()
    given = batch(*EXECS, b"not json")
    with monkeypatch.context() as patched:
        break_it(pipeline, patched)
        assert not await acknowledged(pipeline.submit_for("file"), given)
        assert lines(pipeline)["received"] == 0
        assert read_ledger(pipeline.loaded.outbox_path).detected == 0
    assert await acknowledged(pipeline.submit_for("file"), given)
    assert lines(pipeline) == {"received": 9, "unmatched": 0, "matched": 8, "rejected": 1}


async def test_a_source_that_gives_up_waiting_tears_nothing_apart(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed unacknowledged; the batch is written whole all the same, and a repeat is a duplicate."""
    pipeline = make()
    future: Future[Any] = Future()
    monkeypatch.setattr(pipeline.outbox, "commit", lambda *_: future)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pipeline.submit_for("file")(batch(*EXECS)), 0.01)
    assert not future.cancelled()


async def test_a_receiver_that_refuses_is_not_ready_for_a_while(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several receivers behind a Service the others take over; then it is tried again."""
    pipeline = make()
    now = [1000.0]
    monkeypatch.setattr("forwarder.pipeline.time.monotonic", lambda: now[0])
    pipeline._started.update(pipeline.sources)
    assert pipeline.ready
    with monkeypatch.context() as patched:
        patched.setattr(pipeline.outbox, "commit", failed(Overloaded("disk_full")))
        assert not await acknowledged(pipeline.submit_for("file"), batch(*EXECS))
    assert not pipeline.ready
    now[0] += 6
    assert pipeline.ready


# --- audit streams and taps ------------------------------------------------------------------------------------------

TAIL = {"tail": {"type": "stdout", "stream": "audit", "when_down": "block"}}


class FakeStream:
    """What it was given, and one future for each time."""

    def __init__(self) -> None:
        self.given: list[OutgoingEvent] = []
        self.taken: list[Future[None]] = []
        self.asked = asyncio.Event()

    def put(self, events: Sequence[OutgoingEvent]) -> Future[None]:
        self.given += events
        self.taken.append(Future())
        self.asked.set()
        return self.taken[-1]


class FakeTap:
    wants_audit = False

    def __init__(self) -> None:
        self.seen: list[str] = []

    def friction(self, events: Sequence[FrictionEvent]) -> None:
        self.seen += [event.type for event in events]

    def audit(self, events: Sequence[OutgoingEvent]) -> None:
        self.seen += [event.original.verb for event in events]


def streamed(make: Callable[..., Pipeline]) -> tuple[Pipeline, FakeStream]:
    pipeline, stream = make(sinks=TAIL), FakeStream()
    assert set(pipeline.streams) == {"tail"}
    assert set(pipeline.sinks) == {"backend"}
    pipeline.streams = {"tail": stream}  # type: ignore[dict-item]
    return pipeline, stream


async def test_a_batch_is_acknowledged_when_its_audit_stream_has_it(make: Callable[..., Pipeline]) -> None:
    """Every line passes the screen then, and friction is found in them as ever."""
    pipeline, stream = streamed(make)
    assert pipeline.detector.screen(QUIET, 0, len(QUIET))
    submitting = spawn(pipeline.submit_for("file")(batch(QUIET, *EXECS, b"not json")), name="submit")
    await stream.asked.wait()
    await asyncio.sleep(0.05)
    assert not submitting.done()
    assert read_ledger(pipeline.loaded.outbox_path).new == 4
    stream.taken[0].set_result(None)
    await submitting
    assert len(stream.given) == 1 + len(EXECS)
    assert lines(pipeline) == {"received": 10, "unmatched": 1, "matched": 8, "rejected": 1}


async def test_a_source_that_gives_up_waiting_withdraws_its_events(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends them again; what the stream had not sent by then is not sent twice. Who waited in vain was refused."""
    pipeline, stream = streamed(make)
    pipeline._started.update(pipeline.sources)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pipeline.submit_for("file")(batch(QUIET)), 0.05)
    assert stream.taken[0].cancelled()
    assert lines(pipeline)["received"] == 0
    assert pipeline.ready  # so soon it may be the peer that went away
    monkeypatch.setattr("forwarder.pipeline.GAVE_UP_S", 0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pipeline.submit_for("file")(batch(QUIET)), 0.05)
    assert not pipeline.ready
    assert pipeline.telemetry.value("forwarder_batches_refused", source="file", reason="overloaded") == 1


async def test_beside_a_blocking_stream_most_batches_wait_untouched(make: Callable[..., Pipeline]) -> None:
    """An agent that catches up sends fifty chunks at once: what waits for its turn has cost nothing when its sender gives up."""
    pipeline, stream = streamed(make)
    submit = pipeline.submit_for("file")
    tasks = [spawn(submit(batch(QUIET)), name="submit", failed=lambda _: None) for _ in range(50)]
    await asyncio.sleep(0.05)
    assert len(stream.taken) == BLOCKING_BATCHES
    await cancel(*tasks[BLOCKING_BATCHES:])
    for taken in stream.taken:
        taken.set_result(None)
    await asyncio.gather(*tasks[:BLOCKING_BATCHES])
    assert len(stream.given) == BLOCKING_BATCHES
    assert lines(pipeline)["received"] == BLOCKING_BATCHES


@pytest.mark.parametrize("error", [Overloaded("behind"), ShuttingDown("closing"), RuntimeError("a bug")])
async def test_a_stream_that_refuses_leaves_the_batch_unacknowledged(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A full queue, a shutdown, a bug."""
    pipeline, stream = streamed(make)
    monkeypatch.setattr(stream, "put", failing(error))
    assert not await acknowledged(pipeline.submit_for("file"), batch(QUIET))
    assert lines(pipeline)["received"] == 0


async def test_at_shutdown_what_a_stream_has_not_taken_is_left_to_its_sender(make: Callable[..., Pipeline]) -> None:
    """The stream gives it up; the source must not acknowledge."""
    pipeline, stream = streamed(make)
    submitting = spawn(pipeline.submit_for("file")(batch(QUIET)), name="submit", failed=lambda _: None)
    await stream.asked.wait()
    pipeline._closing = True
    stream.taken[0].cancel()
    with pytest.raises(ShuttingDown):
        await submitting


async def test_a_tap_sees_what_was_accepted_and_lines_only_while_it_wants_them(make: Callable[..., Pipeline]) -> None:
    """Nobody watching costs nothing: lines that no rule matches are screened out again."""
    pipeline, tap = make(), FakeTap()
    pipeline.attach(tap)
    assert not pipeline.detector.screen(QUIET, 0, len(QUIET))
    await pipeline.submit_for("file")(batch(EXECS[0]))
    tap.wants_audit = True
    pipeline.look_at_taps()
    assert pipeline.detector.screen(QUIET, 0, len(QUIET))
    await pipeline.submit_for("file")(batch(QUIET))
    assert pipeline.reload()
    assert pipeline.detector.screen(QUIET, 0, len(QUIET))
    tap.wants_audit = False
    pipeline.look_at_taps()
    assert not pipeline.detector.screen(QUIET, 0, len(QUIET))
    assert tap.seen == ["exec-rule", "list"]


async def test_audit_events_for_people_are_durable_before_the_acknowledgement_and_once(
    make: Callable[..., Pipeline],
) -> None:
    """The selected ones, for their sink alone; read again they are nothing new."""
    chat = {
        "type": "notify",
        "url": "json://localhost",
        "stream": "audit",
        "select": [{"resource": "pods", "subresource": "exec"}],
    }
    pipeline = make(sinks={"chat": chat})
    assert pipeline.streams == {}
    assert pipeline.detector.screen(QUIET, 0, len(QUIET))
    for _ in range(2):
        await pipeline.submit_for("file")(batch(QUIET, *EXECS))
    told = [event for _, _, event, _ in pipeline.outbox.due("chat", 100) if event.type.startswith("audit: ")]
    assert len(told) == len(EXECS)
    assert {event.verb for event in told} <= {"get", "create"}
    assert all(not event.type.startswith("audit: ") for _, _, event, _ in pipeline.outbox.due("backend", 100))
    assert read_ledger(pipeline.loaded.outbox_path).balanced() == []


async def test_what_an_operator_has_hidden_is_hidden_in_friction_and_dead_letters(tmp_path: Path) -> None:
    """Before anything of it is stored."""
    (tmp_path / "rules.yaml").write_text(RULES)
    settings = {
        "sources": {"file": {"path": "/x"}}, "sinks": {"backend": {}}, "detection": {"rules": ["rules.yaml"]},
        "outbox": {"path": "outbox.db"}, "redaction": {"patterns": ["kubectl", "planted"]},
    }  # fmt: skip
    pipeline = Pipeline(load_config(parse_document(json.dumps(settings), str(tmp_path / "f.yaml")), {}), Telemetry())
    pipeline.outbox.open()
    try:
        letter = DeadLetter(reason="r", source="s", size_bytes=1, sha256="0", head="a planted word")
        await pipeline.submit_for("file")(batch(*EXECS, rejected=(letter,)))
        due = pipeline.outbox.due("backend", 100)
    finally:
        pipeline.outbox.close()
    assert due
    assert all("kubectl" not in event.user_agent for _, _, event, _ in due)
    assert any("[redacted]" in event.user_agent for _, _, event, _ in due)
    assert dead_letters(pipeline.loaded.outbox_path)[0].head == "a [redacted] word"
