"""Where reading stopped, on disk: one small JSON file, replaced atomically: a crash leaves the old one or the new one.

    {"version": 1, "path": "/var/log/audit.log", "files": [{"name": …, "device": …, "inode": …, "offset": …, …}]}

A mark says which file (device and inode, and a fingerprint of its first bytes, because inode numbers are given out
again and a truncated file keeps its own) and how many of its bytes were accepted. It holds no content of the log.
"""

import hashlib
import os
from pathlib import Path

import msgspec

from forwarder.errors import ConfigError

VERSION = 1
HEAD_BYTES = 1024  # fingerprinted at the head of a file: one audit line is about that long and its auditID is unique
MAX_CHECKPOINT_BYTES = 4 << 20  # 256 marks with the longest file names; a larger file is not one of ours


class Head(msgspec.Struct, frozen=True):
    """Fingerprint of the first `length` bytes (0..HEAD_BYTES) of a file; a longer one may begin with the same."""

    length: int = 0
    sha256: str = ""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """One followed file. offset: everything before it was accepted. skipping: the rest of that line is to be left out.

    current: writers still used it; False for a rotated one, which may rightly have been deleted since.
    done: a compressed one that was read to its end, or is not to be read.
    """

    name: str
    device: int
    inode: int
    offset: int
    head: Head
    skipping: bool = False
    current: bool = True
    done: bool = False


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. path: the setting it was made for; another path is another beginning. more: of further paths."""

    version: int = VERSION
    path: str
    files: list[Mark]
    more: list["Checkpoint"] = []


_decode = msgspec.json.Decoder(Checkpoint).decode


def head_of(data: bytes) -> Head:
    """The fingerprint of the first bytes of a file."""
    return Head(len(data), hashlib.sha256(data).hexdigest())


def load(path: str | Path) -> Checkpoint | None:
    """The checkpoint at `path`; None when there is none yet.

    Raises ConfigError when it cannot be read or is from a newer version, ValueError when it is damaged.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_CHECKPOINT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read the checkpoint: {error.strerror}", where=str(path)) from None
    try:
        version = msgspec.json.decode(raw, type=_Version).version
        checkpoint = _decode(raw) if version == VERSION else None
    except (msgspec.MsgspecError, RecursionError):  # says nothing that a person could act on
        raise ValueError("the checkpoint is damaged") from None
    if checkpoint is None:
        raise ConfigError(
            f"the checkpoint has version {version}, this program knows {VERSION}; update it, or delete the file",
            where=str(path),
        )
    return checkpoint


class _Version(msgspec.Struct):
    version: int


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Replace the file at `path`; it is on disk when this returns. Mode 0600. Raises OSError."""
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # one left over from a crash keeps the mode that it had
        file.write(msgspec.json.format(msgspec.json.encode(checkpoint), indent=1))
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # else a power cut may bring the old file back, or none
    finally:
        os.close(folder)
