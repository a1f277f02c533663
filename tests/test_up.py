"""Receiver and backend in one process: who opens first, who closes last, whose error comes out."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from forwarder.backend.settings import BackendSettings
from forwarder.contracts import Stopping
from forwarder.errors import ConfigError
from forwarder.registry import load_config
from forwarder.settings import Address, Document
from forwarder.up import Receiver, Up


class Backend:
    """A backend that notes what happens; `fails` is raised instead of opening, `ends` when it is set."""

    address = Address(host="127.0.0.1", port=1)

    def __init__(self, notes: list[str], fails: Exception | None = None) -> None:
        self.notes = notes
        self.fails = fails
        self.dies = asyncio.Event()

    async def serve(self, stopping: Stopping, started: Callable[[], None]) -> None:
        if self.fails:
            raise self.fails
        self.notes.append("backend open")
        started()
        waits = [asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(self.dies.wait())]  # noqa: TID251
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self.notes.append("backend closed")
        if self.dies.is_set():
            raise OSError(28, "No space left on device")


class FakeReceiver:
    """The same for the receiver."""

    notes: ClassVar[list[str]] = []
    fails: Exception | None = None

    def __init__(self, _: object) -> None: ...

    async def run(self, stopping: Stopping, started: Callable[[], None]) -> None:
        if self.fails:
            raise self.fails
        self.notes.append("receiver open")
        started()
        await stopping.wait()
        self.notes.append("receiver closed")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened, in order."""
    found: list[str] = []
    monkeypatch.setattr("forwarder.up.Receiver", FakeReceiver)
    monkeypatch.setattr(FakeReceiver, "notes", found)
    monkeypatch.setattr(FakeReceiver, "fails", None)
    return found


def make(notes: list[str], fails: Exception | None = None) -> tuple[Up, Backend]:
    up = Up(BackendSettings(), lambda _: None)  # type: ignore[arg-type,return-value]
    backend = Backend(notes, fails)
    up.backend = backend  # type: ignore[assignment]
    return up, backend


async def test_the_backend_opens_first_and_closes_last(notes: list[str]) -> None:
    """The receiver's last events still find it."""
    up, _ = make(notes)
    stopping = asyncio.Event()
    await asyncio.wait_for(up.run(stopping, stopping.set), 5)
    assert notes == ["backend open", "receiver open", "receiver closed", "backend closed"]


async def test_a_backend_that_cannot_open_starts_no_receiver(notes: list[str]) -> None:
    """Its error comes out, nothing else was opened."""
    up, _ = make(notes, ConfigError("port in use"))
    with pytest.raises(ConfigError, match="port in use"):
        await asyncio.wait_for(up.run(asyncio.Event(), lambda: None), 5)
    assert notes == []


async def test_a_receiver_that_cannot_open_closes_the_backend(
    notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error comes out, after the backend is closed."""
    monkeypatch.setattr(FakeReceiver, "fails", ConfigError("no such file"))
    up, _ = make(notes)
    with pytest.raises(ConfigError, match="no such file"):
        await asyncio.wait_for(up.run(asyncio.Event(), lambda: None), 5)
    assert notes == ["backend open", "backend closed"]


async def test_a_backend_that_dies_stops_the_receiver(notes: list[str]) -> None:
    """The receiver drains, then the backend's error comes out."""
    up, backend = make(notes)
    with pytest.raises(OSError, match="No space left"):
        await asyncio.wait_for(up.run(asyncio.Event(), backend.dies.set), 5)
    assert notes == ["backend open", "receiver open", "backend closed", "receiver closed"]


def test_a_receiver_is_checked_before_anything_opens(tmp_path: Path) -> None:
    """A telemetry port that strangers reach is refused in the constructor, and no file was made."""
    data = {
        "sources": {"forward": {}},
        "sinks": {"backend": {}},
        "outbox": {"path": str(tmp_path / "box.db")},
        "telemetry": {"listen": "0.0.0.0:9000"},
    }
    loaded = load_config(Document(str(tmp_path / "f.yaml"), data, {}), {})
    with pytest.raises(ConfigError, match=r"telemetry\.token"):
        Receiver(loaded)
    assert list(tmp_path.iterdir()) == []
