"""The checks of `forwarder doctor`: what each sees, and what it advises."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forwarder.cli.hops as module
from forwarder.cli.hops import check_audit_log, check_feed, check_fluent_bit, check_outbox, check_rules, check_telemetry
from forwarder.registry import Loaded, load_config
from forwarder.settings import Document

Make = Callable[..., Loaded]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(sources={…}, …)` gives checked settings."""

    def load(**sections: Any) -> Loaded:
        data = {
            "sources": {"forward": {}},
            "sinks": {"backend": {}},
            "outbox": {"path": str(tmp_path / "box.db")},
        } | sections
        return load_config(Document(str(tmp_path / "f.yaml"), data, {}), {})

    return load


def test_an_audit_tailer_needs_no_rules(make: Make) -> None:
    """It passes everything on; a receiver with another sink, and no rules, is wrong."""
    tail = {"stdout": {"stream": "audit"}}
    hop = check_rules(make(detection={"rules": []}, sinks=tail))
    assert (hop.good, hop.text) == (True, "none: audit events are passed on, nothing is looked for")
    assert check_rules(make(detection={"rules": []})).good is False


def test_rules_are_loaded_and_tested(make: Make, tmp_path: Path) -> None:
    """Good rules pass; a broken file is bad and named."""
    assert check_rules(make()).good is True
    (tmp_path / "bad.yaml").write_text("rules: [{}]")
    hop = check_rules(make(detection={"rules": ["bad.yaml"]}))
    assert hop.good is False
    assert "bad.yaml" in hop.text


def test_an_audit_log_that_is_written_to(make: Make, tmp_path: Path) -> None:
    """It exists, may be read and is fresh; one that is quiet for long gets a hint."""
    log = tmp_path / "audit.log"
    log.touch()
    loaded = make(sources={"file": {"path": str(log)}})
    (hop,) = check_audit_log(loaded)
    assert (hop.good, hop.advice) == (True, "")
    os.utime(log, (1e9, 1e9))
    (hop,) = check_audit_log(loaded)
    assert hop.good is True
    assert "quiet" in hop.advice


def test_a_receiver_that_does_not_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not looked at, and what starts it is said."""
    monkeypatch.setattr(module, "probe", lambda _: "down")
    hop = check_telemetry(make())
    assert hop.good is None
    assert "forwarder up" in hop.advice


def test_an_audit_log_that_is_not_there(make: Make, tmp_path: Path) -> None:
    """Bad, with what to compare."""
    (hop,) = check_audit_log(make(sources={"file": {"path": str(tmp_path / "none.log")}}))
    assert hop.good is False
    assert "--audit-log-path" in hop.advice


def test_an_audit_log_whose_folder_is_not_there(make: Make, tmp_path: Path) -> None:
    """It does not exist, and no right would help."""
    (hop,) = check_audit_log(make(sources={"file": {"path": str(tmp_path / "none" / "audit.log")}}))
    assert (hop.good, hop.text) == (False, f"{tmp_path / 'none' / 'audit.log'} does not exist")


def test_an_audit_log_of_root(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kube-apiserver's 0600: bad, with the two ways out."""
    log = tmp_path / "audit.log"
    log.touch()
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    (hop,) = check_audit_log(make(sources={"file": {"path": str(log)}}))
    assert hop.good is False
    assert "chmod 640" in hop.advice


@pytest.mark.parametrize(
    ("stdout", "good"),
    [("Fluent Bit v5.1.1\nGit commit: d55459d\n", True), ("Fluent Bit v4.1.0\n", False), ("what?\n", False)],
)
def test_fluent_bits_version(make: Make, monkeypatch: pytest.MonkeyPatch, stdout: str, good: bool) -> None:
    """Old ones stop at a long line, so they are bad."""
    monkeypatch.setattr(module.shutil, "which", lambda _: "/usr/bin/fluent-bit")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout, ""))
    hop = check_fluent_bit(make())
    assert hop.good is good
    assert bool(hop.advice) is not good


def test_fluent_bit_may_be_elsewhere(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on this machine, or not needed: nothing to look at, nothing wrong."""
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    assert check_fluent_bit(make()).good is None
    assert check_fluent_bit(make(sources={"file": {"path": "/a"}})).good is None


@pytest.mark.parametrize(("state", "good"), [("ready", True), ("waiting", False), ("down", None)])
def test_the_receiver(make: Make, monkeypatch: pytest.MonkeyPatch, state: str, good: bool | None) -> None:
    """Running and accepting is good; running without accepting is bad; down is a fact."""
    monkeypatch.setattr(module, "probe", lambda _: state)
    assert check_telemetry(make()).good is good


def test_a_feed_that_would_not_start(make: Make) -> None:
    """Its own words say what to do; without a feed there is nothing to look at."""
    assert check_feed(make()) == []
    (hop,) = check_feed(make(feed={"listen": "0.0.0.0:32767"}))
    assert hop.good is False
    assert "allow_anonymous" in hop.text


def test_a_feeds_door(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free while the receiver is not running, open while it is."""
    monkeypatch.setattr(module, "probe", lambda *_: "")
    (hop,) = check_feed(make(feed={"listen": "127.0.0.1:0"}))
    assert (hop.name, hop.good) == ("feed", True)
    monkeypatch.setattr(module, "probe", lambda *_: "ready")
    monkeypatch.setattr(module, "connect", lambda *_: (_ for _ in ()).throw(OSError(111, "Connection refused")))
    (hop,) = check_feed(make(feed={}))
    assert (hop.good, hop.text) == (False, "127.0.0.1:32767: Connection refused")


def test_the_outbox(make: Make, outbox: Path) -> None:
    """Its ledger is read; what waits for long and what is dead is pointed at."""
    hop = check_outbox(make(outbox={"path": str(outbox / "outbox.db")}))
    assert hop.good is True
    assert "2 events, 1 dead letter, ledger balances" in hop.text
    assert "forwarder status" in hop.advice


def test_an_outbox_that_cannot_be_written(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad before the receiver is started."""
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    assert check_outbox(make()).good is False


def test_a_disk_without_room(make: Make, monkeypatch: pytest.MonkeyPatch, outbox: Path) -> None:
    """Less free than the outbox may grow to is bad."""
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20})())
    hop = check_outbox(make(outbox={"path": str(outbox / "outbox.db")}))
    assert hop.good is False
    assert "max_bytes" in hop.advice
