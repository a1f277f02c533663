"""A loopback port that is always the same, in front of a receiver that moves: bytes in, bytes out, nothing read into them.

While there is no target nobody listens, so that Fluent Bit is refused at once, by the kernel, and keeps its lines on
disk. Once there is one, each connection is dialled through (tunnel.py) and carried both ways:

- what one side cannot take, the other is not read for: at most HIGH_WATER_BYTES and one read wait in each direction;
- where one side has said its last, the other is told (half-close), and answers still pass;
- a connection that carries nothing for IDLE_S ends, as does one whose target was replaced, at its next pause.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

from forwarder.errors import ConfigError
from forwarder.sidecar.tunnel import Target, TunnelError, Way, dial
from forwarder.tasks import cancel, spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.complaints import Complaints

log = logging.getLogger(__name__)

MAX_CONNECTIONS = (
    512  # Fluent Bit had 52 open in a burst of 277 MB; a receiver that hangs for minutes collects hundreds
)
HIGH_WATER_BYTES = 512 << 10  # two reads of asyncio; more only hides that the other side is slow
IDLE_S = 120.0  # Fluent Bit gives a connection back after 30 s without use; what is silent longer is a dead flow
RETIRE_QUIET_S = 1.0  # of a connection to a target that is no longer the one: an acknowledgement takes less
LINGER_S = 10.0  # for the answers to a side that has said its last, where the other cannot be told (TLS)
SWEEP_S = 0.5
LISTEN_BACKLOG = 128


class Relay:
    """One loopback port. `start` binds it; `set_target` opens and closes it; `stop` ends everything.

    reached: when a connection was last dialled through to the present target, on `clock`; None before that.
    """

    def __init__(
        self, way: Way, telemetry: Telemetry, *, port: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._way = way
        self._wanted_port = port
        self._clock = clock
        self._telemetry = telemetry
        self._complaints = Complaints(log, clock)
        self._holder: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._target: Target | None = None
        self._links: set[_Link] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self.port = 0
        self.reached: float | None = None

    @property
    def target(self) -> Target | None:
        return self._target

    @property
    def busy(self) -> bool:
        """Whether a connection to the present target is open."""
        return self.reached is not None and any(link.up and not link.retired for link in self._links)

    def start(self) -> None:
        """Reserve the port, listening to nobody yet. Raises ConfigError."""
        self._holder = _bound(self._wanted_port)
        self.port = self._holder.getsockname()[1]
        self._sweeping = spawn(self._sweep(), name="relay sweep")

    async def set_target(self, target: Target | None) -> None:
        """New connections go to `target`, or are refused; those to another one end at their next pause."""
        if target == self._target:
            return
        self._target, self.reached = target, None
        for link in self._links:
            link.retired = True
        if target is None:
            await self._close_door()
        elif self._server is None:
            loop = asyncio.get_running_loop()
            listening = _bound(self.port)
            self._server = await loop.create_server(self._accept, sock=listening, backlog=LISTEN_BACKLOG)

    async def stop(self) -> None:
        """Close the door and every connection."""
        self._target = None
        await self._close_door()
        if self._sweeping:
            await cancel(self._sweeping)
        for link in list(self._links):
            link.abort()
        if self._holder:
            self._holder.close()
            self._holder = None

    async def _close_door(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    def _accept(self) -> "_Side":
        return _Side(_Link(self))

    # --- what a link tells its relay ---------------------------------------------------------------------------------

    def joined(self, link: "_Link") -> bool:
        """Whether there is room for it; its dialling begins."""
        if len(self._links) >= MAX_CONNECTIONS or self._target is None:
            self._count("full" if self._target else "no_target")
            return False
        self._links.add(link)
        self._telemetry["forwarder_relay_connections"].set(len(self._links))
        link.dialling = spawn(self._dial(link, self._target), name="relay dial")
        return True

    def left(self, link: "_Link") -> None:
        self._links.discard(link)
        self._telemetry["forwarder_relay_connections"].set(len(self._links))

    def carried(self, link: "_Link", upwards: bool, size: int) -> None:
        link.last_used = self._clock()
        self._telemetry["forwarder_relay_bytes"].labels("up" if upwards else "down").inc(size)

    async def _dial(self, link: "_Link", target: Target) -> None:
        link.last_used = self._clock()
        try:
            await dial(self._way, target, lambda: _Side(link, up=True))
        except TunnelError as error:
            self._count(error.cause)
            self._complaints.say(str(target), error.cause, f"the receiver cannot be reached: {error}")
            link.abort()
        else:
            self._count("through")
            if target == self._target:
                self.reached = self._clock()

    def _count(self, result: str) -> None:
        self._telemetry["forwarder_relay_dials"].labels(result).inc()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._clock()
            for link in list(self._links):
                quiet_s = now - link.last_used
                idle = quiet_s > IDLE_S or (link.ending and quiet_s > LINGER_S)
                if idle or (link.retired and quiet_s > RETIRE_QUIET_S):
                    link.abort()


class _Link:
    """Two sides and what is known of them: `down` is Fluent Bit's, `up` the receiver's."""

    __slots__ = ("_relay", "dialling", "down", "ending", "last_used", "retired", "up")

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.down: _Side | None = None
        self.up: _Side | None = None
        self.dialling: asyncio.Task[None] | None = None
        self.last_used = 0.0
        self.retired = False
        self.ending = False

    def opened(self, side: "_Side") -> None:
        if side.is_up:
            self.up = side
            if self.down is None or self.down.gone:
                side.transport.abort()
            else:
                self.down.transport.resume_reading()
            return
        self.down = side
        side.transport.pause_reading()  # nothing is taken before there is somewhere to put it
        if not self._relay.joined(self):
            side.transport.abort()

    def other(self, side: "_Side") -> "_Side | None":
        return self.down if side.is_up else self.up

    def carried(self, side: "_Side", size: int) -> None:
        self._relay.carried(self, not side.is_up, size)

    def closed(self, side: "_Side") -> None:
        """One side is gone for good; what the other still holds for its peer is sent, then it goes too."""
        other = self.other(side)
        if other is not None and not other.gone:
            other.transport.close()
        if side is self.down and self.dialling and not self.dialling.done() and self.up is None:
            self.dialling.cancel()
        if other is None or other.gone:
            self._relay.left(self)

    def abort(self) -> None:
        if self.dialling and not self.dialling.done() and self.dialling is not asyncio.current_task():
            self.dialling.cancel()
        for side in (self.down, self.up):
            if side is not None and not side.gone:
                side.transport.abort()
        self._relay.left(self)


class _Side(asyncio.Protocol):
    """One of the two connections of a link."""

    transport: asyncio.Transport

    def __init__(self, link: _Link, *, up: bool = False) -> None:
        self._link = link
        self.is_up = up
        self.ended = False
        self.gone = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._link.opened(self)

    def data_received(self, data: bytes) -> None:
        other = self._link.other(self)
        if other is None or other.gone:
            return
        other.transport.write(data)
        self._link.carried(self, len(data))

    def eof_received(self) -> bool:
        other = self._link.other(self)
        if other is None or other.gone:
            return False
        self.ended = self._link.ending = True
        if other.ended:  # both have said their last
            other.transport.close()
            return False
        if other.transport.can_write_eof():
            other.transport.write_eof()
        return self.transport.can_write_eof()  # False closes this side too: TLS has no halves

    def pause_writing(self) -> None:
        other = self._link.other(self)
        if other is not None and not other.gone:
            other.transport.pause_reading()

    def resume_writing(self) -> None:
        other = self._link.other(self)
        if other is not None and not other.gone:
            other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = True
        self._link.closed(self)


def _bound(port: int) -> socket.socket:
    """A loopback socket that does not listen. Two of one port may exist, so that ours stays ours while the door is closed."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", port))
    except OSError as error:
        bound.close()
        message = f"cannot listen on 127.0.0.1:{port}: {error.strerror}; choose another port, or 0 for any"
        raise ConfigError(message, where="relay-port") from None
    return bound
