"""Connections that ask for nothing, on a protocol without a socket."""

import logging
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from forwarder.backend.heads import HEAD_TIMEOUT_S, HeadProtocol
from forwarder.wire.complaints import INTERVAL_S, Complaints


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


Connection = tuple[HeadProtocol, Transport, Loop]


def connect(complaints: Complaints, **settings: Any) -> Connection:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        return

    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", **settings)
    config.load()
    loop, transport = Loop(), Transport()
    protocol = HeadProtocol(complaints, config, ServerState(), {}, _loop=loop)
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, transport, loop


@pytest.fixture
def connection() -> Connection:
    return connect(Complaints(logging.getLogger("test"), lambda: 0.0))


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nX: "], ids=["nothing", "half a head"])
def test_no_head(connection: Connection, sent: bytes) -> None:
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


def test_a_request_that_takes_long(connection: Connection) -> None:
    """A live feed's answer goes on for hours and is left alone."""
    protocol, transport, loop = connection
    protocol.data_received(b"GET /api/v1/live HTTP/1.1\r\nHost: h\r\n\r\n")
    loop.pass_time(3600)
    assert not transport.closed


def test_refused_requests_are_not_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    """A crowd beyond the limit, or a client that speaks no HTTP, is one line a minute for each, with how many it was."""
    now_s = 0.0
    complaints = Complaints(logging.getLogger("test"), lambda: now_s)

    def refuse(times: int) -> list[str]:
        caplog.clear()
        for _ in range(times):
            protocol, _, _ = connect(complaints, limit_concurrency=1)
            protocol.data_received(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            protocol, _, _ = connect(complaints)
            protocol.data_received(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert {record.levelno for record in caplog.records} <= {logging.WARNING}
        return [record.getMessage() for record in caplog.records]

    full = "requests are refused: too many connections are open; the answer is 503 until some have ended"
    strange = "requests are refused: Invalid HTTP request received."
    assert refuse(50) == [full, strange]
    assert refuse(50) == []
    now_s = INTERVAL_S
    more = " (99 more times since the last line about it)"
    assert refuse(1) == [full + more, strange + more]


def test_faults_are_all_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Only warnings are folded; tracing, which asks for the level, works."""
    protocol, _, _ = connect(Complaints(logging.getLogger("test"), lambda: 0.0))
    assert protocol.logger.level == logging.getLogger("uvicorn.error").level
    for _ in range(3):
        protocol.logger.error("a fault")
    assert [record.getMessage() for record in caplog.records] == ["a fault"] * 3
