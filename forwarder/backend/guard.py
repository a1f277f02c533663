"""What stands before every route: security headers, an end for every error, the caps on bodies.

Guard(app)                     ASGI middleware, outermost
bodies = Bodies()              `async with bodies.read(request) as body`
"""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Callable

from fastapi import HTTPException, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 << 20  # the longest audit line; no single event can be larger, and 1000 usual ones are 2 MB
MAX_BODIES_BYTES = 64 << 20  # all requests together: a crowd of large bodies is told to come back, not held
BODY_TIMEOUT_S = 30.0  # a sender that dribbles would hold its share of the above for ever

# Scripts and styles come from our own files alone and never stand in a page, so a hostile name in an event can neither
# run nor look like something else nor phone home.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'self'; frame-ancestors {frames}"
)
HEADERS = {
    "content-security-policy": POLICY.format(frames="'none'"),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


Shown = Callable[[Scope, Response], Response]
"""A refusal as its reader should see it: a page for a browser."""


class Guard:
    """Adds HEADERS to every response; an unforeseen error becomes one log line without payload and a plain 500."""

    def __init__(self, app: ASGIApp, shown: Shown = lambda _, refusal: refusal) -> None:
        self._app = app
        self._shown = shown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answered = False

        async def send_guarded(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                _complete(MutableHeaders(scope=message))
            await send(message)

        try:
            await self._app(scope, receive, send_guarded)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as error:  # noqa: BLE001 - the last place where it can be kept out of the log's text
            frame = traceback.extract_tb(error.__traceback__)[-1]
            # An exception's own words may quote the request: its type and place are enough to find it.
            log.error("a request failed: %s in %s, line %s", type(error).__name__, frame.filename, frame.lineno)
            if not answered:
                plain = Response(b'{"detail":"internal error"}', 500, media_type="application/json")
                await self._shown(scope, plain)(scope, receive, send_guarded)


def _complete(headers: MutableHeaders) -> None:
    """Add what the route has not said itself. One that says who may frame it (a card) says so in its policy alone."""
    framed = "content-security-policy" in headers
    for name, value in HEADERS.items():
        if not (framed and name == "x-frame-options"):
            headers.setdefault(name, value)


class Bodies:
    """Reads request bodies within MAX_BODY_BYTES each and MAX_BODIES_BYTES together. For one event loop."""

    def __init__(self) -> None:
        self._held_bytes = 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body, counted as held until the block ends. Raises HTTPException 408, 413 or 503."""
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for chunk in request.stream():
                    self._held_bytes += len(chunk)
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send it in parts")
                    if self._held_bytes > MAX_BODIES_BYTES:
                        raise HTTPException(503, "too many large requests at once", {"Retry-After": "1"})
            yield bytes(body)
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s") from None
        finally:
            self._held_bytes -= len(body)
