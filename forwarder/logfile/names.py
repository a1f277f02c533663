"""Which files make up one log: the file that is written now, and the ones that rotation moved aside.

A path names the present file; its rotated siblings are found by the names that rotation gives them:

    audit.log -> audit-2026-01-31T09-15-00.123.log                    kube-apiserver and k3s
    audit.log -> audit.log.1, audit.log-20260131, audit.log.20260131  logrotate

and `.gz` behind each of them, where rotation compresses. A glob names all of them itself. Other compressed files are left out.
"""

import glob
import os
import re
import stat
from collections.abc import Iterable
from typing import NamedTuple

from forwarder.errors import ConfigError
from forwarder.logfile.compressed import GZIP

COMPRESSED = (".zst", ".bz2", ".xz", ".lz4")
MAX_FILES = 256  # an apiserver keeps ten backups by default and every followed file costs a look five times a second

PERMISSION_ADVICE = (
    "kube-apiserver writes its audit log for root only: run this program as root, or give the log a group that it is"
    " in, for example `chown root:forwarder {path} && chmod 640 {path}`, and its folder `chmod g+rx`"
)


class Found(NamedTuple):
    """One regular file as it was a moment ago. present: it is the one that the path itself names."""

    name: str
    present: bool
    device: int
    inode: int
    size: int
    mtime_ns: int

    @property
    def compressed(self) -> bool:
        """Whether it is read by what it inflates to; nobody writes to it any more."""
        return self.name.endswith(GZIP)

    @property
    def key(self) -> tuple[int, int]:
        """What a file keeps when it is renamed."""
        return self.device, self.inode


class LogFiles:
    """The files of the log at `path`, an existing or future file, or a glob."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_glob = glob.has_magic(path) and not os.path.lexists(path)

    def listing(self) -> list[Found]:
        """All files of the log, longest unwritten first, the present one last; at most MAX_FILES, the newest ones.

        A path that does not exist (yet) gives an empty list. Raises OSError when it may not be looked at.
        """
        if self.is_glob:
            names: Iterable[str] = glob.iglob(self.path)
            target = ""
        else:
            target = os.path.realpath(self.path)  # behind a link, rotation happens where the link points to
            names = _siblings(target)
        found: dict[tuple[int, int], Found] = {}
        for name in names:
            if name.endswith(COMPRESSED):
                continue
            try:
                status = os.stat(name)
            except FileNotFoundError:
                continue  # rotated away between the listing and the look
            if stat.S_ISREG(status.st_mode):
                item = Found(name, name == target, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                if item.key not in found or item.present:
                    found[item.key] = item
        ordered = sorted(found.values(), key=lambda item: (item.present, item.mtime_ns, item.name))
        return ordered[-MAX_FILES:]

    def check(self) -> None:
        """Raises ConfigError where the path can never be read as a log: a folder, a pipe, no permission."""
        for name in glob.iglob(self.path) if self.is_glob else [self.path]:
            if name.endswith(COMPRESSED):
                if not self.is_glob:
                    raise ConfigError("of compressed files only `.gz` is read; decompress it first", where=name)
                continue
            try:
                mode = os.stat(name).st_mode
                if stat.S_ISREG(mode):
                    os.close(open_log(name))
                elif not self.is_glob:
                    kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
                    raise ConfigError(
                        f"it is {kind}; name the log file itself, or a glob such as `audit*.log`", where=name
                    )
            except FileNotFoundError:
                continue
            except PermissionError:
                raise ConfigError(
                    f"no permission to read it; {PERMISSION_ADVICE.format(path=name)}", where=name
                ) from None
            except OSError as error:
                raise ConfigError(f"cannot read it: {error.strerror}", where=name) from None


def open_log(name: str) -> int:
    """A descriptor for reading only. Never waits, even where somebody put a pipe in the log's place."""
    return os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _siblings(target: str) -> list[str]:
    folder, base = os.path.split(target)
    root, extension = os.path.splitext(base)
    apiserver = rf"{re.escape(root)}-[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9.-]+{re.escape(extension)}"
    logrotate = rf"{re.escape(base)}[.-][0-9][0-9.T_-]*"
    rotated = re.compile(f"(?:{apiserver}|{logrotate})(?:{re.escape(GZIP)})?")
    try:
        names = [name for name in os.listdir(folder) if rotated.fullmatch(name)]
    except (FileNotFoundError, PermissionError):  # a folder may be closed to listing and still let the file be opened
        names = []
    return [os.path.join(folder, name) for name in (*names, base)]
