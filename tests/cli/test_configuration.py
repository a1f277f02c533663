"""Settings files, the environment and the `.env` beside them."""

import os
from pathlib import Path

import pytest

from forwarder.cli.configuration import (
    backend_settings,
    environment_in,
    from_environment,
    is_backend_config,
    read_config,
    read_exits,
)
from forwarder.errors import ConfigError
from forwarder.settings import Document, parse_document

CONFIG = "sources: {forward: {shared_key: '${FORWARD_SHARED_KEY}'}}\nsinks: {backend: {}}\n"


def test_keys_come_from_the_file_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `init` writes runs without a word about the environment; the environment wins where both say something."""
    monkeypatch.delenv("FORWARD_SHARED_KEY", raising=False)
    (tmp_path / "forwarder.yaml").write_text(CONFIG)
    with pytest.raises(ConfigError, match="FORWARD_SHARED_KEY is not set"):
        read_config(tmp_path / "forwarder.yaml")
    (tmp_path / ".env").write_text("FORWARD_SHARED_KEY=file\n")
    assert read_config(tmp_path / "forwarder.yaml").sources["forward"][1].shared_key == "file"
    monkeypatch.setenv("FORWARD_SHARED_KEY", "environment")
    assert read_config(tmp_path / "forwarder.yaml").sources["forward"][1].shared_key == "environment"


def test_an_unreadable_file_beside_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager reads it as root and hands the values on; the service itself need not."""
    (tmp_path / ".env").write_text("A=1\n")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "A" not in environment_in(tmp_path) or os.environ.get("A")


def test_a_dollar_in_the_environment_is_a_dollar() -> None:
    """A key such as `a$$b` or `${X}` that comes from the environment is taken as it is."""
    data = {"sources": {"forward": {"shared_key": "a$$b${X}"}}, "sinks": {"backend": {}}}
    assert from_environment(Document("environment", data, {})).sources["forward"][1].shared_key == "a$$b${X}"


def test_the_backends_sections() -> None:
    """`backend` and `log`, and nothing else."""
    document = parse_document("backend: {listen: '127.0.0.1:1', threshold: 20}\nlog: {format: json}\n", "b.yaml")
    settings, log = backend_settings(document)
    assert (settings.listen, settings.threshold, log.format) == ("127.0.0.1:1", 20, "json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bakend: {}", r"b.yaml:1: unknown key `bakend`; did you mean `backend`"),
        ("log: {}", r"b.yaml: it needs the key `backend`"),
        ("backend: {lisen: x}", r"b.yaml:1: unknown key `backend.lisen`; did you mean `listen`"),
        ("[]", r"b.yaml: it needs the key `backend`"),
    ],
)
def test_what_is_wrong_is_placed(text: str, said: str) -> None:
    """File, line, key and the nearest valid one."""
    with pytest.raises(ConfigError, match=said):
        backend_settings(parse_document(text, "b.yaml"))


def test_a_backends_sinks_are_read_from_its_file(tmp_path: Path) -> None:
    """None where none is named; the file is told apart from a receiver's."""
    path = tmp_path / "backend.yaml"
    path.write_text("backend: {}\n")
    assert read_exits(path) is None
    assert is_backend_config(path)
    (tmp_path / "forwarder.yaml").write_text(CONFIG)
    assert not is_backend_config(tmp_path / "forwarder.yaml")
    path.write_text("backend: {}\nsinks: {backend: {}}\n")
    with pytest.raises(
        ConfigError, match=r"backend.yaml:2: `sinks.backend`: a sink of type backend belongs into a receiver"
    ):
        read_exits(path)
