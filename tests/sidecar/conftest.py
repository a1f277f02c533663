"""Settings of a sidecar whose folders are the test's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from forwarder.sidecar.settings import SidecarSettings


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., SidecarSettings]:
    def make(**changes: object) -> SidecarSettings:
        folders = {name: str(tmp_path / name) for name in ("run_dir", "state_dir", "tls_basedir", "additional_dir")}
        return SidecarSettings(**{**folders, **changes})  # type: ignore[arg-type]

    return make
