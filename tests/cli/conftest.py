"""What the tests of the command line share: running it in this process, audit events, an outbox with events in it."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from forwarder.cli import app
from forwarder.contracts import DeadLetter
from forwarder.events.friction import FrictionEvent
from forwarder.outbox import Outbox, SinkInfo
from forwarder.telemetry import Telemetry

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """`run("rules", "check", …, input="…")` in an environment that knows nothing but a data folder of its own."""
    for name in ("NO_COLOR", "FORWARDER_CONFIG", "HEALERT_API_KEY", "FORWARD_SHARED_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORWARDER_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: object, **options: Any) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True, **options)

    yield invoke
    logging.disable(logging.NOTSET)  # `doctor` silences the parts


@pytest.fixture
def exec_event() -> Callable[..., dict[str, Any]]:
    """`exec_event(stage=…, audit_id=…)`: a person opens a shell in a pod."""

    def make(
        *,
        stage: str = "ResponseComplete",
        audit_id: str = "a-1",
        received: str = "2026-03-01T10:00:00.000000Z",
        **more: Any,
    ) -> dict[str, Any]:
        return {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": audit_id,
            "stage": stage,
            "requestURI": "/api/v1/namespaces/shop/pods/web-0/exec?command=sh",
            "verb": "get",
            "user": {"username": "alice"},
            "objectRef": {"resource": "pods", "namespace": "shop", "name": "web-0", "subresource": "exec"},
            "responseStatus": {"code": 101},
            "requestReceivedTimestamp": received,
            "stageTimestamp": "2026-03-01T10:00:07.000000Z",
        } | more

    return make


@pytest.fixture
def audit_log(tmp_path: Path) -> Callable[..., Path]:
    """`audit_log(event, b"raw", …)` writes a log and gives its path."""

    def write(*lines: dict[str, Any] | bytes, name: str = "audit.log") -> Path:
        path = tmp_path / name
        path.write_bytes(
            b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        )
        return path

    return write


def friction(number: int) -> FrictionEvent:
    """A friction event with an id of its own."""
    return FrictionEvent(
        entity_ref="component:shop/web",
        type="kubectl-exec",
        severity="high",
        actor="alice",
        workflow="deploy",
        description="a shell",
        timestamp="2026-03-01T10:00:00.000000Z",
        points=10,
        id=f"00000000-0000-5000-8000-{number:012d}",
        revision=1,
        audit_id=f"a-{number}",
        verb="get",
        resource="pods",
    )


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """The data folder of an outbox with two events waiting for `backend` and one dead record."""
    folder = tmp_path / "state"
    folder.mkdir()
    sinks = [SinkInfo("backend", required=True)]
    box = Outbox(folder / "outbox.db", sinks, telemetry=Telemetry(), clock=lambda: 1_772_359_300.0)
    box.open()
    letter = DeadLetter(
        reason="json", source="file audit.log", size_bytes=7, sha256="ab" * 32, offset=42, head="{broken"
    )
    box.commit([friction(1), friction(2)], [letter]).result()
    box.close()
    return folder
