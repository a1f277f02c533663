"""The audit log as Fluent Bit finds it: whether it can be read at all, and how far reading is behind, from the file in which
Fluent Bit keeps its positions.
"""

import contextlib
import glob
import os
import sqlite3
from pathlib import Path

MAX_FILES = 1000  # rotated files; kube-apiserver keeps ten by default


def log_trouble(path: Path) -> str:
    """Why the log at `path` cannot be followed now, and what to do; empty when all is well."""
    if os.access(path, os.R_OK):
        return ""
    if not path.exists():
        return f"{path} is not there yet; does kube-apiserver write to it (--audit-log-path), with a policy?"
    user = f"uid {os.geteuid()}"
    return f"{path} may not be read by {user}; give it a group (docs/audit-log.md), or run the sidecar as its owner"


def log_lag(database: Path, patterns: str) -> int | None:
    """Bytes of the files that match `patterns` (with `,` between them) and are not read yet; None where no one knows.

    A file that is not in the database has not been read at all. Positions are by inode, so rotation moves nothing.
    """
    sizes: dict[int, int] = {}
    for pattern in patterns.split(","):
        for path in glob.glob(pattern)[:MAX_FILES]:
            with contextlib.suppress(OSError):
                found = os.stat(path)
                sizes[found.st_ino] = found.st_size
    if not database.exists():
        return sum(sizes.values())
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1.0)) as connection:
            offsets: dict[int, int] = dict(
                connection.execute("SELECT inode, max(offset) FROM in_tail_files GROUP BY inode").fetchall()
            )
    except sqlite3.Error:
        return None
    return sum(max(0, size - offsets.get(inode, 0)) for inode, size in sizes.items())
