"""Rotation into `.gz`: what was read is not read again, what was not is, and history is read once where it is wanted."""

import gzip

import pytest

from forwarder.logfile.rotation import QUIET_S, Rotation
from forwarder.logfile.tail import Tail
from tests.logfile.test_rotation import OLD, Lines, Reader


class HistoryReader(Reader):
    """A reader that wants what was rotated away before."""

    def restart(self):
        stored = self.rotation.checkpoint() if self.rotation is not None else None
        if self.rotation is not None:
            self.rotation.close()
        self.rotation = Rotation(self.path, from_start=self.from_start, history=True, clock=lambda: self.now)
        if stored is not None:
            self.rotation.restore(stored)
        self.tail = Tail(self.rotation)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.log"


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def reader(log):
    made = Reader(log)
    yield made
    made.rotation.close()


def zipped(path, *, keep=False):
    """As gzip and kube-apiserver do: the compressed file is there before the plain one goes."""
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    if not keep:
        path.unlink()
    return target


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("before", [0, 3, 6], ids=["nothing read", "half read", "all read"])
def test_a_log_that_is_compressed_is_read_on_where_it_was(log, lines, reader, restarted, before):
    """Renamed, written on, compressed and deleted between two looks; each line once."""
    lines.write(log, max(before, 1))
    reader.poll()
    lines.write(log, 6 - before)
    old = log.with_name(OLD.format(1))
    log.rename(old)
    zipped(old)
    lines.write(log, 2)
    if restarted:
        reader.restart()
    reader.poll()
    assert reader.seen == list(range(1, lines.count + 1))
    reader.restart()
    assert reader.poll() == list(range(1, lines.count + 1))


def test_compressed_while_the_plain_one_is_still_there(log, lines, reader):
    """A copy is not read; when the plain one goes, nothing of it is left to read."""
    lines.write(log, 5)
    reader.poll()
    old = log.with_name(OLD.format(1))
    log.rename(old)
    lines.write(old, 2)
    zipped(old, keep=True)
    lines.write(log)
    assert reader.poll() == [1, 2, 3, 4, 5, 6, 7, 8]
    old.unlink()
    reader.now += 2 * QUIET_S
    reader.poll()
    reader.now += 2 * QUIET_S
    assert reader.poll() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_logrotate_renames_compressed_files_too(log, lines, reader):
    """audit.log.1.gz becomes audit.log.2.gz; it is the same file."""
    lines.write(log, 3)
    reader.poll()
    first = log.with_name("audit.log.1")
    log.rename(first)
    gz = zipped(first)
    lines.write(log)
    reader.poll()
    gz.rename(log.with_name("audit.log.2.gz"))
    lines.write(log)
    reader.poll()
    reader.restart()
    assert reader.poll() == [1, 2, 3, 4, 5]


def test_a_file_that_came_and_was_compressed_while_nobody_looked(log, lines, reader):
    """Two rotations while the reader was down: everything is read."""
    lines.write(log, 2)
    reader.poll()
    for number in range(3):
        old = log.with_name(OLD.format(number))
        log.rename(old)
        zipped(old)
        lines.write(log, 4)
    reader.restart()
    assert sorted(reader.poll()) == list(range(1, lines.count + 1))


def test_history_is_read_once_and_only_where_it_is_wanted(log, lines):
    """At the first start; plain and compressed, oldest first."""
    for number in range(3):
        old = log.with_name(OLD.format(number))
        lines.write(old, 4)
        if number < 2:
            zipped(old)
    lines.write(log, 2)
    plain = Reader(log)
    assert plain.poll() == [13, 14]
    plain.restart()
    assert plain.poll() == [13, 14]
    plain.rotation.close()
    historian = HistoryReader(log)
    assert sorted(historian.poll()) == list(range(1, 15))
    historian.restart()
    historian.poll()
    assert sorted(historian.seen) == list(range(1, 15))
    historian.rotation.close()


def test_a_restart_in_the_middle_of_a_compressed_file(log, lines):
    """Goes on at the line behind the last accepted one."""
    lines.write(log.with_name(OLD.format(1)), 40)
    zipped(log.with_name(OLD.format(1)))
    historian = HistoryReader(log)
    historian.tail.scan()
    piece = historian.tail.read(2000)
    historian.seen += [int(line[12:44]) for line in piece.data[: piece.end].splitlines()]
    historian.tail.accept(piece)
    assert 0 < len(historian.seen) < 40
    historian.restart()
    assert historian.poll() == list(range(1, 41))
    historian.rotation.close()


def test_a_gz_that_is_named_itself(tmp_path, lines):
    """Is read once, wherever reading would begin in a plain one."""
    old = tmp_path / "old.log"
    lines.write(old, 5)
    reader = Reader(zipped(old), from_start=False)
    assert reader.poll() == [1, 2, 3, 4, 5]
    reader.restart()
    assert reader.poll() == [1, 2, 3, 4, 5]
    reader.rotation.close()


def test_one_that_is_being_written_is_waited_for(log, lines):
    """Neither its beginning nor its end is taken for the whole."""
    old = log.with_name(OLD.format(1))
    lines.write(old, 400)
    gz = zipped(old)
    content = gz.read_bytes()
    gz.write_bytes(content[:30])
    historian = HistoryReader(log)
    assert historian.poll() == []
    gz.write_bytes(content[: len(content) // 2])
    some = len(historian.poll())
    assert some < 400
    historian.now += 1
    with open(gz, "ab") as file:
        file.write(content[len(content) // 2 :])
    assert historian.poll() == list(range(1, 401))
    assert historian.rotation.lag_bytes == 0
    historian.rotation.close()


@pytest.mark.parametrize("damage", ["cut", "checksum"])
def test_one_that_never_gets_whole_is_said(log, lines, damage, caplog):
    """What came before the damage is read, once; then it is let go."""
    old = log.with_name(OLD.format(1))
    lines.write(old, 400)
    gz = zipped(old)
    content = gz.read_bytes()
    gz.write_bytes(content[: len(content) * 2 // 3] if damage == "cut" else content[:-8] + b"oopsoops")
    historian = HistoryReader(log)
    historian.poll()
    assert historian.seen == list(range(1, len(historian.seen) + 1))
    assert len(historian.seen) > 200 if damage == "cut" else len(historian.seen) == 400
    historian.now += 2 * QUIET_S
    historian.poll()
    historian.poll()
    assert caplog.text.count("is damaged or ends early") == 1
    count = len(historian.seen)
    historian.restart()
    assert len(historian.poll()) == count
    historian.rotation.close()


def test_one_that_is_deleted_before_its_end_is_said(log, lines, caplog):
    """Nobody can read it any more."""
    lines.write(log.with_name(OLD.format(1)), 40)
    gz = zipped(log.with_name(OLD.format(1)))
    historian = HistoryReader(log)
    historian.tail.scan()
    historian.tail.accept(historian.tail.read(2000))
    gz.unlink()
    historian.restart()
    historian.poll()
    assert "was deleted before it was read to its end" in caplog.text
    historian.rotation.close()
