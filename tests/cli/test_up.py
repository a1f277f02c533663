"""`forwarder up`: what it makes of options and environment; running it is for tests/e2e."""

from pathlib import Path
from typing import Any

import pytest

import forwarder.cli.up as module
from forwarder.cli.environment import Environment, backend_document, run_settings
from forwarder.cli.up import Plan, _arguments, _backend, _receiver, _usual_audit_log
from forwarder.feed.settings import FeedSettings
from forwarder.registry import Loaded
from forwarder.settings import Address

BACKEND = Address(host="127.0.0.1", port=8123)


def receiver(
    folder: Path, audit_log: str = "", backend: Address = BACKEND, environ: dict[str, str] | None = None, **plan: Any
) -> Loaded:
    env = Environment("up", environ or {})
    return _receiver(Plan(folder=folder, **plan), env, run_settings(env, folder), audit_log, backend)


def test_the_defaults(tmp_path: Path) -> None:
    """A Forward listener on loopback, the shipped rules, everything kept in the data folder, the embedded backend."""
    loaded = receiver(tmp_path)
    assert list(loaded.sources) == ["forward"]
    assert loaded.sources["forward"][1].listen == "127.0.0.1:24224"
    assert loaded.sinks["backend"][1].url == "http://127.0.0.1:8123"
    assert loaded.outbox_path == tmp_path / "outbox.db"
    assert [path.name for path in loaded.rules] == ["friction.yaml"]


@pytest.mark.parametrize(("from_start", "start"), [(False, "end"), (True, "beginning")])
def test_an_audit_log(tmp_path: Path, from_start: bool, start: str) -> None:
    """It is tailed from its end unless --from-start, and the position is kept."""
    settings = receiver(tmp_path, "/var/log/a.log", from_start=from_start).sources["file"][1]
    assert (settings.path, settings.start, settings.checkpoint) == (
        "/var/log/a.log",
        start,
        str(tmp_path / "file.json"),
    )


def test_keys_protect_both_doors(tmp_path: Path) -> None:
    """The keys of the environment are asked for by the listener and sent to the backend, which asks for the same."""
    environ = {"FORWARD_SHARED_KEY": "f$$1", "HEALERT_API_KEY": "h"}
    loaded = receiver(tmp_path, environ=environ)
    assert loaded.sources["forward"][1].shared_key == "f$$1"
    assert loaded.sinks["backend"][1].api_key == "h"
    assert _backend(Plan(folder=tmp_path), backend_document(environ, "up")[0]).api_key == "h"


def test_options_win_over_the_environment(tmp_path: Path) -> None:
    """What is typed is meant."""
    environ = {
        "FORWARDER_FORWARD_LISTEN": "127.0.0.1:1", "FORWARDER_CLUSTER": "theirs", "RULES_PATH": "/theirs.yaml",
        "HEALERT_PORT": "2", "FORWARDER_TELEMETRY_LISTEN": "127.0.0.1:3",
    }  # fmt: skip
    plan = {
        "forward_listen": "127.0.0.1:4", "cluster": "mine", "rules": ["/mine.yaml"], "telemetry_listen": "127.0.0.1:5",
    }  # fmt: skip
    loaded = receiver(tmp_path, environ=environ, **plan)
    assert loaded.sources["forward"][1].listen == "127.0.0.1:4"
    assert (loaded.config.cluster, loaded.config.telemetry.listen) == ("mine", "127.0.0.1:5")
    assert loaded.rules == [Path("/mine.yaml")]
    backend = _backend(Plan(folder=tmp_path, backend_listen="127.0.0.1:6"), backend_document(environ, "up")[0])
    assert backend.listen == "127.0.0.1:6"


def test_a_feed_is_there_when_it_is_asked_for(tmp_path: Path) -> None:
    """By the option, or by the environment; without them nobody can watch, and gRPC is not loaded."""
    assert receiver(tmp_path).config.feed is None
    loaded = receiver(tmp_path, environ={"FORWARDER_FEED_LISTEN": "127.0.0.1:1"})
    assert loaded.config.feed == FeedSettings(listen="127.0.0.1:1")
    loaded = receiver(tmp_path, environ={"FORWARDER_FEED_LISTEN": "127.0.0.1:1"}, feed_listen="127.0.0.1:2")
    assert loaded.config.feed == FeedSettings(listen="127.0.0.1:2")


def test_the_database_is_in_the_data_folder_unless_said(tmp_path: Path) -> None:
    """HEALERT_DB names another one."""
    assert _backend(Plan(folder=tmp_path), backend_document({}, "up")[0]).database == str(tmp_path / "backend.db")
    document, _ = backend_document({"HEALERT_DB": "/other.db"}, "up")
    assert _backend(Plan(folder=tmp_path), document).database == "/other.db"


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8123"), ("::", "http://[::1]:8123"), ("10.0.0.1", "http://10.0.0.1:8123")],
)
def test_a_backend_on_every_interface_is_reached_on_loopback(tmp_path: Path, host: str, url: str) -> None:
    """0.0.0.0 is no address to connect to."""
    assert receiver(tmp_path, backend=Address(host=host, port=8123)).sinks["backend"][1].url == url


def test_the_background_gets_the_same_plan(tmp_path: Path) -> None:
    """Every option of a plan is handed on to the process that `--detach` starts."""
    plan = Plan(
        folder=tmp_path, rules=["/r"], audit_log="/a", from_start=True, backend_listen="b", forward_listen="f",
        telemetry_listen="t", feed_listen="w", cluster="c",
    )  # fmt: skip
    arguments = _arguments(plan)
    pairs = dict(zip(arguments[1:-1:2], arguments[2::2], strict=True))
    assert pairs == {
        "--data-dir": str(tmp_path), "--rules": "/r", "--audit-log": "/a", "--backend-listen": "b",
        "--forward-listen": "f", "--telemetry-listen": "t", "--feed-listen": "w", "--cluster": "c",
    }  # fmt: skip
    assert arguments[-1] == "--from-start"


def test_the_usual_place_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the well-known logs that is there is tailed."""
    log = tmp_path / "audit.log"
    monkeypatch.setattr(module, "KNOWN_AUDIT_LOGS", (str(tmp_path / "none"), str(log)))
    assert _usual_audit_log() == ""
    log.touch()
    assert _usual_audit_log() == str(log)
