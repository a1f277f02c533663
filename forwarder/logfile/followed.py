"""One followed file of a log: who it is, how far it was accepted, and what the last look showed. Plain or gzip."""

import os

from forwarder.logfile.checkpoint import HEAD_BYTES, Head, Mark, head_of
from forwarder.logfile.compressed import GZIP, Unzipped

EMPTY = Head()
UNKNOWN_SIZE = 1 << 62  # of what a compressed file inflates to, until its end was seen


class File:
    """One followed file: who it is, how far it was accepted, and what the last look showed."""

    __slots__ = (
        "changed_at", "copy_of", "current", "descriptor", "disk_size", "done", "half", "head", "key", "mtime_ns", "name",
        "offset", "size", "skipping", "unzipped",
    )  # fmt: skip

    def __init__(
        self, name: str, key: tuple[int, int], *, offset: int = 0, head: Head = EMPTY, skipping: bool = False
    ) -> None:
        self.name = name
        self.key = key
        self.offset = offset
        self.head = head
        self.skipping = skipping  # the rest of the line at `offset` is left out
        self.current = True  # writers may still use it
        self.copy_of: tuple[int, int] | None = None  # the same bytes are read from that file
        self.half = -1  # the size at which nothing but a half line was left
        self.size = self.mtime_ns = self.disk_size = -1
        self.changed_at = 0.0
        self.done = False  # a compressed file of which nothing more is to be read
        self.descriptor: int | None = None
        self.unzipped: Unzipped | None = None

    @property
    def compressed(self) -> bool:
        return self.name.endswith(GZIP)

    @property
    def lag_bytes(self) -> int:
        """What is there and not accepted; of a compressed file as it stands on disk."""
        if not self.compressed:
            return max(0, self.size - self.offset)
        read = self.unzipped.raw_position if self.unzipped else 0
        return 0 if self.done else max(0, self.disk_size - read)

    def pread(self, size: int, offset: int) -> bytes:
        """Bytes of an open file, inflated where it is compressed."""
        assert self.descriptor is not None
        if not self.compressed:
            return os.pread(self.descriptor, size, offset)
        if self.unzipped is None:
            self.unzipped = Unzipped(self.descriptor)
        return self.unzipped.pread(size, offset)

    def read_head(self, length: int = HEAD_BYTES) -> Head:
        """The fingerprint of its first `length` bytes, fewer where it is shorter."""
        return head_of(self.pread(length, 0))

    def mark(self) -> Mark:
        """What the checkpoint keeps of it."""
        device, inode = self.key
        return Mark(
            name=self.name,
            device=device,
            inode=inode,
            offset=self.offset,
            head=self.head,
            skipping=self.skipping,
            current=self.current,
            done=self.done,
        )

    def rest(self) -> None:
        """Forget what was inflated, about a megabyte, until its turn comes; the file stays open."""
        self.unzipped = None

    def close(self) -> None:
        """Let go of it; the position stays."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = self.unzipped = None
