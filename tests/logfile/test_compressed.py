"""Bytes of a gzip file by their place: whole, in pieces, still being written, damaged, and within bounds."""

import gzip
import os
import tracemalloc

import pytest

from forwarder.logfile.compressed import PIECE_BYTES, Unzipped

DATA = b"".join(b"line %d\n" % number for number in range(50_000))


@pytest.fixture
def opened(tmp_path):
    """A function: an Unzipped of a file with that content, and its path."""
    descriptors = []

    def make(content):
        path = tmp_path / "a.gz"
        path.write_bytes(content)
        descriptors.append(os.open(path, os.O_RDONLY))
        return Unzipped(descriptors[-1]), path

    yield make
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(DATA), gzip.compress(DATA[:7]) + gzip.compress(DATA[7:]), gzip.compress(DATA) + b"\0" * 512],
    ids=["one member", "two members", "padding"],
)
def test_every_place_can_be_read(opened, content):
    """Forward, over again, back, and behind the end."""
    unzipped, _ = opened(content)
    for offset in (0, 3, 3, 100_000, 7, len(DATA) - 5, 0):
        assert unzipped.pread(50, offset) == DATA[offset : offset + 50]
    assert unzipped.pread(10, len(DATA)) == b""
    assert (unzipped.at_end, unzipped.damaged) == (True, False)


def test_a_file_that_is_still_written_goes_on(opened):
    """Its end is no end until the stream's is there."""
    whole = gzip.compress(DATA)
    unzipped, path = opened(whole[: len(whole) // 2])
    first = unzipped.pread(len(DATA), 0)
    assert DATA.startswith(first)
    assert len(first) < len(DATA)
    assert not unzipped.at_end
    with open(path, "ab") as file:
        file.write(whole[len(whole) // 2 :])
    assert first + unzipped.pread(len(DATA), len(first)) == DATA
    unzipped.pread(1, len(DATA))
    assert unzipped.at_end


@pytest.mark.parametrize(
    "content", [b"no gzip at all", gzip.compress(DATA)[:2000] + b"oops" * 5000], ids=["text", "broken"]
)
def test_damage_is_an_end_of_its_own(opened, content):
    """What came before it can be read."""
    unzipped, _ = opened(content)
    unzipped.pread(len(DATA), 0)
    assert (unzipped.at_end, unzipped.damaged) == (False, True)


def test_an_empty_file_is_no_end(opened):
    """Somebody is about to write it."""
    unzipped, _ = opened(b"")
    assert unzipped.pread(1, 0) == b""
    assert not unzipped.at_end


def test_memory_is_bounded_whatever_the_ratio(opened):
    """A file of zeros inflates a thousandfold; what is passed over is not kept."""
    size = 64 << 20
    unzipped, _ = opened(gzip.compress(b"\0" * size))
    tracemalloc.start()
    assert unzipped.pread(10, size - 10) == b"\0" * 10
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * PIECE_BYTES
