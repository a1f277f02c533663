"""Files with secrets in them: there as a whole or not at all, and never readable by anyone but their owner."""

import os
import tempfile
from pathlib import Path

from forwarder.errors import ConfigError


def write_private(path: Path, data: bytes) -> None:
    """`data` at `path`, 0600; its folder is made 0700 where it is missing. Raises ConfigError.

    It is written beside and renamed: a reader, or a crash, meets the old file or the new one, and at no moment one with
    wider permissions.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mkstemp makes it 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror}", where=str(path)) from None
