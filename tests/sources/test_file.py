"""The file source: the checkpoint comes last, bad moments are waited out, and candidates alone are copied."""

import asyncio
import gzip
import os
import stat

import pytest

from forwarder.errors import ConfigError, Overloaded, ShuttingDown
from forwarder.logfile import checkpoint
from forwarder.settings import convert, parse_document
from forwarder.sources.file import MAX_RETRY_AFTER_S, FileSettings, FileSource, environment_path
from forwarder.tasks import spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.budget import ByteBudget


def _match(buffer, start, end):
    return b"match" in bytes(buffer[start:end])


class Pipeline:
    """Takes batches; fails as often as `errors` says before it takes one; calls `after` with each it took."""

    def __init__(self, *errors, after=None):
        self.errors = list(errors)
        self.after = after
        self.offered = []
        self.batches = []

    async def submit(self, batch):
        self.offered.append(batch)
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(batch)
        if self.after is not None:
            self.after(batch)

    @property
    def lines(self):
        return [line.data for batch in self.batches for line in batch.lines]

    @property
    def received(self):
        return sum(batch.received for batch in self.batches)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.log"


@pytest.fixture
def source(log, tmp_path):
    def make(**settings):
        defaults = {
            "path": str(log),
            "start": "beginning",
            "checkpoint": str(tmp_path / "file.json"),
            "poll_interval_s": 0.01,
            "follow": False,
        }
        telemetry = Telemetry()
        made = FileSource("file", FileSettings(**{**defaults, **settings}), _match, telemetry, "prod")
        made.telemetry = telemetry
        return made

    return make


async def _run(source, pipeline, stopping=None):
    started = []
    await asyncio.wait_for(source.run(pipeline.submit, stopping or asyncio.Event(), lambda: started.append(1)), 10)
    assert started == [1]


def _offsets(tmp_path):
    stored = checkpoint.load(tmp_path / "file.json")
    return [mark.offset for mark in stored.files]


async def test_only_candidates_are_handed_on_and_every_line_is_counted(log, source):
    """A batch counts all lines and holds those that passed the screen, with their offset; blank lines are no lines."""
    log.write_bytes(b"one\nmatch 2\r\n\n\r\nthree\nmatch 4\n")
    pipeline = Pipeline()
    made = source()
    await _run(made, pipeline)
    (batch,) = pipeline.batches
    assert batch.received == 4
    assert [(line.data, line.offset, line.time_s) for line in batch.lines] == [
        (b"match 2", 4, 0.0),
        (b"match 4", 22, 0.0),
    ]
    assert batch.origin == f"file {log}"
    assert batch.cluster == "prod"
    assert made.telemetry.value("forwarder_source_bytes", source="file") == log.stat().st_size
    assert made.telemetry.value("forwarder_file_lag_bytes", source="file") == 0


async def test_the_sources_own_cluster_wins(log, source):
    """`cluster` of the source stands before the global one."""
    log.write_bytes(b"match\n")
    pipeline = Pipeline()
    await _run(source(cluster="edge"), pipeline)
    assert pipeline.batches[0].cluster == "edge"


@pytest.mark.parametrize(
    "error", [ShuttingDown("closing"), RuntimeError("the outbox broke")], ids=["closing", "a fault"]
)
async def test_the_checkpoint_does_not_move_when_submit_fails(log, source, tmp_path, error):
    """Acknowledging is the last step: what was not accepted is read again after a restart."""
    log.write_bytes(b"match 1\n")
    await _run(source(), Pipeline())
    assert _offsets(tmp_path) == [8]
    log.write_bytes(b"match 1\nmatch 2\n")
    refusing = Pipeline(error)
    try:
        await _run(source(), refusing)
    except RuntimeError:
        pass
    assert len(refusing.offered) == 1
    assert _offsets(tmp_path) == [8]
    pipeline = Pipeline()
    await _run(source(), pipeline)
    assert pipeline.lines == [b"match 2"]


async def test_while_submit_is_under_way_the_old_checkpoint_stands(log, source, tmp_path):
    """The position is written after `submit` returned, not before and not meanwhile."""
    log.write_bytes(b"match 1\n")
    during = []
    pipeline = Pipeline(after=lambda _: during.append(_offsets(tmp_path)))
    await _run(source(), pipeline)
    assert during == [[0]]
    assert _offsets(tmp_path) == [8]


async def test_a_batch_with_candidates_is_checkpointed_before_the_next_is_offered(log, source, tmp_path):
    """After candidates the checkpoint is written at once: a crash repeats at most one batch of them."""
    log.write_bytes(b"match 1\nmatch 2\nmatch 3\n")
    at = []
    await _run(source(batch_lines=1), Pipeline(after=lambda _: at.append(_offsets(tmp_path)[0])))
    assert at == [0, 8, 16]


async def test_an_overloaded_pipeline_is_offered_the_same_batch_again(log, source):
    """Nothing is skipped and nothing is doubled, however often it says no."""
    log.write_bytes(b"match 1\nother\nmatch 2\n")
    pipeline = Pipeline(*[Overloaded("full", retry_after_s=0.0)] * 5)
    await _run(source(), pipeline)
    assert len(pipeline.offered) == 6
    assert all(batch == pipeline.offered[0] for batch in pipeline.offered)
    assert pipeline.lines == [b"match 1", b"match 2"]


async def test_it_waits_as_long_as_it_is_told_within_reason(log, source, monkeypatch):
    """The pipeline's own estimate is respected up to a bound: its state may change any moment."""
    waited = []

    async def wait(_stopping, seconds):
        waited.append(seconds)

    monkeypatch.setattr("forwarder.sources.file._wait", wait)
    log.write_bytes(b"match 1\n")
    await _run(source(), Pipeline(Overloaded("full", retry_after_s=2.5), Overloaded("full", retry_after_s=3600)))
    assert waited == [2.5, MAX_RETRY_AFTER_S]


async def test_stopping_ends_the_wait_of_an_overloaded_source(log, source, tmp_path):
    """A source that waits for the pipeline still stops at once, with nothing accepted."""
    log.write_bytes(b"match 1\n")
    stopping = asyncio.Event()

    class Full(Pipeline):
        async def submit(self, batch):
            stopping.set()
            raise Overloaded("full", retry_after_s=3600)

    await _run(source(follow=True), Full(), stopping)
    assert _offsets(tmp_path) == [0]


async def test_it_follows_until_it_is_told_to_stop(log, source):
    """Lines that are written while it runs arrive, over a rotation; then it returns and lets go of the log."""
    log.write_bytes(b"match 1\n")
    stopping = asyncio.Event()

    def write(batch):
        number = len(pipeline.lines)
        if number == 1:
            with open(log, "ab") as file:
                file.write(b"match 2\n")
            log.rename(log.with_name("audit.log.1"))
            log.write_bytes(b"match 3\n")
        if number == 3:
            stopping.set()

    pipeline = Pipeline(after=write)
    made = source(follow=True)
    await _run(made, pipeline, stopping)
    assert pipeline.lines == [b"match 1", b"match 2", b"match 3"]
    assert not [name for name in _open_files() if name.startswith(str(log.parent))]


def _open_files():
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return names


async def test_no_batch_is_larger_than_its_caps(log, source):
    """Neither many short lines nor long ones make a batch above `batch_lines` and `batch_bytes`."""
    lines = [b"match %d" % number for number in range(3000)]
    log.write_bytes(b"\n".join(lines) + b"\n")
    pipeline = Pipeline()
    await _run(source(batch_lines=100, batch_bytes=2048), pipeline)
    assert pipeline.lines == lines
    assert max(batch.received for batch in pipeline.batches) == 100
    assert max(sum(len(line.data) for line in batch.lines) for batch in pipeline.batches) <= 2048


async def test_an_overlong_line_arrives_as_its_head_and_the_rest_is_counted(log, source, caplog):
    """It is one received line, with the file's time in place of its own; no byte of it stands in our log."""
    log.write_bytes(b"match " + b"s3cret" * 1000 + b"\nmatch 2\n")
    made = source(max_line_bytes=1024)
    pipeline = Pipeline()
    await _run(made, pipeline)
    head, after = (line for batch in pipeline.batches for line in batch.lines)
    assert head.data == (b"match " + b"s3cret" * 1000)[:1024]
    assert head.time_s == pytest.approx(log.stat().st_mtime)
    assert (after.data, after.time_s) == (b"match 2", 0.0)
    assert pipeline.received == 2
    assert made.telemetry.value("forwarder_file_left_out_bytes", source="file") == 6006 - 1024 + 1
    assert "s3cret" not in caplog.text


async def test_a_missing_log_is_waited_for_with_one_warning(log, source, caplog):
    """A node agent may start before the apiserver: it is started, says so once, and reads the log from its beginning."""
    stopping = asyncio.Event()
    made = source(follow=True, start="end")
    reads = []
    real = made._read

    def read():
        reads.append(1)
        if len(reads) == 3:
            log.write_bytes(b"match 1\n")
        return real()

    made._read = read
    pipeline = Pipeline(after=lambda _: stopping.set())
    await _run(made, pipeline, stopping)
    assert pipeline.lines == [b"match 1"]
    assert [record.message for record in caplog.records] == [f"{log} does not exist yet; waiting for it"]


async def test_an_import_of_a_missing_log_is_refused(source):
    """Where nothing is waited for, a missing file is the user's mistake."""
    with pytest.raises(ConfigError, match="there is no such file"):
        await _run(source(), Pipeline())


async def test_the_end_is_the_end_of_the_first_start_only(log, source):
    """A restart goes on where it stopped, `start: end` or not."""
    log.write_bytes(b"match 1\n")
    for expected, more in (([], b"match 2\n"), ([b"match 2"], b"match 3\n"), ([b"match 3"], b"")):
        pipeline = Pipeline()
        await _run(source(start="end"), pipeline)
        assert pipeline.lines == expected
        log.write_bytes(log.read_bytes() + more)


async def test_a_damaged_checkpoint_is_read_as_none_and_nothing_is_missed(log, source, tmp_path, caplog):
    """Better everything again, which is recognised by its ids, than a gap: even with `start: end`."""
    log.write_bytes(b"match 1\n")
    (tmp_path / "file.json").write_bytes(b"{")
    pipeline = Pipeline()
    await _run(source(start="end"), pipeline)
    assert pipeline.lines == [b"match 1"]
    assert "damaged" in caplog.text


async def test_a_checkpoint_for_another_path_is_another_beginning(log, source, tmp_path, caplog):
    """Whoever changes the path starts anew, and is told."""
    log.write_bytes(b"match 1\n")
    await _run(source(), Pipeline())
    other = tmp_path / "other.log"
    other.write_bytes(b"match 2\n")
    pipeline = Pipeline()
    await _run(source(path=str(other), start="end"), pipeline)
    assert pipeline.lines == []
    assert "was made for" in caplog.text


async def test_several_logs_each_with_its_own_position(log, source, tmp_path):
    """A path that is added later begins where `start` says; the others go on; a busy log starves no other."""
    other = log.with_name("other.log")
    log.write_bytes(b"match a1\n" * 500)
    other.write_bytes(b"match b1\n")
    first = Pipeline()
    await _run(source(path=str(log), checkpoint=str(tmp_path / "p"), follow=False), first)
    both = Pipeline()
    log.write_bytes(log.read_bytes() + b"match a2\n")
    settings = {"path": [str(log), str(other)], "checkpoint": str(tmp_path / "p"), "follow": False}
    await _run(source(**settings), both)
    assert both.lines == [b"match a2", b"match b1"]
    other.write_bytes(b"match b1\nmatch b2\n")
    again = Pipeline()
    await _run(source(**settings), again)
    assert again.lines == [b"match b2"]


async def test_two_busy_logs_take_turns(log, source):
    """Piece by piece."""
    other = log.with_name("other.log")
    log.write_bytes(b"match a\n" * 1000)
    other.write_bytes(b"match b\n" * 1000)
    pipeline = Pipeline()
    await _run(source(path=[str(log), str(other)], follow=False, batch_bytes=1024), pipeline)
    assert {line.data[-1:] for batch in pipeline.batches[:2] for line in batch.lines} == {b"a", b"b"}
    assert pipeline.received == 2000


async def test_history_is_read_from_compressed_files(log, source, tmp_path):
    """Once, and then the log is followed as ever."""
    (log.parent / "audit.log.1.gz").write_bytes(gzip.compress(b"match old\n"))
    log.write_bytes(b"match new\n")
    for expected in ([b"match old", b"match new"], []):
        pipeline = Pipeline()
        await _run(source(history=True, checkpoint=str(tmp_path / "p"), follow=False), pipeline)
        assert pipeline.lines == expected


async def test_a_checkpoint_that_cannot_be_written_is_refused_at_the_start(log, source):
    """A folder that does not exist is a mistake that a person must mend; found out before the first line."""
    log.write_bytes(b"match 1\n")
    with pytest.raises(ConfigError, match=r"/none/file\.json: cannot write the checkpoint: No such file or directory"):
        await _run(source(checkpoint="/none/file.json"), Pipeline())


async def test_a_checkpoint_that_fails_later_costs_no_line(log, source, monkeypatch, caplog):
    """A full disk is an ERROR, once a minute; reading goes on, because a restart would only read more again."""
    log.write_bytes(b"match 1\nmatch 2\n")
    real, calls = checkpoint.save, []

    def full(path, content):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(checkpoint, "save", full)
    pipeline = Pipeline()
    await _run(source(batch_lines=1), pipeline)
    assert pipeline.lines == [b"match 1", b"match 2"]
    assert caplog.text.count("No space left on device") == 1


async def test_following_without_a_checkpoint_says_what_that_means(log, source, caplog):
    """No checkpoint is a choice, with a consequence that is said once."""
    log.write_bytes(b"match 1\n")
    stopping = asyncio.Event()
    await _run(source(checkpoint="", follow=True), Pipeline(after=lambda _: stopping.set()), stopping)
    assert "lines written while this is not running are not seen" in caplog.text


async def test_what_is_held_counts_against_the_budget_of_the_process(log, source):
    """And nothing is read while others have spent it."""
    log.write_bytes(b"match 1\n" * 100)
    reader, held = source(), []
    reader._budget = budget = ByteBudget(1000)
    other = budget.share(on_change=lambda: None)
    other.resize(2000)
    pipeline = Pipeline(after=lambda _: held.append(budget.used_bytes))
    running = spawn(_run(reader, pipeline), name="reader")
    await asyncio.sleep(0.05)
    assert pipeline.received == 0
    other.resize(1)
    await running
    assert (pipeline.received, held) == (100, [801])
    assert budget.used_bytes == 1


async def test_the_log_is_left_as_it_was(log, source):
    """Nothing about the log changes: not its bytes, not its mode, not its time."""
    log.write_bytes(b"match 1\n")
    log.chmod(0o400)
    before = log.stat()
    await _run(source(), Pipeline())
    after = log.stat()
    assert (after.st_mtime_ns, after.st_size, stat.S_IMODE(after.st_mode)) == (
        before.st_mtime_ns,
        before.st_size,
        0o400,
    )


def test_a_new_source_touches_nothing(source, tmp_path):
    """Constructing one has no side effect."""
    source()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path: /a\nstart: middle", "`start`"),
        ("path: /a\npoll_intervall_s: 1", "did you mean `poll_interval_s`"),
        ("start: end", "path"),
        ("path: /a\npoll_interval_s: 0", "`poll_interval_s`"),
    ],
    ids=["start", "misspelt", "no path", "busy loop"],
)
def test_settings_are_strict(text, words):
    """Unknown keys and impossible values are refused by name."""
    with pytest.raises(ConfigError, match=words):
        convert(parse_document(text, "forwarder.yaml"), FileSettings)


def test_sizes_are_numbers_or_text():
    """`8MiB` and 8388608 are the same; what is no size, or too small for an audit line, is refused."""
    settings = convert(
        parse_document("path: /a\nmax_line_bytes: 2MiB\nbatch_bytes: 4096", "forwarder.yaml"), FileSettings
    )
    FileSource("file", settings, _match, Telemetry())
    for wrong in ("much", "10"):
        with pytest.raises(ConfigError, match=r"file\.max_line_bytes"):
            FileSource("file", FileSettings(path="/a", max_line_bytes=wrong), _match, Telemetry())


@pytest.mark.parametrize("path", ["audit.log", "./audit.log", "/var/../etc/passwd", "/var/log/..", "", "/a\0b"])
def test_a_path_from_the_environment_is_absolute_and_goes_nowhere_else(path):
    """Relative paths and `..` are refused with the variable's name; a name with dots is fine."""
    with pytest.raises(ConfigError, match="AUDIT_LOG_PATH: the path must be absolute"):
        environment_path("AUDIT_LOG_PATH", path)
    assert environment_path("AUDIT_LOG_PATH", "/var/log/audit..log") == "/var/log/audit..log"
