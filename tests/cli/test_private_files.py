"""Files with secrets in them."""

import os
import stat
from pathlib import Path

import pytest

from forwarder.cli.private_files import write_private
from forwarder.errors import ConfigError


def test_only_the_owner_reads_it_whatever_the_umask(tmp_path: Path) -> None:
    """0600 in a folder of 0700, also where everything is open by default and an old file was open to all."""
    old = os.umask(0)
    try:
        write_private(tmp_path / "new" / "key", b"secret")
        (tmp_path / "open").write_text("old")
        write_private(tmp_path / "open", b"secret")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    for path in (tmp_path / "new" / "key", tmp_path / "open"):
        assert path.read_bytes() == b"secret"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """The error names the path; no half file stays."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder: cannot write it"):
        write_private(tmp_path / "folder", b"secret")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
