"""The disk under the outbox is full to its last byte, then has room again: nothing is lost, nothing is counted twice."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

DISK = "size=2m"
SAYS = "the outbox cannot store anything (disk_full: database or disk is full): acknowledgements wait, nothing is lost"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; skips where mounting is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system: run as root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that leaves not one byte on the disk."""
    ballast = disk / "ballast"
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(handle, b"x" * 4096)
    except OSError:
        return ballast
    finally:
        os.close(handle)


@pytest.mark.parametrize("door", ["fluent-bit", "file"])
def test_a_full_disk_makes_senders_wait(product, disk, sample, rows_of, until, door):
    """While it is full the receiver says so, acknowledges nothing, survives kill -9 and starts again; then all arrives."""
    product.outbox = disk / "outbox.db"
    position = product.folder / "position.json"
    file = {"path": str(product.audit_log), "start": "beginning", "checkpoint": str(position)}
    sections = {"sources": {"file": file}} if door == "file" else {}
    product.configure(outbox={"path": str(product.outbox), "max_bytes": "1MiB"}, **sections)
    product.start()
    if door == "fluent-bit":
        product.fluent_bit().start()
    lines = sample.lines(12_000)
    product.append([next(lines) for _ in range(2000)])
    until(lambda: product.ledger().new > 0, "the first events")
    ballast = fill(disk)
    product.append([next(lines) for _ in range(5000)])
    until(lambda: SAYS in product.receiver.output(), "the word about the disk")
    stored = product.ledger().new
    product.receiver.kill()
    product.receiver.start()
    time.sleep(5)
    product.append(list(lines))
    assert product.ledger().new == stored
    assert product.receiver.running, product.receiver.output()
    ballast.unlink()
    expected = rows_of(sample)
    product.settled(len(expected))
    assert sorted(product.stored()) == expected
    assert product.ledger().new == len(expected)
    assert "Traceback" not in product.receiver.output()
