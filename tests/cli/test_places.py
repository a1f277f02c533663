"""Where commands that look from outside find things."""

from pathlib import Path

import pytest

from forwarder.cli.places import find_places
from forwarder.errors import ConfigError


def test_from_a_settings_file(tmp_path: Path) -> None:
    """Relative paths start from the settings file's folder."""
    config = tmp_path / "forwarder.yaml"
    config.write_text(
        "sources: {forward: {}}\nsinks: {backend: {}}\noutbox: {path: box.db}\ntelemetry: {listen: 127.0.0.1:9}\n"
    )
    places = find_places(config, None)
    assert (places.outbox, places.telemetry, places.running) == (tmp_path / "box.db", "127.0.0.1:9", None)


def test_from_a_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a settings file it is the folder of `up`, which need not run."""
    monkeypatch.delenv("FORWARDER_TELEMETRY_LISTEN", raising=False)
    places = find_places(None, tmp_path)
    assert (places.outbox, places.telemetry, places.running) == (tmp_path / "outbox.db", "127.0.0.1:9000", None)


def test_from_a_backends_settings_file(tmp_path: Path) -> None:
    """The outbox of the sinks that hang off it; without sinks it has none."""
    config = tmp_path / "backend.yaml"
    config.write_text("backend: {}\nsinks: {stdout: {}}\ntelemetry: {listen: 127.0.0.1:9}\n")
    places = find_places(config, None)
    assert (places.outbox, places.telemetry, places.owner) == (tmp_path / "onward.db", "127.0.0.1:9", "backend")
    config.write_text("backend: {}\n")
    with pytest.raises(ConfigError, match="no sink hangs off this backend, so it has no outbox"):
        find_places(config, None)
