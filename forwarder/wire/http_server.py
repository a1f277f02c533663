"""One HTTP/1.1 connection of a door that takes what is posted to it (h11 speaks the protocol; here are sockets and clocks).

    head ─► may it come in? ─no─► 401, 404, 405 … and close
              └─yes─► body, with a cap ─► `take` ─► 200 when everything is durable; 503 + Retry-After when it cannot be now

A connection takes one request after the other. Reading stops while a request is being taken, while as many bytes wait here
as one read brings, and while the process' byte budget is spent. There is a deadline for everything that a peer may draw out:
the TLS handshake, the head, the request as a whole, the pause between two of them. What a request means, the door knows.
"""

import asyncio
import logging
import math
import ssl
from collections.abc import Mapping
from typing import Any, Final, Protocol

import h11
import msgspec

from forwarder.tasks import spawn
from forwarder.wire.budget import ByteBudget
from forwarder.wire.http_body import Body, BodyReader, TooLong
from forwarder.wire.listen import explain_tls

HANDSHAKE_DEADLINE_S: Final = 10.0  # TLS; the same as at the Forward door
HEAD_DEADLINE_S: Final = 10.0  # from a head's first byte to its last, and for a new connection's first byte
TLS_SHUTDOWN_S: Final = 1.0
STARVED_S: Final = 5.0  # a half-read body gives its memory back when the budget stays spent for so long
LINGER_S: Final = 2.0  # a client that is still sending sees our refusal only if we go on reading for a while
LINGER_BYTES: Final = 4 << 20
READ_AHEAD_BYTES: Final = 256 << 10
INFLATE_TURN_BYTES: Final = 4 << 20  # then others get their turn
CONTINUE: Final = h11.InformationalResponse(status_code=100, headers=[])
_GZIP: Final = ("gzip", "x-gzip")


class Head(msgspec.Struct, frozen=True):
    """A request before its body. path: without the query. headers: names in lower case, the last of equal ones."""

    method: str
    path: str
    headers: Mapping[str, str]
    peer: str
    certificate: Any = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent back. close: and then the connection ends."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}
    retry_after_s: float = 0.0
    close: bool = False


class HttpDoor(Protocol):
    """What all connections of one listener share."""

    budget: ByteBudget
    tls: ssl.SSLContext | None
    max_body_bytes: int
    request_timeout_s: float
    idle_timeout_s: float

    def admit(self, connection: "HttpConnection") -> str:
        """Why this new connection cannot be taken; "" when it can."""

    def refuse(self, head: Head) -> Answer | None:
        """The answer to a request whose body is not wanted; None to go on."""

    async def take(self, head: Head, body: Body) -> Answer:
        """The answer, once everything in the body is durable, or cannot be."""

    def received(self, size_bytes: int) -> None: ...

    def answered(self, status: int) -> None: ...

    def complain(self, peer: str, kind: str, text: str, *, level: int = logging.WARNING) -> None: ...

    def closed(self, connection: "HttpConnection", cause: str) -> None: ...


class _End(Exception):
    """Close, because of `cause`, with a last answer where there is one to give."""

    def __init__(self, cause: str, answer: Answer | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.answer = answer


class HttpConnection(asyncio.Protocol):
    """See the module. All of it runs in the event loop."""

    def __init__(self, door: HttpDoor) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER)
        self._share = door.budget.share(self._budget_changed)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[Any] | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = self._body_bytes = 0
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._ended = self._taking = self._stopping = self._first = self._finished = False
        self._reading = True
        self.peer = "unix"

    # --- what the transport calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            self.peer = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        refusal = self._door.admit(self)
        if self._door.tls is not None:
            transport.pause_reading()  # the handshake's bytes are not ours
        self._task = spawn(self._serve(refusal), name=f"http {self.peer}")

    def data_received(self, data: bytes) -> None:
        if self._finished:
            return
        self._door.received(len(data))
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._arrived.set()
        self._update()

    def eof_received(self) -> bool:
        """A client may have sent all it has and wait for the answer."""
        self._ended = True
        self._arrived.set()
        return self._door.tls is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._arrived.set()
        self._gone.set()

    # --- what the door calls ---

    def stop(self) -> None:
        """Take no further request; one that came completely is answered."""
        self._stopping = True
        if not self._taking and self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        """Close now, whatever is in flight."""
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    # --- the way of a request ---

    async def _serve(self, refusal: str) -> None:
        cause = "fault"
        try:
            cause = await self._requests(refusal)
        except asyncio.CancelledError:
            cause = "stopping"
        except (h11.LocalProtocolError, ConnectionError):
            cause = "peer"  # it went away while we answered
        finally:
            self._finished = True
            self._share.close()
            await self._goodbye()
            self._door.closed(self, cause)

    async def _requests(self, refusal: str) -> str:
        try:
            if refusal and self._door.tls is not None:
                raise _End("too_many")  # an answer would need a handshake first
            if self._door.tls is not None:
                await self._secure(self._door.tls)
            if refusal:
                raise _End("too_many", Answer(status=503, body=refusal.encode(), retry_after_s=5.0, close=True))
            while not self._stopping:
                await self._request()
            return "stopping"
        except _End as end:
            self._hold(0)
            if end.answer is not None:
                self._send(end.answer)
                await self._linger()
            return end.cause
        except h11.RemoteProtocolError as error:
            self._send(Answer(status=error.error_status_hint or 400, body=b"not understood as HTTP/1.1\n", close=True))
            await self._linger()
            return "protocol"

    async def _request(self) -> None:
        """One request and its answer. Raises _End."""
        if not self._pending and not self._http.trailing_data[0]:
            try:
                async with asyncio.timeout(self._door.idle_timeout_s if self._first else HEAD_DEADLINE_S):
                    await self._wait_for_bytes()
            except TimeoutError:
                raise _End("idle") from None
        until = self._loop.time() + self._door.request_timeout_s
        try:
            async with asyncio.timeout(min(HEAD_DEADLINE_S, self._door.request_timeout_s)):
                event = await self._event()
        except TimeoutError:
            raise _End("slow", Answer(status=408, close=True)) from None
        if isinstance(event, h11.ConnectionClosed):
            raise _End("peer" if self._first else "empty")
        assert isinstance(event, h11.Request)
        self._first = True
        head = self._head(event)
        refusal = self._door.refuse(head)
        if refusal is not None:
            raise _End("auth" if refusal.status == 401 else "refused", refusal)
        try:
            async with asyncio.timeout_at(until):
                body = await self._body(head)
        except TimeoutError:
            raise _End("slow", Answer(status=408, body=b"the request took too long\n", close=True)) from None
        except TooLong:
            self._door.complain(
                self.peer, "too_long", "a body that is too long to be read to its end was refused", level=logging.ERROR
            )
            raise _End("too_long", Answer(status=413, body=b"the body is too long\n", close=True)) from None
        await self._answer(head, body)

    async def _answer(self, head: Head, body: Body) -> None:
        self._taking = True
        self._hold(2 * len(body.data))  # the lines in it are copies
        try:
            answer = await self._door.take(head, body)
        except Exception:
            self._send(Answer(status=500, close=True))
            raise
        finally:
            self._taking, self._body_bytes = False, 0
            self._update()
        if self._stopping:
            answer = msgspec.structs.replace(answer, close=True)
        self._send(answer)
        if self._http.our_state is h11.MUST_CLOSE or answer.close:
            raise _End("stopping" if self._stopping else "peer")
        self._http.start_next_cycle()

    async def _body(self, head: Head) -> Body:
        reader = BodyReader(
            max_bytes=self._door.max_body_bytes, gzip=head.headers.get("content-encoding", "").lower() in _GZIP
        )
        inflated = 0
        while True:
            event = await self._event()
            if isinstance(event, h11.EndOfMessage):
                return reader.finish()
            if not isinstance(event, h11.Data):
                raise _End("peer")
            reader.feed(bytes(event.data))
            before = reader.held_bytes
            while reader.work():
                inflated += max(0, reader.held_bytes - before)
                before = self._hold(reader.held_bytes)
                if inflated > INFLATE_TURN_BYTES:
                    inflated = 0
                    await asyncio.sleep(0)
            self._hold(reader.held_bytes)

    def _hold(self, size: int) -> int:
        self._body_bytes = size
        self._update()
        return size

    async def _event(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue and self._transport is not None:
                self._transport.write(self._http.send(CONTINUE) or b"")
            if not self._pending:
                await self._wait_for_bytes()
            data, self._pending, self._pending_bytes = b"".join(self._pending), [], 0
            self._http.receive_data(data)  # b"": the end
            self._update()

    async def _wait_for_bytes(self) -> None:
        while not self._pending and not self._ended:
            self._arrived.clear()
            if not (self._door.budget.spent and self._share.bytes):
                await self._arrived.wait()
                continue
            try:
                async with asyncio.timeout(STARVED_S):
                    await self._arrived.wait()
            except TimeoutError:
                if self._door.budget.spent:
                    self._door.complain(
                        self.peer, "memory", "a request was refused to free memory; it is asked to send again"
                    )
                    raise _End("memory", Answer(status=429, retry_after_s=STARVED_S, close=True)) from None

    def _head(self, request: h11.Request) -> Head:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        certificate = self._transport.get_extra_info("peercert") if self._transport else None
        path = request.target.decode("latin-1").partition("?")[0]
        return Head(request.method.decode("latin-1"), path, headers, self.peer, certificate)

    def _send(self, answer: Answer) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self._transport is None:
            return
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers.items(),
        ]
        if answer.retry_after_s:
            headers.append(("Retry-After", str(math.ceil(answer.retry_after_s))))
        if answer.close:
            headers.append(("Connection", "close"))
        parts = (
            h11.Response(status_code=answer.status, headers=headers),
            h11.Data(data=answer.body),
            h11.EndOfMessage(),
        )
        self._transport.write(b"".join(self._http.send(part) or b"" for part in parts))
        self._door.answered(answer.status)

    # --- the sides of it ---

    def _budget_changed(self) -> None:
        self._update()
        self._arrived.set()  # who waits for bytes now waits for them in another way

    def _update(self) -> None:
        """Read or do not read, as the state demands."""
        if self._transport is None or self._finished or self._gone.is_set():
            return
        self._share.resize(self._pending_bytes + self._body_bytes)
        reading = self._pending_bytes < READ_AHEAD_BYTES and not self._door.budget.spent
        if reading != self._reading:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    async def _secure(self, context: ssl.SSLContext) -> None:
        assert self._transport is not None
        try:
            self._transport = await self._loop.start_tls(
                self._transport, self, context, server_side=True,
                ssl_handshake_timeout=HANDSHAKE_DEADLINE_S, ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )  # fmt: skip
        except OSError as error:
            self._gone.set()  # the transport tells its TLS layer only
            fault = explain_tls(error)
            if fault:
                self._door.complain(self.peer, "tls", fault)
            raise _End("tls" if fault else "empty") from None
        self._update()

    async def _linger(self) -> None:
        """Read on for a moment: a connection closed with unread bytes is reset, and the client may lose our answer."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            try:
                self._transport.write_eof()
            except OSError:  # it reset the connection meanwhile, and there is nobody left to wait for
                return
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_S):
                while left > 0 and not self._ended:
                    left -= self._pending_bytes
                    self._pending, self._pending_bytes = [], 0
                    self._update()
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass

    async def _goodbye(self) -> None:
        """The transport closes, and what was written still leaves; one that does not read it is cut."""
        if self._transport is None or self._gone.is_set():
            return
        self._transport.close()
        try:
            async with asyncio.timeout(LINGER_S):
                await self._gone.wait()
        except (TimeoutError, asyncio.CancelledError):
            self._transport.abort()
