"""The settings file as a whole, and the hand-written lists of components."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from forwarder.errors import ConfigError
from forwarder.feed.settings import FeedSettings
from forwarder.registry import SINKS, SOURCES, build_feed, build_sink, build_source, load_config
from forwarder.settings import parse_document
from forwarder.telemetry import Telemetry
from forwarder.wire.budget import ByteBudget

GOOD: dict[str, Any] = {
    "sources": {"file": {"path": "/var/log/audit.log"}},
    "sinks": {"backend": {"url": "http://b:8000"}},
}


def load(settings: Any, environ: dict[str, str] | None = None) -> Any:
    return load_config(parse_document(json.dumps(settings), "f.yaml"), environ or {})


@pytest.mark.parametrize(("folder", "listed"), [("sources", SOURCES), ("sinks", SINKS)])
def test_every_component_is_a_file_a_line_and_a_section(folder: str, listed: dict[str, Any]) -> None:
    """One file in its folder, one line in the registry, one section in docs/settings.md."""
    files = {path.stem for path in Path("forwarder", folder).glob("*.py")} - {"__init__"}
    assert files == set(listed)
    documented = Path("docs/settings.md").read_text()
    for name in listed:
        assert f"### `{name}`" in documented


@pytest.mark.parametrize("entry", [*SOURCES.values(), *SINKS.values()], ids=lambda entry: entry.component)
def test_every_setting_is_documented(entry: Any) -> None:
    """In the settings' own docstring, and in docs/settings.md."""
    _, settings = entry.load()
    documented = Path("docs/settings.md").read_text()
    docs = " ".join(kind.__doc__ or "" for kind in settings.__mro__)
    for field in settings.__struct_fields__:
        assert field in docs, field
        assert f"`{field}`" in documented, field


def test_components_are_built_without_opening_anything() -> None:
    """Constructors have no side effects."""
    loaded = load(GOOD | {"cluster": "prod-eu-1"})
    assert build_source("file", loaded, lambda *_: True, Telemetry(), ByteBudget()).name == "file"
    assert build_sink("backend", loaded, Telemetry()).name == "backend"


def test_two_of_a_kind_carry_names_of_their_own() -> None:
    """`type` says what they are."""
    loaded = load(
        GOOD | {"sinks": {"one": {"type": "backend", "url": "http://a"}, "two": {"type": "backend", "url": "http://b"}}}
    )
    assert {name: settings.url for name, (_, settings) in loaded.sinks.items()} == {
        "one": "http://a",
        "two": "http://b",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sorces": {}}, "unknown key `sorces`; did you mean `sources`?"),
        ({"sources": {}}, "no source: say under `sources:`"),
        ({"sinks": {}}, "no sink: say under `sinks:`"),
        ({"sources": {"fil": {}}}, "`sources.fil`: `fil` is no type of source; did you mean `file`?"),
        ({"sinks": {"x": {"type": "bakend"}}}, "did you mean `backend`?"),
        (
            {"sources": {"file": {"path": "/x", "strt": "end"}}},
            "unknown key `sources.file.strt`; did you mean `start`?",
        ),
        ({"sources": {"file": {}}}, "`sources.file`: it lacks the key `path`"),
        (
            {"sinks": {"backend": {"url": "http://b", "timeout_s": "soon"}}},
            "`sinks.backend.timeout_s`: expected a number",
        ),
        ({"sinks": {"backend": ["http://b"]}}, "expected its settings as a mapping"),
        ({"sinks": {"a b": {"type": "backend"}}}, "a name has up to 40 letters"),
        (
            {"sinks": {"stdout": {"select": [{"resource": "pods"}]}}},
            "`sinks.stdout.select` is about audit events, and this sink is sent friction events; add `stream: audit`",
        ),
        (
            {"sinks": {"slack": {"webhook_url": "https://h", "stages": ["Panic"]}}},
            "`sinks.slack.stages` is about audit events",
        ),
        ({"outbox": {"max_bytes": "much"}}, "is no size"),
        ({"outbox": {"path": "${NOWHERE}"}}, "the environment variable NOWHERE is not set"),
        ({"log": {"level": "loud"}}, "`log.level`"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, Any], words: str) -> None:
    """With its path and the nearest valid one."""
    with pytest.raises(ConfigError) as caught:
        load(GOOD | change)
    assert words in str(caught.value)
    assert "f.yaml" in str(caught.value) or "outbox.max_bytes" in str(caught.value)


def test_relative_paths_start_at_the_settings_file(tmp_path: Path) -> None:
    """Wherever the program was started."""
    settings = {
        "sources": {
            "file": {"path": "logs/audit*.log", "checkpoint": "position.json"},
            "forward": {"tls": {"cert_file": "tls.crt", "key_file": "/run/tls.key"}},
        },
        "sinks": {"backend": {"url": "http://b"}},
    }
    loaded = load_config(parse_document(json.dumps(settings), str(tmp_path / "f.yaml")), {})
    file, forward = loaded.sources["file"][1], loaded.sources["forward"][1]
    assert (file.path, file.checkpoint) == (str(tmp_path / "logs/audit*.log"), str(tmp_path / "position.json"))
    assert (forward.tls.cert_file, forward.tls.key_file) == (str(tmp_path / "tls.crt"), "/run/tls.key")


def test_shipped_rules_are_found_from_any_folder(tmp_path: Path) -> None:
    """`rules/friction.yaml` is the default; a file of that name beside the settings wins."""
    document = parse_document(json.dumps(GOOD), str(tmp_path / "f.yaml"))
    assert load_config(document, {}).rules[0].read_text().startswith("# The five default rules")
    (tmp_path / "rules").mkdir()
    own = tmp_path / "rules" / "friction.yaml"
    own.write_text("rules: []")
    assert load_config(document, {}).rules == [own]


def test_without_a_feed_there_is_none_and_grpc_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for and gRPC is missing, the words say how to get it."""
    monkeypatch.setitem(sys.modules, "forwarder.feed.server", None)
    assert build_feed(load(GOOD), Telemetry()) is None
    with pytest.raises(ConfigError, match=r"pip install 'friction-forwarder\[feed\]'"):
        build_feed(load(GOOD | {"feed": {}}), Telemetry())


def test_the_feeds_certificates_are_found_from_the_settings_file(tmp_path: Path) -> None:
    """As every other path in it."""
    settings = GOOD | {"feed": {"tls": {"cert_file": "tls/feed.crt", "key_file": "tls/feed.key"}}}
    loaded = load_config(parse_document(json.dumps(settings), str(tmp_path / "f.yaml")), {})
    with pytest.raises(ConfigError, match=f"feed.tls.cert_file: cannot read {tmp_path}/tls/feed.crt"):
        build_feed(loaded, Telemetry())


def test_every_setting_of_the_feed_is_documented() -> None:
    """In its own docstring, and in docs/settings.md."""
    for field in FeedSettings.__struct_fields__:
        assert field in (FeedSettings.__doc__ or "")
        assert f"`feed.{field}`" in Path("docs/settings.md").read_text()
