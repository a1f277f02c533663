"""Events as lines of JSON in a file that is rotated: for a log shipper on the same machine, or to keep them.

    sinks:
      audit-copy: {type: file, stream: audit, path: /var/log/forwarder/audit.jsonl, max_bytes: 100MiB, keep_files: 5}

An event counts as written when it is on the disk (fsynced). Only whole lines are left: half a line, of a kill or a full
disk, is taken back, at the next start or at once, and its event is written again. At-least-once. The file is 0600.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from forwarder.contracts import Done, Later, Outcome, StreamSettings
from forwarder.errors import ConfigError
from forwarder.events import friction
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.settings import parse_bytes
from forwarder.telemetry import Telemetry

AGAIN_S = 5.0  # a full disk, a folder that is not there: both may pass
MIN_FILE_BYTES = 4096
TAIL_BYTES = 64 << 10  # read at once in search of the last line break


class FileSinkSettings(StreamSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Beside what every sink of a stream has:

    path: the file; rotated ones are path.1 (the newest), path.2 and so on. max_bytes: a file is rotated before it would be
    larger. keep_files: rotated files kept; 0 keeps none. updates: whether the end of a session is a second line with the
    same id (friction events only). required: whether acks wait when too many friction events wait for this sink.
    """

    path: str
    max_bytes: int | str = "100MiB"
    keep_files: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 5
    updates: bool = True
    required: bool = False


class FileSink:
    """A `contracts.Sink` and `contracts.AuditSink`: one event, one line."""

    batch_events = 500  # one fsync for all of them

    def __init__(self, name: str, settings: FileSinkSettings, telemetry: Telemetry | None = None) -> None:
        """Raises ConfigError."""
        self.name = name
        self.takes_updates = settings.updates
        self.required = settings.required
        self._path = Path(settings.path)
        self._keep = settings.keep_files
        self._max_bytes = parse_bytes(settings.max_bytes, where=f"sinks.{name}.max_bytes")
        if self._max_bytes < MIN_FILE_BYTES:
            raise ConfigError(f"`max_bytes` must be at least {MIN_FILE_BYTES}", where=f"sinks.{name}")
        self._file = -1
        self._size = 0

    def deliver(self, events: Sequence[FrictionEvent] | Sequence[OutgoingEvent]) -> Sequence[Outcome]:
        """One outcome per event; those behind a fault are Later."""
        done = 0
        try:
            while done < len(events):
                done += self._write(events[done:])
        except OSError as error:
            with contextlib.suppress(OSError):
                self._take_back()
            self.close()
            return [Done()] * done + [Later(AGAIN_S, f"{self._path}: {error.strerror}")] * (len(events) - done)
        return [Done()] * done

    def close(self) -> None:
        """Called after the last deliver; the next one would open the file again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # --- private -----------------------------------------------------------------------------------------------------

    def _write(self, events: Sequence[FrictionEvent] | Sequence[OutgoingEvent]) -> int:
        """As many as fit into the present file, at least one; how many."""
        if self._file < 0 or self._moved():
            self._open()
        lines: list[bytes] = []
        size = self._size
        for event in events:
            line = (event.json if isinstance(event, OutgoingEvent) else friction.encode(event)) + b"\n"
            if size and size + len(line) > self._max_bytes:
                break
            lines.append(line)
            size += len(line)
        if not lines:
            self._rotate()
            return 0
        data = memoryview(b"".join(lines))
        while data:
            data = data[os.write(self._file, data) :]
        os.fdatasync(self._file)
        self._size = size
        return len(lines)

    def _open(self) -> None:
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = _end_of_last_line(self._file)
        self._take_back()

    def _take_back(self) -> None:
        """What is behind the last whole line that counts as written."""
        if self._file >= 0 and os.fstat(self._file).st_size > self._size:
            os.ftruncate(self._file, self._size)

    def _moved(self) -> bool:
        """Whether somebody else took the file away: logrotate, or a person."""
        try:
            there, here = os.stat(self._path), os.fstat(self._file)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _rotate(self) -> None:
        self.close()
        if self._keep == 0:
            self._path.unlink(missing_ok=True)
            return
        for number in range(self._keep, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)


def _end_of_last_line(file: int) -> int:
    """How many bytes there are up to and with the last line break."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - TAIL_BYTES)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
