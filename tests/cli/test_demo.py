"""The demo's edges; the demo itself is for tests/e2e."""

from pathlib import Path

import pytest

from forwarder.cli.demo import MARKER, _fresh
from forwarder.errors import ConfigError


def test_its_folder_is_made_anew(tmp_path: Path) -> None:
    """What an earlier demo left is gone."""
    folder = tmp_path / ".demo"
    _fresh(folder)
    (folder / "audit.log").touch()
    _fresh(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MARKER, "data"])


def test_a_folder_of_somebody_else_is_not_emptied(tmp_path: Path) -> None:
    """`--dir ~` deletes nothing."""
    (tmp_path / "precious").touch()
    with pytest.raises(ConfigError, match="not empty"):
        _fresh(tmp_path)
    assert (tmp_path / "precious").exists()
