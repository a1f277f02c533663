"""How a service ends. Signals themselves are for tests/e2e."""

import asyncio
import os
import signal

import pytest

from forwarder.cli import signals
from forwarder.cli.signals import run_service
from forwarder.errors import ConfigError


def test_a_service_that_returns_ends_the_command() -> None:
    """A source that has read its input to the end needs no signal."""
    seen: list[bool] = []

    async def service(stopping: asyncio.Event) -> None:
        seen.append(stopping.is_set())

    run_service(service)
    assert seen == [False]


def test_many_hangups_are_few_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a tenth of a second of the event loop; the last one is never lost."""
    monkeypatch.setattr(signals, "RELOAD_DELAY_S", 0.1)
    reloads: list[int] = []

    async def service(_: asyncio.Event) -> None:
        for burst in range(2):
            for _ in range(20):
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.sleep(0.001)
            assert len(reloads) == burst
            await asyncio.sleep(0.3)
            assert len(reloads) == burst + 1

    run_service(service, reload=lambda: reloads.append(1))


def test_an_error_comes_out() -> None:
    """What the service raises is the command's to report."""

    async def service(_: asyncio.Event) -> None:
        raise ConfigError("port in use")

    with pytest.raises(ConfigError, match="port in use"):
        run_service(service)
