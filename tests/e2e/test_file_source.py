"""The file source as a process of its own: killed at any moment, over rotation of both kinds, it misses no line."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import forwarder
from forwarder.cli.demo_log import LogWriter
from forwarder.events.sample import SampleLog

pytestmark = pytest.mark.e2e

READER = """
import asyncio, os, sys
from forwarder.sources.file import FileSettings, FileSource
from forwarder.telemetry import Telemetry

log, checkpoint, output = sys.argv[1:]

async def submit(batch):
    with open(output, "ab") as file:
        file.writelines(line.data + b"\\n" for line in batch.lines)
        file.flush()
        os.fsync(file.fileno())

settings = FileSettings(path=log, checkpoint=checkpoint, start="beginning", poll_interval_s=0.02, batch_lines=50)
source = FileSource("file", settings, lambda buffer, start, end: True, Telemetry())
asyncio.run(source.run(submit, asyncio.Event(), lambda: None))
"""


class Reader:
    """The process; what it accepted stands in `output`, in which the last line may be cut by a kill."""

    def __init__(self, folder, log):
        self.output = folder / "accepted.ndjson"
        self.output.touch()
        self._arguments = [sys.executable, "-c", READER, str(log), str(folder / "file.json"), str(self.output)]
        self._environment = {**os.environ, "PYTHONPATH": str(Path(forwarder.__file__).parent.parent)}
        self._process = None

    def start(self):
        self._process = subprocess.Popen(self._arguments, env=self._environment)

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            with open(self.output, "ab") as file:
                file.write(b"\n")  # ends a line that the kill cut

    def accepted(self):
        return Counter(self.output.read_bytes().split(b"\n"))


@pytest.fixture
def reader(tmp_path):
    reader = Reader(tmp_path, tmp_path / "logs" / "audit.log")
    (tmp_path / "logs").mkdir()
    yield reader
    reader.kill()


def _rename(log, writer):
    writer.rotate()
    return writer


def _copy_and_cut(log, writer):
    for number in range(20, 0, -1):
        if log.with_name(f"audit.log.{number}").exists():
            log.with_name(f"audit.log.{number}").rename(log.with_name(f"audit.log.{number + 1}"))
    shutil.copy(log, log.with_name("audit.log.1"))
    os.truncate(log, 0)


@pytest.mark.parametrize("rotate", [_rename, _copy_and_cut], ids=["rename", "copytruncate"])
def test_rotation_and_kills_miss_no_line(tmp_path, reader, wait_until, rotate):
    """Twelve rotations and eight kills at random moments: every line was accepted, few of them twice."""
    rng = random.Random(1)
    log = tmp_path / "logs" / "audit.log"
    sample = SampleLog(1, start_time=time.time())
    writer = LogWriter(str(log))
    written = []
    reader.start()
    wait_until((tmp_path / "file.json").exists, "the first look")  # what was rotated before it is history
    for step in range(24):
        for _ in range(100):
            written.append(sample.line())
            writer.write(written[-1])
            if rng.random() < 0.02:
                time.sleep(0.005)
        if step % 2:
            rotate(log, writer)
        if step % 3 == 2:
            time.sleep(rng.random() * 0.6)
            reader.kill()
            reader.start()
    writer.close()
    wait_until(lambda: not set(written) - set(reader.accepted()), "every line")
    twice = sum(count - 1 for line, count in reader.accepted().items() if count > 1 and line)
    assert twice <= 8 * 50  # at most the batch that was under way at each kill
