"""Audit logs on disk, read once from front to back: files, folders, globs, `-`, plain or gzip, in bounded memory.

Lines are given as spans of a buffer that is valid until the next step, so that a rule's screen can look at them in
place and most lines are never copied.
"""

import glob
import gzip
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from forwarder.errors import ConfigError

BLOCK_BYTES = 1 << 20  # larger blocks read no faster here and leave the cache
MAX_LINE_BYTES = 9_000_000  # what the shipped Fluent Bit configurations cut at; a 600 kB ConfigMap line passes
STDIN = "-"

# What kube-apiserver and its helpers leave behind: audit.log, audit-2026-03-01T10-00-00.000.log, …log.gz, audit.log.1
_LOG_NAME = re.compile(r"\.(?:log|json|jsonl|ndjson)(?:[.-][0-9T.:Z-]+)?(?:\.gz)?$")


class Block(msgspec.Struct):
    """Whole lines: `buffer[start:end]` for each span, without newlines. first_line: number of the first one, from 1.

    overlong: numbers of lines above MAX_LINE_BYTES, which were left out. position_bytes: how far the file is read.
    """

    buffer: bytes
    spans: list[tuple[int, int]]
    first_line: int
    overlong: list[int]
    position_bytes: int


class CutShortError(Exception):
    """A compressed log whose end is missing or damaged; everything before it was given."""


def find_logs(names: Sequence[str], *, not_before_s: float = 0.0) -> list[str]:
    """The files that `names` mean, oldest first within a folder or glob. Raises ConfigError for a name without a file.

    Files that were last written before `not_before_s` (Unix seconds) are left out: all their lines are older.
    """
    found: dict[str, None] = {}
    for name in names:
        if name == STDIN:
            found[name] = None
            continue
        path = Path(name)
        if path.is_dir():
            files = [str(file) for file in path.iterdir() if file.is_file() and _LOG_NAME.search(file.name)]
            if not files:
                raise ConfigError("a folder without audit logs (*.log, *.json, *.ndjson, also .gz)", where=name)
        elif path.exists():
            files = [name]
        else:
            files = [file for file in glob.glob(name) if Path(file).is_file()]
            if not files:
                raise ConfigError("there is no such file", where=name)
        if not all(os.access(file, os.R_OK) for file in files):
            locked = next(file for file in files if not os.access(file, os.R_OK))
            raise ConfigError("it may not be read by this user; audit logs belong to root", where=locked)
        files.sort(key=lambda file: (os.path.getmtime(file), file))
        found |= dict.fromkeys(file for file in files if os.path.getmtime(file) >= not_before_s)
    return list(found)


def total_bytes(files: Sequence[str]) -> int:
    """Bytes on disk; standard input counts nothing."""
    return sum(os.path.getsize(file) for file in files if file != STDIN)


def read_blocks(name: str) -> Iterator[Block]:
    """The lines of one log, a block at a time. Raises CutShortError after the last whole line of a damaged gzip file.

    An unfinished last line is given too: what is written now is as true as what was written before.
    """
    if name == STDIN:
        yield from _blocks(sys.stdin.buffer, lambda: 0)
        return
    try:
        raw = open(name, "rb")  # noqa: SIM115 - closed below, with what wraps it
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=name) from None
    with closing(raw):
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        yield from _blocks(_gunzip(raw) if packed else raw, raw.tell)


def _gunzip(raw: BinaryIO) -> Any:
    try:
        from isal import igzip
    except ImportError:
        return gzip.GzipFile(fileobj=raw)
    return igzip.IGzipFile(fileobj=raw)  # type: ignore[no-untyped-call]


def _blocks(stream: BinaryIO, position: Callable[[], int]) -> Iterator[Block]:
    rest = b""
    number = 1
    skipping = False  # inside a line that is too long to hold
    while True:
        damaged = False
        try:
            piece = stream.read(BLOCK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            piece, damaged = b"", True
        ended = not piece
        overlong: list[int] = []
        if skipping:
            end = piece.find(b"\n")
            if end < 0 and not ended:
                continue
            piece = piece[end + 1 :]
            skipping = False
            overlong.append(number)
            number += 1
        buffer = rest + piece
        spans: list[tuple[int, int]] = []
        first = number
        start = 0
        while (end := buffer.find(b"\n", start)) >= 0:
            spans.append((start, end - 1 if end > start and buffer[end - 1] == 0x0D else end))
            start = end + 1
        rest = buffer[start:]
        if ended and rest and not damaged:
            spans.append((start, len(buffer)))
            rest = b""
        number += len(spans)
        if len(rest) > MAX_LINE_BYTES:
            rest, skipping = b"", True
        if spans or overlong:
            yield Block(buffer, spans, first, overlong, position())
        if damaged:
            raise CutShortError
        if ended:
            return
