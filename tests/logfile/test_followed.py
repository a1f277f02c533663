"""One followed file, plain or gzip: the same bytes, the same head, a lag that means something."""

import gzip
import os

import pytest

from forwarder.logfile.checkpoint import head_of
from forwarder.logfile.followed import File

DATA = b"".join(b"line %d\n" % number for number in range(5000))


@pytest.mark.parametrize("name", ["audit.log", "audit.log.1.gz"])
def test_bytes_and_head_are_those_of_the_content(tmp_path, name):
    """So a compressed file is known by what was in the plain one."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(DATA) if name.endswith(".gz") else DATA)
    file = File(str(path), (1, 2))
    file.descriptor = os.open(path, os.O_RDONLY)
    assert file.compressed is name.endswith(".gz")
    assert file.pread(20, 1000) == DATA[1000:1020]
    assert file.read_head() == head_of(DATA[:1024])
    assert file.read_head(10) == head_of(DATA[:10])
    file.rest()
    assert file.pread(20, 1000) == DATA[1000:1020]
    file.close()
    assert file.descriptor is None


def test_the_lag():
    """Of a plain file the bytes behind the position; of a compressed one what was not read from the disk."""
    plain, zipped = File("a.log", (1, 1), offset=30), File("a.log.1.gz", (1, 2))
    plain.size, zipped.disk_size = 100, 40
    assert (plain.lag_bytes, zipped.lag_bytes) == (70, 40)
    zipped.done = True
    assert zipped.lag_bytes == 0


def test_its_mark_says_that_it_is_done():
    """Or it would be read again after a restart."""
    file = File("a.log.1.gz", (1, 2), offset=7)
    file.done = True
    assert (file.mark().offset, file.mark().done) == (7, True)
