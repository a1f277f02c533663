"""The start-up report: what an operator must see before anything else."""

import json
from pathlib import Path

import pytest

import forwarder.cli.report as module
from forwarder.cli.report import Report, backend_advice, backend_words, describe_source, receiver_report, show
from forwarder.pipeline import Pipeline
from forwarder.registry import load_config
from forwarder.settings import Address, parse_document
from forwarder.sinks.backend import BackendState
from forwarder.telemetry import Telemetry

URL = "http://backend:8000"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (BackendState(), "has not answered yet"),
        (BackendState(reachable=False), "not reachable now"),
        (
            BackendState(reachable=True, version="0.1.0", auth="enabled", key_accepted=True),
            "version 0.1.0, authentication on, key accepted",
        ),
        (BackendState(reachable=True, version="0.1.0", auth="enabled", key_accepted=False), "KEY REFUSED"),
        (BackendState(reachable=True, version="v0.1.0", auth="disabled (set HEALERT_API_KEY)"), "authentication off"),
        (BackendState(reachable=True, key_accepted=False), "version unknown, authentication on, KEY REFUSED"),
    ],
)
def test_a_backend_in_words(state: BackendState, words: str) -> None:
    """Reachable, which version, whether it authenticates, whether our key fits."""
    said = backend_words(URL, state)
    assert said.startswith(URL)
    assert words in said


def test_a_backend_that_did_not_say_whether_it_authenticates() -> None:
    """Nothing is claimed about it."""
    assert "authentication" not in backend_words(URL, BackendState(reachable=True))


@pytest.mark.parametrize(
    ("state", "has_key", "advice"),
    [
        (BackendState(reachable=True, auth="enabled", key_accepted=False), True, "refuses our key"),
        (BackendState(reachable=True, auth="enabled", key_accepted=False), False, "HEALERT_API_KEY is not set"),
        (BackendState(reachable=True, auth="disabled"), True, "asks for none"),
        (BackendState(reachable=False), True, "wait in the outbox"),
        (BackendState(reachable=True, auth="enabled", key_accepted=True), True, ""),
        (BackendState(reachable=True, auth="disabled"), False, ""),
    ],
)
def test_advice(state: BackendState, has_key: bool, advice: str) -> None:
    """A key that does not fit, or protects nothing, is a warning; what is in order is none."""
    said = backend_advice(state, has_key=has_key)
    assert advice in said
    assert bool(said) is bool(advice)


def test_sources_describe_themselves() -> None:
    """A listener by its addresses, a file by what is read from where."""

    class Listener:
        addresses = (Address(host="127.0.0.1", port=1),)

    class File:
        description = "/a.log from its end"

    assert describe_source(Listener()) == "listening on 127.0.0.1:1"
    assert describe_source(File()) == "/a.log from its end"


@pytest.mark.parametrize(("form", "on_stderr"), [("text", True), ("json", False)])
def test_the_report_keeps_to_the_logs_form(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, form: str, on_stderr: bool
) -> None:
    """Where machines read stderr every line is a log line; warnings are log lines either way."""
    report = Report(lines=[("rules", "5 from x")], warnings=["look here"])
    with caplog.at_level("INFO", logger=module.log.name):
        show(report, form, ["look at http://x"])
    assert ("  rules      5 from x\nlook at http://x\n" in capsys.readouterr().err) is on_stderr
    logged = [record.getMessage() for record in caplog.records]
    assert ("rules: 5 from x" in logged) is not on_stderr
    assert "look here" in logged


@pytest.mark.parametrize(
    ("when_down", "words"),
    [("block", "joins the acknowledgement"), ("drop", "drops what it cannot take")],
)
def test_an_audit_tailer_says_what_it_does(tmp_path: Path, when_down: str, words: str) -> None:
    """No rules and no backend: where the stream goes, and whether it has a say in the acknowledgement."""
    settings = {
        "sources": {"forward": {}},
        "detection": {"rules": []},
        "sinks": {"tail": {"type": "stdout", "stream": "audit", "when_down": when_down}},
        "outbox": {"path": str(tmp_path / "outbox.db")},
    }
    loaded = load_config(parse_document(json.dumps(settings), "f.yaml"), {})
    lines = dict(receiver_report(loaded, Pipeline(loaded, Telemetry()), None).lines)
    assert lines["rules"].startswith("none: audit events are passed on")
    assert lines["sink"] == f"tail: audit events, {words}"
