"""Every way in which a log is rotated, with every line read once; and what is said when bytes are gone for good."""

import os
import shutil

import pytest

from forwarder.logfile.checkpoint import Checkpoint
from forwarder.logfile.names import open_log
from forwarder.logfile.rotation import QUIET_S, Rotation
from forwarder.logfile.tail import Tail

OLD = "audit-2026-01-31T09-15-00.{:03}.log"


class Lines:
    """Writes numbered lines the length of audit lines; the head of each file is unique, as that of an audit log is."""

    def __init__(self):
        self.count = 0

    def write(self, path, count=1, mode="ab"):
        with open(path, mode) as file:
            for _ in range(count):
                self.count += 1
                file.write(b'{"auditID":"%032d","filler":"%b"}\n' % (self.count, b"x" * 300))


class Reader:
    """A tail that collects the numbers of the lines that it read, through restarts."""

    def __init__(self, path, *, from_start=True):
        self.path = str(path)
        self.now = 1000.0
        self.from_start = from_start
        self.seen = []
        self.rotation = None
        self.restart()

    def restart(self):
        stored = None
        if self.rotation is not None:
            stored = self.rotation.checkpoint()
            self.rotation.close()
        self.rotation = Rotation(self.path, from_start=self.from_start, clock=lambda: self.now)
        if stored is not None:
            self.rotation.restore(stored)
        self.tail = Tail(self.rotation)

    def poll(self):
        self.tail.scan()
        while piece := self.tail.read(4096):
            self.seen += [int(line[12:44]) for line in piece.data[: piece.end].splitlines()]
            self.tail.accept(piece)
        return self.seen


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.log"


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def reader(log):
    reader = Reader(log)
    yield reader
    reader.rotation.close()


def _rotate(log, number=1):
    log.rename(log.with_name(OLD.format(number)))


def _all(lines):
    return list(range(1, lines.count + 1))


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_renamed(log, lines, reader, restarted):
    """The old file is read to its end, then the new one, with and without a restart in between."""
    lines.write(log, 3)
    reader.poll()
    lines.write(log, 2)
    _rotate(log)
    lines.write(log, 2)
    if restarted:
        reader.restart()
    assert reader.poll() == _all(lines)
    assert reader.poll() == _all(lines)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_several_rotations_between_two_looks(log, lines, reader, restarted):
    """Files that came and went unseen are found among the rotated names; those from before the start stay unread."""
    lines.write(log, 2)
    reader.poll()
    lines.write(log, 1)
    for number in range(5):
        _rotate(log, number)
        lines.write(log, 2)
    if restarted:
        reader.restart()
    assert reader.poll() == _all(lines)


def test_rotated_files_from_before_the_first_start_are_left_alone(tmp_path, log, lines):
    """`from the beginning` means the named log; its history is imported by naming it, or by a glob."""
    lines.write(log.with_name(OLD.format(0)), 3)
    lines.write(log, 2)
    assert Reader(log).poll() == [4, 5]
    assert Reader(tmp_path / "audit*.log").poll() == [1, 2, 3, 4, 5]


def test_late_writes_to_a_renamed_file(log, lines, reader):
    """A writer that still holds the old file is heard, also long after the file was closed here."""
    lines.write(log, 2)
    reader.poll()
    _rotate(log)
    lines.write(log)
    reader.poll()
    lines.write(log.with_name(OLD.format(1)))
    assert sorted(reader.poll()) == _all(lines)
    for _ in range(2):
        reader.now += QUIET_S
        reader.poll()
    assert [file.descriptor is None for file in reader.rotation.files if not file.current] == [True]
    lines.write(log.with_name(OLD.format(1)))
    assert sorted(reader.poll()) == _all(lines)


def test_deleted_while_it_is_read(log, lines, reader):
    """A file that was rotated and deleted at once is read to its end: it is held open."""
    lines.write(log, 2)
    reader.poll()
    lines.write(log, 3)
    log.unlink()
    lines.write(log, 2)
    assert reader.poll() == _all(lines)
    reader.now += QUIET_S
    reader.poll()
    assert len(reader.rotation.files) == 1


def test_disappears_and_comes_back(log, lines, reader):
    """A log may be away for any time; what stands there then is a new one, read from its beginning."""
    assert reader.poll() == []
    lines.write(log, 2)
    assert reader.poll() == [1, 2]
    log.unlink()
    reader.poll()
    reader.now += 2 * QUIET_S
    reader.poll()
    lines.write(log, 2)
    assert reader.poll() == _all(lines)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("regrown", [1, 3, 9], ids=["shorter", "same size", "longer"])
def test_cut_in_place(log, lines, reader, regrown, restarted, caplog):
    """copytruncate without a copy: the file begins anew even where it has grown to its old size, or above, meanwhile."""
    lines.write(log, 3)
    reader.poll()
    lines.write(log, regrown, "wb")
    os.utime(log, ns=(1, 1))  # the clock of the file system may be too coarse to tell the two states apart by chance
    if restarted:
        reader.restart()
    assert reader.poll() == _all(lines)
    assert ("after byte" in caplog.text) is restarted  # only then nobody knows whether something is missing


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("seen_between", [False, True], ids=["at once", "copy seen first"])
def test_copied_and_cut_loses_nothing_where_the_copy_stays(log, lines, reader, restarted, seen_between, caplog):
    """Lines written after the last look and before the cut are read from the copy, and no other line of it is."""
    lines.write(log, 3)
    reader.poll()
    if seen_between:
        shutil.copy(log, log.with_name("audit.log.1"))
        reader.poll()
    lines.write(log, 2)
    shutil.copy(log, log.with_name("audit.log.1"))
    lines.write(log, 1, "wb")
    if restarted:
        reader.restart()
    assert reader.poll() == _all(lines)
    lines.write(log, 2)
    assert reader.poll() == _all(lines)
    assert "unread" not in caplog.text
    assert "after byte" not in caplog.text


def test_copied_and_cut_while_the_reader_is_behind(log, lines, reader, caplog):
    """What was seen and not yet accepted when the log was cut is read from the copy, which was seen before."""
    lines.write(log, 3)
    reader.tail.scan()
    shutil.copy(log, log.with_name("audit.log.1"))
    reader.tail.scan()
    lines.write(log, 1, "wb")
    assert reader.poll() == _all(lines)
    assert not caplog.records


def test_cut_to_a_part_of_itself(log, lines, reader):
    """A log that lost its end by hand begins anew: what it says twice is recognised, what is new is not missed."""
    lines.write(log, 10)
    reader.poll()
    os.truncate(log, log.stat().st_size // 2)
    lines.write(log, 1)
    assert reader.poll() == [*range(1, 11), *range(1, 6), 11]


def test_renamed_between_the_look_and_the_opening(log, lines, reader, monkeypatch):
    """The name that was listed may be another file a moment later: its lines are not taken for the old one's."""
    lines.write(log, 2)
    real = open_log

    def rotated_meanwhile(name):
        monkeypatch.setattr("forwarder.logfile.rotation.open_log", real)
        _rotate(log)
        lines.write(log, 1)
        return real(name)

    reader.restart()
    reader.rotation.restore(Checkpoint(path=str(log), files=[]))
    monkeypatch.setattr("forwarder.logfile.rotation.open_log", rotated_meanwhile)
    assert reader.poll() == []
    assert reader.poll() == _all(lines)


def test_a_copy_that_is_written_to_is_no_mere_copy(tmp_path, lines):
    """Of two files with the same head, the one that grows is the log, whichever was taken for it first."""
    original, copy = tmp_path / "audit-a.log", tmp_path / "audit-b.log"
    lines.write(copy, 3)
    shutil.copy(copy, original)
    os.utime(original, ns=(1, 1))
    reader = Reader(tmp_path / "audit-*.log")
    assert reader.poll() == [1, 2, 3]
    lines.write(copy, 2)
    assert reader.poll() == [1, 2, 3, 4, 5]


def test_the_same_file_under_another_inode(log, lines, reader):
    """Moved to another file system and back while nothing ran: the content says where to go on."""
    lines.write(log, 3)
    reader.poll()
    lines.write(log, 1)
    shutil.copy(log, log.with_name("copy"))
    os.replace(log.with_name("copy"), log)
    reader.restart()
    assert reader.poll() == _all(lines)


def test_an_inode_number_that_is_given_out_again(log, lines, reader):
    """A new file under an old number is told by its first bytes, also where it is longer than the old one was."""
    lines.write(log, 2)
    reader.poll()
    stored = reader.rotation.checkpoint()
    log.unlink()
    lines.write(log, 4)
    status = log.stat()
    mark = stored.files[0]
    fake = type(mark)(**{**{name: getattr(mark, name) for name in mark.__struct_fields__}, "inode": status.st_ino})
    reader.rotation.close()
    reader.rotation = None
    reader.restart()
    reader.rotation.restore(type(stored)(path=stored.path, files=[fake]))
    assert reader.poll() == _all(lines)


def test_from_the_end_begins_after_the_last_whole_line(log, lines):
    """A first start at the end reads what is finished from now on, the line that is half-written now included."""
    lines.write(log, 3)
    with open(log, "ab") as file:
        file.write(b'{"auditID":"%032d' % 4)
    reader = Reader(log, from_start=False)
    assert reader.poll() == []
    with open(log, "ab") as file:
        file.write(b'"}\n')
    assert reader.poll() == [4]


def test_a_file_that_appears_later_is_read_from_its_beginning(log, lines):
    """`end` is about what was there at the first look; a log that comes later is all new."""
    reader = Reader(log, from_start=False)
    reader.poll()
    lines.write(log, 2)
    reader.restart()
    assert reader.poll() == [1, 2]


def test_what_is_gone_for_good_is_said(log, lines, reader, caplog):
    """Rotated and compressed while nothing ran, with bytes unread: an ERROR names the file and the byte."""
    lines.write(log, 2)
    reader.poll()
    offset = log.stat().st_size
    lines.write(log, 1)
    log.unlink()
    lines.write(log, 1)
    reader.restart()
    assert reader.poll() == [1, 2, 4]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"after byte {offset} is not seen" in caplog.text


def test_backups_that_are_deleted_in_the_course_of_things_are_no_news(log, lines, reader, caplog):
    """The apiserver deletes its oldest backup at each rotation; it was read, so nothing is said."""
    for number in range(4):
        lines.write(log, 2)
        reader.poll()
        _rotate(log, number)
        lines.write(log, 1)
        reader.poll()
        if number:
            log.with_name(OLD.format(number - 1)).unlink()
        reader.poll()
        reader.restart()
    assert reader.poll() == _all(lines)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_rotated_file_that_may_not_be_read_is_said_once_and_read_later(log, lines, reader, monkeypatch, caplog):
    """A new file with the wrong mode needs an operator: one ERROR with what to do, and no line lost once it is fixed."""
    real = os.open

    def refuse(name, flags, *rest):
        if name == str(log):
            raise PermissionError(13, "Permission denied")
        return real(name, flags, *rest)

    lines.write(log, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        reader.poll()
        assert reader.poll() == []
    assert caplog.text.count("chown") == 1
    assert reader.poll() == [1, 2]


def test_one_file_with_a_bad_disk_keeps_nobody_from_the_others(log, lines, reader, monkeypatch, caplog):
    """An I/O error in a rotated file is said once; the present log is read on, and the other when it can be."""
    lines.write(log, 2)
    reader.poll()
    _rotate(log)
    lines.write(log.with_name(OLD.format(1)), 1)
    lines.write(log, 2)
    real = os.pread
    bad = log.with_name(OLD.format(1)).stat().st_ino

    def fail(descriptor, *rest):
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(5, "Input/output error")
        return real(descriptor, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        assert reader.poll() == [1, 2, 4, 5]
        reader.poll()
    assert caplog.text.count("Input/output error") == 1
    assert sorted(reader.poll()) == _all(lines)


def test_the_lag_is_what_is_written_and_not_accepted(log, lines, reader):
    """The lag counts bytes of all followed files and is zero when all is accepted."""
    lines.write(log, 3)
    reader.tail.scan()
    assert reader.rotation.lag_bytes == log.stat().st_size
    reader.poll()
    assert reader.rotation.lag_bytes == 0
