"""Reading bytes: whole lines, half ones, overlong ones, holes, and positions that move only when accepted."""

import pytest

from forwarder.logfile.rotation import HALF_LINE_WAIT_S, Rotation
from forwarder.logfile.tail import Tail


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.log"


def _tail(log, clock, *, follow=True, max_line_bytes=1000):
    return Tail(Rotation(str(log), from_start=True, follow=follow, clock=clock), max_line_bytes=max_line_bytes)


def _append(path, data):
    with open(path, "ab") as file:
        file.write(data)


def _drain(tail, max_bytes=1 << 16):
    """All that can be read now: the bytes to be used, and whether each piece was cut."""
    tail.scan()
    pieces = []
    while piece := tail.read(max_bytes):
        if piece.end:
            pieces.append((piece.data[: piece.end], piece.cut))
        tail.accept(piece)
    return pieces


@pytest.mark.parametrize("max_bytes", [1, 7, 64, 1 << 16])
def test_every_line_arrives_once_and_whole_at_any_read_size(log, clock, max_bytes):
    """Pieces end where lines end, however little is read at once."""
    lines = b"".join(b"line %d\n" % number for number in range(50))
    log.write_bytes(lines)
    pieces = _drain(_tail(log, clock), max_bytes)
    assert b"".join(data for data, _ in pieces) == lines
    assert all(data.endswith(b"\n") and not cut for data, cut in pieces)


def test_a_half_written_line_waits_for_its_rest(log, clock):
    """The writer is in the middle of a line: it is not used before its newline is there, however long that takes."""
    tail = _tail(log, clock)
    log.write_bytes(b"one\ntw")
    assert _drain(tail) == [(b"one\n", False)]
    clock.now += 10_000
    assert _drain(tail) == []
    _append(log, b"o\nthr")
    assert _drain(tail) == [(b"two\n", False)]


def test_a_half_line_is_read_again_only_when_it_has_grown(log, clock, monkeypatch):
    """An overlong line that takes minutes to be written is not read five times a second from its start."""
    tail = _tail(log, clock)
    log.write_bytes(b"x" * 900)
    assert _drain(tail) == []
    with monkeypatch.context() as patch:
        patch.setattr("forwarder.logfile.followed.os.pread", _fail)
        assert _drain(tail) == []
    assert tail.rotation.files[0].descriptor is not None, "a failed read would have closed it"
    _append(log, b"\n")
    assert _drain(tail) == [(b"x" * 900 + b"\n", False)]


def test_a_position_moves_only_when_accepted(log, clock):
    """What was read and not accepted is read again, also the rest of a piece that was accepted in part."""
    log.write_bytes(b"one\ntwo\nthree\n")
    tail = _tail(log, clock)
    tail.scan()
    first = tail.read(1000)
    assert first is not None
    tail.accept(first, upto=4)
    tail.scan()
    second = tail.read(1000)
    assert second is not None
    assert second.data == b"two\nthree\n"
    assert tail.rotation.checkpoint().files[0].offset == 4


def test_a_line_above_the_limit_is_cut_and_the_log_goes_on(log, clock):
    """The head comes once, as a cut line; the rest is passed over and counted, and the next line is untouched."""
    log.write_bytes(b"before\n" + b"x" * 5000 + b"\nafter\n")
    tail = _tail(log, clock, max_line_bytes=1000)
    assert _drain(tail, 100) == [(b"before\n", False), (b"x" * 1000, True), (b"after\n", False)]


@pytest.mark.parametrize("length", [999, 1000, 1001])
def test_the_limit_is_exact(log, clock, length):
    """A line of exactly the limit passes whole; one byte more is cut."""
    log.write_bytes(b"x" * length + b"\nnext\n")
    pieces = _drain(_tail(log, clock, max_line_bytes=1000), 100)
    assert pieces[0] == ((b"x" * length + b"\n", False) if length <= 1000 else (b"x" * 1000, True))
    assert pieces[-1] == (b"next\n", False)


def test_an_overlong_line_that_is_still_being_written_is_passed_over_to_its_end(log, clock):
    """The rest may arrive minutes later, and after a restart: the checkpoint remembers that it is to be left out."""
    log.write_bytes(b"x" * 1500)
    tail = _tail(log, clock)
    assert _drain(tail) == [(b"x" * 1000, True)]
    stored = tail.rotation.checkpoint()
    assert stored.files[0].skipping
    _append(log, b"x" * 500 + b"\nafter\n")
    again = _tail(log, clock)
    again.rotation.restore(stored)
    assert _drain(again) == [(b"after\n", False)]


def test_a_half_line_in_a_rotated_file_is_handed_on_after_a_while(log, clock):
    """After rotation the rest may still come, for some seconds; then the head is used as a cut line, and only once."""
    tail = _tail(log, clock)
    log.write_bytes(b"one\nhal")
    assert _drain(tail) == [(b"one\n", False)]
    clock.now += 1000  # a long silence before the rotation says nothing about what comes right after it
    log.rename(log.with_name("audit.log.1"))
    log.write_bytes(b"new\n")
    assert _drain(tail) == [(b"new\n", False)]
    clock.now += HALF_LINE_WAIT_S
    assert _drain(tail) == [(b"hal", True)]
    assert _drain(tail) == []
    _append(log.with_name("audit.log.1"), b"f\nlate\n")
    assert _drain(tail) == [(b"late\n", False)]


def test_a_half_line_that_is_finished_after_the_rename_is_whole(log, clock):
    """A writer that still holds the old file finishes its line there."""
    tail = _tail(log, clock)
    log.write_bytes(b"hal")
    assert _drain(tail) == []
    log.rename(log.with_name("audit.log.1"))
    _append(log.with_name("audit.log.1"), b"f\n")
    log.write_bytes(b"new\n")
    assert _drain(tail) == [(b"half\n", False), (b"new\n", False)]


def test_without_following_the_last_line_needs_no_newline(log, clock):
    """An import reads a file as it is: its last line is whole."""
    log.write_bytes(b"one\ntwo")
    assert _drain(_tail(log, clock, follow=False)) == [(b"one\n", False), (b"two", False)]


def test_the_hole_of_a_log_that_was_cut_under_its_writer_is_passed_over(log, clock):
    """kube-apiserver does not append: after copytruncate it goes on at its old offset, behind a hole of zeros."""
    tail = _tail(log, clock)
    with open(log, "wb") as writer:
        writer.write(b"old line\n" * 1000)
        writer.flush()
        assert _drain(tail)
        with open(log, "r+b") as cutter:
            cutter.truncate(0)
        writer.write(b"new line\n")
        writer.flush()
        assert log.read_bytes().startswith(b"\0")
        assert _drain(tail, 100) == [(b"new line\n", False)]


def test_a_read_error_is_tried_again(log, clock, monkeypatch, caplog):
    """A disk that fails for a moment costs time, no lines, and does not end the reading."""
    log.write_bytes(b"one\n")
    tail = _tail(log, clock)
    tail.scan()
    with monkeypatch.context() as patch:
        patch.setattr("forwarder.logfile.followed.os.pread", _fail)
        assert tail.read(1000) is None
    assert "Input/output error" in caplog.text
    assert _drain(tail) == [(b"one\n", False)]


def _fail(*_):
    raise OSError(5, "Input/output error")
