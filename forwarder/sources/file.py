"""Follows audit logs on this machine: files, or globs, through rotation by rename, by copytruncate, and into `.gz`.

    sources:
      file:
        path: /var/log/kubernetes/audit/audit.log   # or a glob: /var/log/k3s-audit*.log
        checkpoint: /var/lib/forwarder/file.json
        start: end                                  # or beginning; only where there is no checkpoint yet
        history: false                              # true: also what was rotated away before, `.gz` included

The position is acknowledged by writing the checkpoint, and that happens only after `submit` has returned: after a crash
the log is read again from there, and what was accepted in between is recognised by its id. So the checkpoint may lag
behind (a few tenths of a second where nothing matched), but never run ahead.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from forwarder.contracts import Batch, Line, Screen, Stopping, Submit, candidates
from forwarder.errors import ConfigError, Overloaded, ShuttingDown
from forwarder.logfile import checkpoint
from forwarder.logfile.rotation import Rotation
from forwarder.logfile.tail import DEFAULT_MAX_LINE_BYTES, Piece, Tail
from forwarder.settings import parse_bytes
from forwarder.telemetry import Telemetry
from forwarder.wire.budget import ByteBudget

log = logging.getLogger(__name__)

CHECKPOINT_INTERVAL_S = 0.3  # for progress without candidates: an fsync a piece would cost more than the reading
COMPLAINT_INTERVAL_S = 60.0  # a folder or disk that stays broken is no reason to fill a log with it
MAX_RETRY_AFTER_S = 10.0  # however long an overloaded pipeline asks for: its state may change any moment


class FileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one file source; sizes are bytes or text such as `8MiB`.

    path: the log, or a glob of logs, or a list of them; rotated siblings of a single file are found by themselves. A `.gz`
    that is named itself is read once.
    start: `end` or `beginning`: where to begin with a log that was there before the first start.
    history: whether the first start reads what was rotated away before it, too, `.gz` files included; once.
    checkpoint: file that keeps the position, 0600; empty: none, and each start is a first start.
    poll_interval_s: seconds between two looks at the log; each costs about 0.1 ms.
    max_line_bytes: longer lines are cut: their head is used, the rest passed over.
    batch_lines, batch_bytes: the most that is submitted at once.
    cluster: name of the cluster that writes the log; empty: the global one.
    follow: false ends at the end of the file, for imports.
    """

    path: str | list[str]
    start: Literal["end", "beginning"] = "end"
    history: bool = False
    checkpoint: str = ""
    poll_interval_s: Annotated[float, msgspec.Meta(ge=0.01, le=3600)] = 0.2
    max_line_bytes: int | str = DEFAULT_MAX_LINE_BYTES
    batch_lines: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 5000
    batch_bytes: int | str = 1 << 20
    cluster: str = ""
    follow: bool = True


def environment_path(name: str, value: str) -> str:
    """`value` of the environment variable `name`, if it is absolute and free of `..`; else ConfigError.

    The environment of a service is often assembled by others than its settings: a relative path would depend on the
    folder that the service starts in, and `..` can leave the folder that a mount was meant to confine it to.
    """
    if not value.startswith("/") or ".." in value.split("/") or "\0" in value:
        raise ConfigError("the path must be absolute and free of `..`", where=name)
    return value


class FileSource:
    """A `contracts.Source` that reads a log in this machine's file system. The log is never written to."""

    def __init__(
        self,
        name: str,
        settings: FileSettings,
        screen: Screen,
        telemetry: Telemetry,
        cluster: str = "",
        *,
        budget: ByteBudget | None = None,
    ) -> None:
        """Raises ConfigError for sizes that cannot be; the file system is first touched by `run`."""
        self.name = name
        self._settings = settings
        self._screen = screen
        self._cluster = settings.cluster or cluster
        self._budget = budget or ByteBudget()
        max_line_bytes = _size(settings.max_line_bytes, f"{name}.max_line_bytes", least=1 << 10)
        self._batch_bytes = _size(settings.batch_bytes, f"{name}.batch_bytes", least=1 << 10)
        self._paths = [settings.path] if isinstance(settings.path, str) else list(dict.fromkeys(settings.path))
        if not self._paths or not all(self._paths):
            raise ConfigError("it needs at least one path", where=f"sources.{name}.path")
        from_start = settings.start == "beginning"
        self._tails = [
            Tail(
                Rotation(path, from_start=from_start, follow=settings.follow, history=settings.history),
                max_line_bytes=max_line_bytes,
            )
            for path in self._paths
        ]
        self._turns = list(self._tails)
        self._lag_bytes = telemetry["forwarder_file_lag_bytes"].labels(source=name)
        self._bytes = telemetry["forwarder_source_bytes"].labels(source=name)
        self._left_out_bytes = telemetry["forwarder_file_left_out_bytes"].labels(source=name)
        self._saved: checkpoint.Checkpoint | None = None
        self._saved_at = 0.0
        self._scanned_at = 0.0
        self._complained_at: dict[str, float] = {}
        self.description = ", ".join(self._paths)
        """What is read from where, for the start-up report; complete once `run` has called `started`."""

    async def run(self, submit: Submit, stopping: Stopping, started: Callable[[], None]) -> None:
        """See `contracts.Source`. File calls run in a thread, so that a slow disk never holds up the event loop; screening
        stays in the loop, a batch at a time, because the screen is shared with other sources and knows no threads.
        """
        await asyncio.to_thread(self._open)
        share = self._budget.share(on_change=_nothing)
        started()
        try:
            while not stopping.is_set():
                if self._budget.spent:
                    await _wait(stopping, self._settings.poll_interval_s)
                    continue
                read = await asyncio.to_thread(self._read)
                if read is not None:
                    tail, piece = read
                    share.resize(len(piece.data))
                    if not await self._hand_over(tail, piece, submit, stopping):
                        break
                    share.resize(0)
                elif self._settings.follow:
                    await _wait(stopping, self._settings.poll_interval_s)
                else:
                    break
        finally:
            share.close()
            await asyncio.to_thread(self._close)

    async def _hand_over(self, tail: Tail, piece: Piece, submit: Submit, stopping: Stopping) -> bool:
        """Submit what is in `piece` and then move the position; False when the pipeline closes before it took all."""
        begin = 0
        while True:
            batch, begin = self._batch(piece, begin)
            if batch.received and not await self._submitted(batch, submit, stopping):
                return False
            tail.accept(piece, begin)
            if batch.lines or time.monotonic() - self._saved_at >= CHECKPOINT_INTERVAL_S:
                await asyncio.to_thread(self._save)
            if begin >= piece.end:
                self._bytes.inc(piece.next_offset - piece.offset)
                self._left_out_bytes.inc(piece.left_out)
                return True

    async def _submitted(self, batch: Batch, submit: Submit, stopping: Stopping) -> bool:
        """The same batch until it is taken: an overloaded pipeline has kept nothing of it."""
        while True:
            try:
                await submit(batch)
                return True
            except Overloaded as error:
                await _wait(stopping, min(error.retry_after_s, MAX_RETRY_AFTER_S))
            except ShuttingDown:
                return False
            if stopping.is_set():
                return False

    def _batch(self, piece: Piece, begin: int) -> tuple[Batch, int]:
        """The next lines of `piece` from `begin` on, and where they end. Only what passes the screen is copied."""
        data, end, most = piece.data, piece.end, self._settings.batch_lines
        spans: list[tuple[int, int]] = []
        while begin < end and len(spans) < most:
            newline = data.find(b"\n", begin, end)
            after = stop = end if newline < 0 else newline
            if newline >= 0:
                after += 1
            if stop > begin and data[stop - 1] == 0x0D:
                stop -= 1
            if stop > begin:
                spans.append((begin, stop))
            begin = after
        time_s = max(0, piece.file.mtime_ns) / 1e9 if piece.cut else 0.0  # a cut line has lost its own timestamps
        chosen = [spans[position] for position in candidates(self._screen, data, spans)]
        lines = [Line(data[start:stop], time_s, piece.offset + start) for start, stop in chosen]
        if piece.cut:
            log.warning(
                "%s: the line at byte %d is cut after %d bytes; its head is used", piece.file.name, piece.offset, end
            )
        origin = f"file {piece.file.name}"
        return Batch(origin=origin, received=len(spans), lines=lines, cluster=self._cluster), begin

    # --- in a thread ---

    def _open(self) -> None:
        """Find out where to begin, and make that the first checkpoint. Raises ConfigError."""
        follow = self._settings.follow
        for tail in self._tails:
            tail.rotation.log_files.check()
        restored = self._restore()
        words = []
        for path, tail in zip(self._paths, self._tails, strict=True):
            try:
                tail.scan()
            except OSError as error:
                raise ConfigError(f"cannot look for it: {error.strerror}", where=path) from None
            files = tail.rotation.files
            if not files and not follow:
                raise ConfigError("there is no such file", where=path)
            if not any(file.current or file.compressed for file in files):
                log.warning("%s does not exist yet; waiting for it", path)
            words.append(f"{path} from {'the checkpoint' if path in restored else 'its ' + self._settings.start}")
        self._scanned_at = time.monotonic()
        self.description = ", ".join(words)
        if self._settings.checkpoint:
            try:
                self._write_checkpoint()
            except OSError as error:
                raise ConfigError(
                    f"cannot write the checkpoint: {error.strerror}", where=self._settings.checkpoint
                ) from None
        elif follow:
            log.warning("%s: no checkpoint is set, so lines written while this is not running are not seen", self.name)

    def _restore(self) -> set[str]:
        """The paths of which the checkpoint says where to go on."""
        if not self._settings.checkpoint:
            return set()
        try:
            stored = checkpoint.load(self._settings.checkpoint)
        except ValueError as error:
            log.warning(
                "%s: %s; everything is read again, and what is known already is recognised",
                self._settings.checkpoint,
                error,
            )
            for path, tail in zip(self._paths, self._tails, strict=True):
                tail.rotation.restore(checkpoint.Checkpoint(path=path, files=[]))
            return set(self._paths)
        if stored is None:
            return set()
        parts = {part.path: part for part in (stored, *stored.more)}
        for path, tail in zip(self._paths, self._tails, strict=True):
            if path in parts:
                tail.rotation.restore(parts[path])
        for path in parts.keys() - set(self._paths):
            log.warning("%s was made for %s; beginning anew", self._settings.checkpoint, path)
        return parts.keys() & set(self._paths)

    def _read(self) -> tuple[Tail, Piece] | None:
        """The next piece; looks at the folders when there is nothing left of the last look, or it is too old."""
        now = time.monotonic()
        found = None
        if now - self._scanned_at < self._settings.poll_interval_s:
            found = self._next()
        if found is None:
            for path, tail in zip(self._paths, self._tails, strict=True):
                try:
                    tail.scan()
                except OSError as error:
                    self._complain(f"cannot look for {path}: {error.strerror}; it is tried again")
            self._scanned_at = now
            found = self._next()
        self._lag_bytes.set(self._lag())
        if found is None and now - self._saved_at >= CHECKPOINT_INTERVAL_S:
            self._save()
        return found

    def _next(self) -> tuple[Tail, Piece] | None:
        """A piece of the first log that has one; it goes to the end of the line, so that a busy log starves no other."""
        for tail in tuple(self._turns):
            piece = tail.read(self._batch_bytes)
            if piece is not None:
                self._turns.remove(tail)
                self._turns.append(tail)
                return tail, piece
        return None

    def _lag(self) -> int:
        return sum(tail.rotation.lag_bytes for tail in self._tails)

    def _save(self) -> None:
        """Write the checkpoint if it has changed. A failure costs reading again after a restart, nothing more."""
        self._saved_at = time.monotonic()
        if not self._settings.checkpoint:
            return
        try:
            self._write_checkpoint()
        except OSError as error:
            self._complain(
                f"cannot write the checkpoint {self._settings.checkpoint}: {error.strerror}; it is tried again"
            )

    def _write_checkpoint(self) -> None:
        first, *others = [tail.rotation.checkpoint() for tail in self._tails]
        now = msgspec.structs.replace(first, more=others)
        if now != self._saved:
            checkpoint.save(self._settings.checkpoint, now)
            self._saved = now

    def _close(self) -> None:
        self._save()
        self._lag_bytes.set(self._lag())
        for tail in self._tails:
            tail.rotation.close()

    def _complain(self, message: str) -> None:
        now = time.monotonic()
        if now - self._complained_at.get(message, -COMPLAINT_INTERVAL_S) >= COMPLAINT_INTERVAL_S:
            self._complained_at[message] = now
            log.error("%s", message)


def _nothing() -> None:
    """The budget is looked at before every read."""


async def _wait(stopping: Stopping, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        pass


def _size(value: int | str, where: str, *, least: int) -> int:
    size = parse_bytes(value, where=where)
    if size < least:
        raise ConfigError(f"{size} bytes is too small; at least {least}", where=where)
    return size
