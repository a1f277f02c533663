"""One connection of the Forward door: in which order it reads, hands over and acknowledges.

    read ─► decode ─► gather ─┬─ message complete ─► submit ─► acknowledge ─► read on
                              └─ too much gathered ─► submit ─► decode on (nothing is acknowledged yet)

Reading stops while a batch is being submitted, so that one connection has one batch in flight and acknowledgements
leave in order. An acknowledgement leaves in one write, and only after `submit` has returned; where `submit` does not
take the batch in time the connection closes without one, and the client sends again. What a batch is, its owner knows.
"""

import asyncio
import logging
import ssl
from typing import Any, Final, Protocol

from forwarder.errors import ForwardProtocolError, Overloaded, ShuttingDown
from forwarder.tasks import spawn
from forwarder.wire.budget import ByteBudget
from forwarder.wire.fluent_forward import (
    NEED_DATA,
    Entries,
    ForwardReceiver,
    MessageEnd,
    MessageStart,
    Unreadable,
    ack,
)
from forwarder.wire.forward_handshake import ServerHandshake, Verdict
from forwarder.wire.listen import explain_tls

HANDSHAKE_DEADLINE_S: Final = 10.0  # TLS and PING together; Fluent Bit's own limit for connecting is 10 s
TLS_SHUTDOWN_S: Final = 1.0  # for the client's goodbye; older Fluent Bits try to use a connection that is half closed
RETRY_INTERVAL_S: Final = 0.25  # an overloaded pipeline is asked again this often at least: acks wait for it
MIN_RETRY_INTERVAL_S: Final = 0.01
TURN_S: Final = 0.01  # then others get their turn; a usual read is decoded in less, a bomb in more by one step
MAX_WAITING_ACKS: Final = 1000  # of messages that were complete in one read; the node client sends many at once


class Gatherer(Protocol):
    """Makes a batch of what a connection decodes. held_bytes: what it keeps. full: a batch must be taken now."""

    held_bytes: int

    @property
    def full(self) -> bool: ...

    def add(self, entries: Entries) -> None: ...

    def add_unreadable(self, rest: Unreadable) -> None: ...

    def batch(self) -> Any:
        """All that was gathered since the last call."""


class Door(Protocol):
    """What all connections of one listener share."""

    budget: ByteBudget
    tls: ssl.SSLContext | None
    ack_timeout_s: float
    idle_timeout_s: float

    def admit(self, connection: "ForwardConnection") -> str:
        """Why this new connection cannot be taken; "" when it can."""

    def receiver(self) -> tuple[ForwardReceiver, ServerHandshake | None]: ...

    def gatherer(self, peer: str, certificate: Any) -> Gatherer:
        """Raises ForwardProtocolError when the certificate does not say who this is."""

    async def submit(self, batch: Any) -> None:
        """Returns when the batch is durable; raises Overloaded or ShuttingDown, and then nothing was kept."""

    def received(self, size_bytes: int) -> None: ...

    def complain(self, peer: str, kind: str, text: str, *, level: int = logging.WARNING) -> None: ...

    def closed(self, connection: "ForwardConnection", cause: str) -> None:
        """Called once, after everything that was complete has been submitted."""


class ForwardConnection(asyncio.BufferedProtocol):
    """See the module. All of it runs in the event loop; times are the loop's."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._receiver, self._handshake = door.receiver()
        self._gatherer: Gatherer | None = None
        self._share = door.budget.share(self.update)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[Any] | None = None  # submitting, or the TLS handshake
        self._acks: list[bytes] = []
        self._complete = 0  # messages that ended and are not submitted yet
        self._in_flight_bytes = 0
        self._can_send_again = True  # the client, what is in flight
        self._cause = ""  # why we close; "" while open
        self._failure = ""  # what was wrong with the bytes, while what came before them is still being submitted
        self._trusted = False  # has passed TLS and, where one is required, the handshake
        self._securing = self._submitting = self._turn_over = False  # what we wait for
        self._stopping = self._ended = self._lost = self._gone = False
        self._writable = self._reading = True
        self._silent = True  # has never sent a byte
        self._active_s = self._opened_s = self._loop.time()
        self._closed_s = 0.0
        self._starved_s = 0.0  # since when the budget keeps us from reading; 0.0: it does not
        self.peer = "unix"

    # --- what the transport calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            self.peer = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        refusal = self._door.admit(self)
        if refusal:
            self._close("too_many", refusal)
        elif self._door.tls is not None:
            transport.pause_reading()
            self._securing = True
            self._task = spawn(self._start_tls(transport, self._door.tls), name=f"TLS with {self.peer}")
        else:
            self._begin()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._receiver.room()

    def buffer_updated(self, nbytes: int) -> None:
        if self._cause:
            return  # we are closing, and TLS hands on what it still has: it goes nowhere
        self._silent = False
        self._active_s = self._loop.time()
        self._door.received(nbytes)
        self._receiver.wrote(nbytes)
        self._work()

    def eof_received(self) -> bool:
        """A client may have sent all it has and wait for the acknowledgement: the transport stays open for it."""
        self._ended = True
        return self._door.tls is None and (self._submitting or self._turn_over)

    def pause_writing(self) -> None:
        """The client does not read its acknowledgements; they must not pile up here."""
        self._writable = False
        self.update()

    def resume_writing(self) -> None:
        self._writable = True
        self.update()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._finish()

    # --- what the door calls ---

    def stop(self) -> None:
        """Take nothing more; acknowledge what has come completely, then close."""
        self._stopping = True
        if self._gatherer is None:
            self.abort()
        else:
            self._work()

    def abort(self) -> None:
        """Close now, whatever is in flight."""
        self._close("stopping")
        if self._task is not None:
            self._task.cancel()  # perhaps before its first step, so it cannot be the one who tidies up
        if self._submitting:
            self._not_taken()
        self._submitting = self._turn_over = False
        if self._transport is not None:
            self._transport.abort()
        if self._securing:
            self._securing, self._lost = False, True
        self._finish()

    def sweep(self, now: float) -> None:
        """Close if something has taken too long; to be called about every second."""
        if self._cause:
            if now - self._closed_s > HANDSHAKE_DEADLINE_S and self._transport is not None:
                self._transport.abort()  # it does not read what we wrote last
        elif self._submitting:
            pass
        elif not self._trusted:
            if now - self._opened_s > HANDSHAKE_DEADLINE_S:
                self._close("handshake", f"did not finish the handshake in {HANDSHAKE_DEADLINE_S:.0f} s")
        elif self._starved_s and now - self._starved_s > self._door.ack_timeout_s and self._share.bytes:
            self._close("memory", "closed unacknowledged to free memory; it is asked to send again")
        elif now - self._active_s > self._door.idle_timeout_s:
            quiet = "never sent a byte; if it waits for a handshake, set `shared_key` here or remove it there"
            self._close("idle", quiet if self._silent else "")

    def update(self) -> None:
        """Read or do not read, as the state demands."""
        if self._transport is None or self._gatherer is None:
            return
        received = self._receiver.held_bytes + self._gatherer.held_bytes + self._in_flight_bytes
        self._share.resize(received + self._transport.get_write_buffer_size())
        starved = self._door.budget.spent
        if not starved:
            self._starved_s = 0.0
        elif not self._starved_s:
            self._starved_s = self._loop.time()
        blocked = self._submitting or self._turn_over or self._stopping or bool(self._cause)
        if starved and not blocked and self._gatherer.held_bytes:
            self._submit()  # lines are held only to be submitted together; early is as good
            return
        reading = self._writable and not blocked and not starved
        if reading != self._reading and not self._lost:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    # --- the way of the bytes ---

    async def _start_tls(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            self._transport = await self._loop.start_tls(
                transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_DEADLINE_S,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )
        except OSError as error:
            fault = explain_tls(error)
            self._close("tls" if fault else "empty", fault)
            self._lost = True  # the transport tells its TLS layer only
        finally:
            self._securing, self._task = False, None
        self._work() if self._cause else self._begin()

    def _begin(self) -> None:
        assert self._transport is not None
        try:
            self._gatherer = self._door.gatherer(self.peer, self._transport.get_extra_info("peercert"))
        except ForwardProtocolError as error:
            self._close("auth", str(error))
            self._finish()
            return
        if self._handshake is not None:
            self._transport.write(self._handshake.hello())
        else:
            self._trusted = True
        self._work()  # the client's first bytes may have come with the end of the TLS handshake

    def _work(self) -> None:
        """Decode what has come, until something must be waited for."""
        if self._submitting:
            return
        self._turn_over = False
        if self._cause or self._gatherer is None:
            self._finish()
            return
        try:
            wait_for_data = self._decode(self._gatherer)
        except ForwardProtocolError as error:
            self._failure = str(error)
            wait_for_data = True
        except Exception:
            self._close("fault")
            raise
        if not wait_for_data:
            pass
        elif self._complete:
            self._submit()  # also before a failure is acted on: what was complete before it is sound
        elif self._failure:
            self._close("protocol" if self._trusted else "auth", self._failure)
        elif self._stopping or self._ended:
            self._close("stopping" if self._stopping else "peer")
        self.update()
        self._finish()

    def _decode(self, gatherer: Gatherer) -> bool:
        """Whether more bytes are needed; if not, a batch was submitted or the turn is over."""
        until = self._loop.time() + TURN_S
        while True:
            event = self._receiver.next_event()
            match event:
                case Entries():
                    gatherer.add(event)
                    if gatherer.full:
                        self._submit()
                        return False
                case MessageStart():
                    pass
                case MessageEnd():
                    self._complete += 1
                    if event.chunk is not None:
                        self._acks.append(ack(event.chunk))
                case Unreadable():
                    gatherer.add_unreadable(event)
                case Verdict():
                    self._trusted = event.ok
                    if self._transport is not None:
                        self._transport.write(event.reply)
                case _ if event is NEED_DATA:
                    return True
                case _:
                    pass  # a heartbeat
            if self._loop.time() > until or len(self._acks) >= MAX_WAITING_ACKS:
                if self._complete:
                    self._submit()
                else:
                    self._turn_over = True
                    self._loop.call_soon(self._work)
                return False

    def _submit(self) -> None:
        assert self._gatherer is not None
        self._in_flight_bytes = self._gatherer.held_bytes
        # A client that asked for no acknowledgement cannot send again: its batch waits until there is room for it.
        self._can_send_again = self._complete == len(self._acks)
        batch, acks = self._gatherer.batch(), b"".join(self._acks)
        self._acks, self._complete, self._submitting = [], 0, True
        self._task = spawn(self._submitted(batch, acks), name=f"batch of {self.peer}")
        self.update()

    async def _submitted(self, batch: Any, acks: bytes) -> None:
        taken = False
        try:
            async with asyncio.timeout(self._door.ack_timeout_s if self._can_send_again else None):
                await self._until_taken(batch)
            taken = True
        except (Overloaded, TimeoutError):
            self._close(
                "overloaded",
                "not acknowledged in time: the outbox, or a sink that blocks, is behind; it will send again",
            )
        except ShuttingDown:
            self._close("stopping")
        finally:
            if not taken and self._submitting:
                self._close("fault")  # unless it is closing already
                self._not_taken()
            self._submitting, self._task, self._in_flight_bytes = False, None, 0
            if not taken:
                self._finish()
        if not taken:
            return
        self._active_s = self._loop.time()
        if acks and not self._cause and not self._lost and self._transport is not None:
            self._transport.write(acks)
        self._work()

    def _not_taken(self) -> None:
        if not self._can_send_again:
            lost = "lines that it wants no acknowledgement for, and will not send again, are lost"
            self._door.complain(self.peer, "lost", lost, level=logging.ERROR)

    async def _until_taken(self, batch: Any) -> None:
        while True:
            try:
                await self._door.submit(batch)
            except Overloaded as error:
                await asyncio.sleep(max(MIN_RETRY_INTERVAL_S, min(error.retry_after_s, RETRY_INTERVAL_S)))
            else:
                return

    # --- the end ---

    def _close(self, cause: str, complaint: str = "") -> None:
        """Close without another acknowledgement; what was written before still leaves."""
        if self._cause:
            return
        self._cause, self._closed_s = cause, self._loop.time()
        if complaint:
            self._door.complain(self.peer, cause, complaint)
        if self._transport is not None:
            self._transport.close()

    def _finish(self) -> None:
        """Tell the door, once the transport is gone and nothing is in flight any more."""
        if not self._lost or self._securing or self._submitting or self._turn_over or self._gone:
            return
        self._gone = True
        self._receiver.close()
        self._share.close()
        self._door.closed(self, self._cause or ("empty" if self._silent else "peer"))
