"""Which files of a log hold bytes that were not read yet, through every way in which logs are rotated.

- renamed: a file is its device and inode, so the old one is read to its end, late writes included, then the new one;
  files that came and went between two looks are found among the rotated names
- cut in place (copytruncate), or an inode that was given out again: the fingerprint of the first bytes no longer fits;
  the file begins anew, and the rest of what it was is read from a copy that begins with the same bytes, if there is one
- deleted: read to its end while it is held open
- compressed: a `.gz` that begins with the bytes of a known file takes over from where that one was read to; one that nothing
  is known of is new. Offsets in it count what it inflates to, and it is read once

What cannot be found any more is said at ERROR, once. Blocking file calls, one caller at a time; no locks, no tasks.
"""

import logging
import os
import time
from collections.abc import Callable

from forwarder.logfile.checkpoint import HEAD_BYTES, Checkpoint
from forwarder.logfile.followed import UNKNOWN_SIZE, File
from forwarder.logfile.names import PERMISSION_ADVICE, Found, LogFiles, open_log

log = logging.getLogger(__name__)

SAME_CONTENT_BYTES = 256  # equal heads shorter than this may be chance: every audit line begins with the same 80 bytes
HALF_LINE_WAIT_S = 5.0  # for the rest of a line in a file that was rotated away; as long as Fluent Bit waits
QUIET_S = 60.0  # a rotated file that nobody wrote to for so long is closed; it is opened again if it grows after all
LAST_LINE_BYTES = (
    16 << 20
)  # how far back the start of an unfinished last line is looked for; longer ones are cut anyway


class Rotation:
    """The followed files of one log. Constructing it touches nothing."""

    def __init__(
        self,
        path: str,
        *,
        from_start: bool,
        follow: bool = True,
        history: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """from_start: whether a log that was there before the first look is read from its beginning. history: and what was
        rotated away or compressed before it.

        follow: whether more may come; if not, a last line without newline is whole as it is.
        """
        self.log_files = LogFiles(path)
        self.follow = follow
        self._from_start = from_start
        self._history = history
        self._clock = clock
        self._files: dict[tuple[int, int], File] = {}
        self._first = True  # no look yet, and no checkpoint: `from_start` decides
        self._reported: set[str] = set()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where `checkpoint` stopped; every file that it does not know is new and is read from its beginning."""
        self._first = False
        for mark in checkpoint.files:
            key = (mark.device, mark.inode)
            file = File(mark.name, key, offset=mark.offset, head=mark.head, skipping=mark.skipping)
            file.current, file.done = mark.current, mark.done
            self._files[key] = file

    def checkpoint(self) -> Checkpoint:
        """The accepted positions."""
        return Checkpoint(path=self.log_files.path, files=[file.mark() for file in self._read_ones()])

    @property
    def files(self) -> list[File]:
        """What is followed now."""
        return list(self._files.values())

    @property
    def lag_bytes(self) -> int:
        """Bytes that the last look saw and that are not accepted yet."""
        return sum(file.lag_bytes for file in self._read_ones())

    def close(self) -> None:
        """Let go of every file."""
        for file in self.files:
            file.close()

    def scan(self) -> list[File]:
        """Look at the folder; the files with something to read, rotated ones first.

        Raises OSError when the folder may not be looked at; nothing has changed then.
        """
        now = self._clock()
        found = self.log_files.listing()
        listed = {item.key for item in found}
        fresh: list[Found] = []
        left_behind: list[File] = []
        for item in found:
            file = self._files.get(item.key)
            if file is None:
                fresh.append(item)
            elif not self._look_at(file, item, now):
                left_behind.append(self._forget(file))
                fresh.append(item)
        unlisted = [file for file in self.files if file.key not in listed]
        left_behind += [self._forget(file) for file in unlisted if not self._observe_unlisted(file, now)]
        self._wake_copies(left_behind)
        for item in fresh:
            try:
                self._begin(item, left_behind, now)
            except OSError as error:
                self._report_unreadable(item.name, error)
        for file in left_behind:
            self._report_left_behind(file)
        self._first = False
        waiting = [file for file in self._read_ones() if self._has_more(file)]
        return sorted(waiting, key=lambda file: (file.current, file.mtime_ns, file.name))

    def hold(self, file: File, name: str) -> bool:
        """Have `file` open; False when `name` is another file by now, or may not be read."""
        if file.descriptor is not None:
            return True
        try:
            descriptor = open_log(name)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._report_unreadable(name, error)
            return False
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != file.key:
            os.close(descriptor)
            return False
        self._reported.discard(name)
        file.descriptor = descriptor
        return True

    def is_over(self, file: File) -> bool:
        """Whether a half line at the end of `file` will stay one."""
        if file.compressed:
            return file.unzipped is not None and (file.unzipped.at_end or file.unzipped.damaged or self._stalled(file))
        return not self.follow or (not file.current and self._clock() - file.changed_at >= HALF_LINE_WAIT_S)

    def at_end(self, file: File) -> None:
        """`file` was read as far as it goes: a compressed one is done for good, unless it is still being written."""
        if not file.compressed or file.unzipped is None:
            return
        if not file.unzipped.at_end and not file.unzipped.damaged and not self._stalled(file):
            file.size = file.offset  # until it grows
            return
        if not file.unzipped.at_end:
            log.error("%s is damaged or ends early; what it held after byte %d is not seen", file.name, file.offset)
        file.done, file.size = True, file.offset
        file.close()

    def _stalled(self, file: File) -> bool:
        return not self.follow or self._clock() - file.changed_at >= QUIET_S

    def _read_ones(self) -> list[File]:
        return [file for file in self._files.values() if file.copy_of is None]

    def _has_more(self, file: File) -> bool:
        if file.compressed:
            return not file.done and file.size > file.offset
        return file.size > file.offset and (file.size != file.half or self.is_over(file))

    def _look_at(self, file: File, item: Found, now: float) -> bool:
        """`_observe`, where one file that cannot be read keeps nobody from the others."""
        try:
            return self._observe(file, item, now)
        except OSError as error:
            self._report_unreadable(item.name, error)
            return True

    def _observe(self, file: File, item: Found, now: float) -> bool:
        """Take in the look at a known file; False when it no longer begins with the bytes that were read from it."""
        if item.compressed is not file.compressed:
            return False  # in place, under the inode that it had
        if item.compressed:
            return self._observe_compressed(file, item, now)
        if (item.size, item.mtime_ns) != (file.size, file.mtime_ns):
            if item.size < file.offset:
                return False
            if not self.hold(file, item.name):
                return True  # renamed once more since the listing; the next look finds it
            assert file.descriptor is not None
            if file.head.length and file.read_head(file.head.length) != file.head:
                return False
            if file.head.length < HEAD_BYTES:
                file.head = file.read_head()
            file.size, file.mtime_ns, file.changed_at = item.size, item.mtime_ns, now
            twin = self._files.get(file.copy_of) if file.copy_of else None
            if twin is not None and file.size > twin.size >= 0:  # what grows is no mere copy: somebody writes to it
                file.copy_of, file.offset, file.skipping = None, twin.offset, twin.skipping
        present = item.present
        if self.log_files.is_glob:  # no name says which one is written; it is one that keeps its name and grows
            present = item.name == file.name and now - file.changed_at < QUIET_S
        elif file.current and not present:
            file.changed_at = now  # renamed just now: the writer may have some more for it
        file.current, file.name = present, item.name
        if not file.current and now - file.changed_at >= QUIET_S and not self._has_more(file):
            file.close()
        return True

    def _observe_compressed(self, file: File, item: Found, now: float) -> bool:
        """The same for a compressed one: it grows while it is written, and is then read once."""
        file.current, file.name = False, item.name
        if (item.size, item.mtime_ns) == (file.disk_size, file.mtime_ns):
            if not file.done and self._stalled(file):
                file.size = UNKNOWN_SIZE  # one more try, to see that nothing more comes
            return True
        being_read = file.unzipped is not None
        if not self.hold(file, item.name):
            return True
        known = file.read_head(file.head.length) == file.head
        file.disk_size, file.mtime_ns, file.changed_at = item.size, item.mtime_ns, now
        file.size = file.offset if file.done else UNKNOWN_SIZE
        if file.done:
            file.close()
        elif not being_read:
            file.rest()
        return known

    def _observe_unlisted(self, file: File, now: float) -> bool:
        """A file without a name can still be read where it is held open; False when there is nothing left of it."""
        if file.descriptor is None:
            return False
        if file.compressed:
            return self._has_more(file)
        if file.current:
            file.current, file.changed_at = False, now
        size = os.fstat(file.descriptor).st_size
        if size < file.offset:
            return False
        if size != file.size:
            file.size, file.changed_at = size, now
        return now - file.changed_at < QUIET_S or self._has_more(file)

    def _begin(self, item: Found, left_behind: list[File], now: float) -> None:
        """Follow a file that was not known: a new one, or the bytes of a known one in another place."""
        file = File(item.name, item.key)
        if not self.hold(file, item.name):
            return
        assert file.descriptor is not None
        file.size, file.mtime_ns, file.changed_at = item.size, item.mtime_ns, now
        file.current = (item.present or self.log_files.is_glob) and not item.compressed
        try:
            file.head = file.read_head()
        except OSError:
            file.close()
            raise
        if file.unzipped is not None:
            if file.head.length < HEAD_BYTES and not file.unzipped.at_end and not file.unzipped.damaged:
                file.close()  # too short to tell what it is; it is being written
                return
            file.disk_size, file.size = item.size, UNKNOWN_SIZE
        known = next((old for old in left_behind if _same_content(file, old)), None)
        twin = next((old for old in self._read_ones() if _same_content(file, old)), None)
        if known is not None:
            left_behind.remove(known)
            file.offset, file.skipping = min(known.offset, file.size), known.skipping
        elif twin is not None:
            file.copy_of = twin.key
        elif self._first and not file.current and not self._history and not item.present:
            if item.compressed:
                file.done, file.size = True, 0
                file.close()
            else:
                file.offset = item.size
        elif self._first and not file.current:
            pass  # its history is wanted
        elif self._first and not self._from_start:
            file.offset, file.skipping = _end_of(file.descriptor, item.size)
        file.rest()
        self._files[item.key] = file

    def _wake_copies(self, left_behind: list[File]) -> None:
        """A copy takes over from the file that it was made of, once the bytes are gone there."""
        for old in list(left_behind):
            copy = next((file for file in self._files.values() if file.copy_of == old.key), None)
            if copy is not None:
                copy.copy_of = None
                copy.offset, copy.skipping = min(old.offset, copy.size), old.skipping
                left_behind.remove(old)

    def _forget(self, file: File) -> File:
        file.close()
        return self._files.pop(file.key)

    def _report_unreadable(self, name: str, error: OSError) -> None:
        """Once per file, until it could be read again."""
        if name not in self._reported:
            self._reported.add(name)
            advice = PERMISSION_ADVICE.format(path=name) if isinstance(error, PermissionError) else "it is tried again"
            log.error("cannot read %s: %s; %s", name, error.strerror, advice)

    def _report_left_behind(self, file: File) -> None:
        """What became of a file whose bytes are nowhere any more."""
        if file.copy_of is not None:
            return
        if file.compressed:
            if not file.done:
                log.error("%s was deleted before it was read to its end", file.name)
        elif file.size > file.offset:
            log.error("%s was cut or deleted with %d bytes unread", file.name, file.size - file.offset)
        elif file.size < 0 and file.current:  # known from the checkpoint only
            what = "was cut or replaced" if file.key in self._files else "was deleted, or rotated and compressed,"
            log.error(
                "%s %s while nothing followed it; what it held after byte %d is not seen", file.name, what, file.offset
            )
        elif file.current:
            log.info("%s was cut or replaced; it is read from its beginning", file.name)


def _same_content(file: File, old: File) -> bool:
    """Whether `file` begins with all the bytes that were fingerprinted in `old`."""
    if old.head.length < SAME_CONTENT_BYTES or file.head.length < old.head.length or file.descriptor is None:
        return False
    return file.key != old.key and file.read_head(old.head.length) == old.head


def _end_of(descriptor: int, size: int) -> tuple[int, bool]:
    """Where to begin at the end of a file, and whether in the middle of a line.

    It is after the last newline, so that a line which is being written just now counts.
    """
    block = 64 << 10
    end = size
    while end > max(0, size - LAST_LINE_BYTES):
        begin = max(0, end - block)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1, False
        end = begin
    return (0, False) if end == 0 else (size, True)
