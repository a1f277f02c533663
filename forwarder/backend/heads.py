"""An end for connections that ask for nothing: a request's head has to be there HEAD_TIMEOUT_S after the connection.

uvicorn waits for it for ever, so that as many silent connections as it takes would keep everybody else out. And it warns
of every single request that it refuses, which a crowd, or one broken client, turns into thousands of lines.
"""

import asyncio
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from forwarder.wire.complaints import Complaints

HEAD_TIMEOUT_S = 10.0  # a head is one packet or two; nginx waits 60 s, but it has more connections to give away

_BUSY = object()


class HeadProtocol(H11Protocol):
    """uvicorn's HTTP with that end. Between two requests its keep-alive holds, and this once the next has begun.

    complaints: of all connections; uvicorn's warnings go there, each kind at most once a minute.
    """

    def __init__(self, complaints: Complaints, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.logger = _Warnings(self.logger, complaints)  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_later(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def _look_later(self, waited_after: object) -> None:
        self._next_look = self.loop.call_later(HEAD_TIMEOUT_S, self._look, waited_after)

    def _look(self, waited_after: object) -> None:
        """waited_after: the request after which the next one was waited for at the last look; None: the first one."""
        waits = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        if waits and waited_after is self.cycle:
            self.timeout_keep_alive_handler()
            return
        self._look_later(self.cycle if waits else _BUSY)


class _Warnings(logging.LoggerAdapter[logging.Logger]):
    """uvicorn's logger, but for its warnings: fixed texts about single requests."""

    def __init__(self, logger: logging.Logger, complaints: Complaints) -> None:
        super().__init__(logger)
        self._complaints = complaints

    @property
    def level(self) -> int:
        """As uvicorn asks for it before it traces."""
        return self.logger.level

    def warning(self, msg: object, *_: object, **__: Any) -> None:
        text = str(msg)
        self._complaints.say("requests are refused", text, _WORDS.get(text, text))


_WORDS = {"Exceeded concurrency limit.": "too many connections are open; the answer is 503 until some have ended"}
