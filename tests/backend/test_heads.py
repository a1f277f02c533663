"""Connections that ask for nothing, on a protocol without a socket."""

from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from forwarder.backend.heads import HEAD_TIMEOUT_S, HeadProtocol


class Loop:
    """Timers that fire when `pass_time` says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list[Timer] = []

    def call_later(self, delay_s: float, call: Any, *arguments: Any) -> "Timer":
        timer = Timer(self.now_s + delay_s, call, arguments)
        self._timers.append(timer)
        return timer

    def create_task(self, coroutine: Any) -> Any:
        coroutine.close()
        return Task()

    def pass_time(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while due := [timer for timer in self._timers if timer.at_s <= until_s and not timer.cancelled]:
            first = min(due, key=lambda timer: timer.at_s)
            self._timers.remove(first)
            self.now_s = first.at_s
            first.call(*first.arguments)
        self.now_s = until_s


class Timer:
    def __init__(self, at_s: float, call: Any, arguments: tuple[Any, ...]) -> None:
        self.at_s, self.call, self.arguments, self.cancelled = at_s, call, arguments, False

    def cancel(self) -> None:
        self.cancelled = True


class Task:
    def add_done_callback(self, _call: Any) -> None:
        return


class Transport:
    """What the protocol asks of a connection."""

    def __init__(self) -> None:
        self.closed = False

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def write(self, _data: bytes) -> None:
        return

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


@pytest.fixture
def connection() -> tuple[HeadProtocol, Transport, Loop]:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        return

    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
    config.load()
    loop, transport = Loop(), Transport()
    protocol = HeadProtocol(config, ServerState(), {}, _loop=loop)  # type: ignore[arg-type]
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, transport, loop


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nX: "], ids=["nothing", "half a head"])
def test_no_head(connection: tuple[HeadProtocol, Transport, Loop], sent: bytes) -> None:
    """A connection without a whole head is closed in time, and not before, however its bytes trickle in."""
    protocol, transport, loop = connection
    if sent:
        protocol.data_received(sent)
    loop.pass_time(HEAD_TIMEOUT_S - 0.1)
    assert not transport.closed
    if sent:
        protocol.data_received(b"x")
    loop.pass_time(0.2)
    assert transport.closed


def test_a_request_that_takes_long(connection: tuple[HeadProtocol, Transport, Loop]) -> None:
    """A live feed's answer goes on for hours and is left alone."""
    protocol, transport, loop = connection
    protocol.data_received(b"GET /api/v1/live HTTP/1.1\r\nHost: h\r\n\r\n")
    loop.pass_time(3600)
    assert not transport.closed
