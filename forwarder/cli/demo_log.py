"""`forwarder demo-log`: writes an audit log of an imaginary cluster, at once or live, rotated as kube-apiserver does it.

forwarder demo-log audit.log --lines 20000                    the past, ending now
forwarder demo-log audit.log --rate 500 --duration 60         live: 500 lines a second for a minute
forwarder demo-log - --lines 1000 | forwarder replay -        on standard output
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forwarder.cli.console import say
from forwarder.errors import ConfigError

if TYPE_CHECKING:
    from forwarder.events.sample import SampleLog

STDOUT = "-"
TICK_S = 0.05  # lines of a live log come in spurts of this length, short beside any flush interval
WRITE_BYTES = 1 << 20  # of a log that is written at once


class LogWriter:
    """Appends lines to a log and moves it aside when it is full, by the names that kube-apiserver gives.

    path: the log, or `-` for standard output. rotate_bytes: 0 for never; a line is never split over two files.
    """

    def __init__(self, path: str, rotate_bytes: int = 0) -> None:
        self._path = Path(path)
        self._rotate_bytes = rotate_bytes
        self._descriptor = sys.stdout.fileno() if path == STDOUT else self._open()
        self._size = 0 if path == STDOUT else os.fstat(self._descriptor).st_size
        self._is_file = path != STDOUT
        self.lines = 0
        self.rotated = 0

    def write(self, line: bytes) -> None:
        """One line, in one write, as an apiserver does it: a reader sees it whole or not at all."""
        self.write_many([line])

    def write_many(self, lines: list[bytes]) -> None:
        """Lines that fit together, in as few writes as possible."""
        block: list[bytes] = []
        for line in lines:
            if self._rotate_bytes and self._is_file and self._size and self._size + len(line) + 1 > self._rotate_bytes:
                self._flush(block)
                self.rotate()
            block.append(line)
            self._size += len(line) + 1
        self._flush(block)
        self.lines += len(lines)

    def rotate(self) -> None:
        """Rename the log to `audit-<UTC time>.log` and begin a new one."""
        os.close(self._descriptor)
        now = datetime.now(UTC)
        while True:
            stamp = f"{now:%Y-%m-%dT%H-%M-%S}.{now.microsecond // 1000:03d}"
            aside = self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")
            if not aside.exists():
                break
            now = datetime.fromtimestamp(now.timestamp() + 0.001, UTC)
        self._path.rename(aside)
        self._descriptor = self._open()
        self._size = 0
        self.rotated += 1

    def close(self) -> None:
        """Let go of the log."""
        if self._is_file:
            os.close(self._descriptor)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot write it: {error.strerror}", where=str(self._path)) from None

    def _flush(self, block: list[bytes]) -> None:
        data = memoryview(b"".join(line + b"\n" for line in block))
        block.clear()
        while data:  # a pipe may take less than it is given
            data = data[os.write(self._descriptor, data) :]


def write_past(log: "SampleLog", writer: LogWriter, lines: int) -> None:
    """`lines` lines at once."""
    block: list[bytes] = []
    size = 0
    for line in log.lines(lines):
        block.append(line)
        size += len(line)
        if size >= WRITE_BYTES:
            writer.write_many(block)
            block, size = [], 0
    writer.write_many(block)


def write_live(
    log: "SampleLog",
    writer: LogWriter,
    *,
    rate: float,
    duration_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """`rate` lines a second for `duration_s` seconds (0: until interrupted); sessions still open are then closed."""
    began = clock()
    written = 0
    try:
        while not duration_s or clock() - began < duration_s:
            due = int((clock() - began) * rate)
            for line in _take(log, due - written):
                writer.write(line)
            written = max(due, written)
            sleep(TICK_S)
    finally:
        while log.open_requests:
            writer.write(log.close_one())


def _take(log: "SampleLog", count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield log.line()


def demo_log(
    output: Annotated[str, typer.Argument(help="The log to append to; - for standard output.")] = STDOUT,
    lines: Annotated[int, typer.Option(min=0, help="Lines of the past, ending now.")] = 1000,
    rate: Annotated[float, typer.Option(min=0, help="Then live: lines a second.")] = 0.0,
    duration: Annotated[float, typer.Option(min=0, help="Seconds of live lines; 0: until Ctrl-C.")] = 0.0,
    rotate_bytes: Annotated[int, typer.Option(min=0, help="Move the log aside when it is larger; 0: never.")] = 0,
    friction_share: Annotated[float, typer.Option(min=0, max=0.3, help="Share of requests that are friction.")] = 0.01,
    seed: Annotated[int, typer.Option(help="The same seed makes the same cluster and the same deeds.")] = 1,
    expected: Annotated[str, typer.Option(help="File for what should be found, one JSON object a line.")] = "",
) -> None:
    """Write a sample audit log: an imaginary cluster, its machines, and people who go around the platform."""
    import msgspec

    from forwarder.events.sample import DEFAULT_LINES_PER_S, SampleLog

    writer = LogWriter(output, rotate_bytes)
    found: list[bytes] = []
    try:
        if lines:
            past = SampleLog(seed, start_time=time.time() - lines / DEFAULT_LINES_PER_S, friction_share=friction_share)
            write_past(past, writer, lines)
            found += map(msgspec.json.encode, past.actions)
        if rate:
            live = SampleLog(
                seed + 1, start_time=time.time(), lines_per_s=rate, friction_share=friction_share, clock=time.time
            )
            try:
                write_live(live, writer, rate=rate, duration_s=duration)
            except KeyboardInterrupt:  # how an endless log is meant to end
                pass
            found += map(msgspec.json.encode, live.actions)
    finally:
        writer.close()
    if expected:
        with open(expected, "wb") as file:
            file.writelines(line + b"\n" for line in found)
    say(f"{writer.lines:,} lines, {len(found):,} of them friction, {writer.rotated} rotations")
