"""How a service ends. Signals themselves are for tests/e2e."""

import asyncio

import pytest

from forwarder.cli.signals import run_service
from forwarder.errors import ConfigError


def test_a_service_that_returns_ends_the_command() -> None:
    """A source that has read its input to the end needs no signal."""
    seen: list[bool] = []

    async def service(stopping: asyncio.Event) -> None:
        seen.append(stopping.is_set())

    run_service(service)
    assert seen == [False]


def test_an_error_comes_out() -> None:
    """What the service raises is the command's to report."""

    async def service(_: asyncio.Event) -> None:
        raise ConfigError("port in use")

    with pytest.raises(ConfigError, match="port in use"):
        run_service(service)
