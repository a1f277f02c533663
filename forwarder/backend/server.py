"""The backend as a server inside a running event loop: bind, migrate, answer, keep in order, close.

Order: the address is bound first, so that a second start fails before it touches the database; `started()` is called
when requests are answered; when `stopping` is set, no new connection is taken, open requests get SHUTDOWN_S to end,
and the store is closed last. Where sinks hang off it (`exit_`), they open before the door does and close after it.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from forwarder.backend.access.keys import KeyStore
from forwarder.backend.api import Clock, create_app
from forwarder.backend.dashboard.rulebook import RuleBook, no_rules
from forwarder.backend.database import cause
from forwarder.backend.heads import HeadProtocol
from forwarder.backend.onward import Exit
from forwarder.backend.settings import BackendSettings, listen_address, refuse_strangers
from forwarder.backend.store import Store
from forwarder.contracts import Stopping
from forwarder.errors import ConfigError
from forwarder.settings import Address
from forwarder.tasks import cancel, spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.complaints import Complaints

log = logging.getLogger(__name__)

MAINTAIN_S = 5.0  # what leaves the score's window is subtracted that often; in between readers reckon it out
REBUILD_PAUSE_S = 0.05  # between two steps towards a new half-life, so that writers get their turn
SHUTDOWN_S = 5  # longer than any request takes; a reader that hangs is cut off
KEEP_ALIVE_S = 75  # longer than a sink's pause between batches, so that it does not write into a closing connection
MAX_CONNECTIONS = 256  # receivers keep one each, browsers six; beyond it the answer is 503
BACKLOG = 256


class BackendServer:
    """One backend. address: where it is bound, None before. store: None unless it serves.

    keys: whether any key was in force when it started.
    """

    def __init__(
        self,
        settings: BackendSettings,
        clock: Clock = time.time,
        exit_: Exit | None = None,
        *,
        rules: RuleBook = no_rules,
        telemetry: Telemetry | None = None,
    ) -> None:
        """exit_: where first-seen events go on to. rules: what the pages of rules show. telemetry: counts what is sent."""
        self._rules = rules
        self._telemetry = telemetry
        self._settings = settings
        self._exit = exit_
        self._clock = clock
        self.address: Address | None = None
        self.store: Store | None = None
        self.keys = False

    async def serve(self, stopping: Stopping, started: Callable[[], None]) -> None:
        """Serve until `stopping` is set. Raises ConfigError when the address or the database cannot be used."""
        listener = _bind(listen_address(self._settings))
        try:
            store = await asyncio.to_thread(self._open_store)
        except BaseException:
            listener.close()
            raise
        try:
            if self._exit:
                await asyncio.to_thread(self._exit.open)
        except BaseException:
            listener.close()
            store.close()
            raise
        self.store = store
        host, port = listener.getsockname()[:2]
        self.address = Address(host=host, port=port)
        app = create_app(store, self._settings, self._clock, self._exit, rules=self._rules, telemetry=self._telemetry)
        server = _Server(_config(app), started)
        gc.freeze()  # what is there now stays: to look through it for garbage again and again would hold answers up
        helpers = (
            spawn(self._maintain(store), name="backend maintenance"),
            spawn(_stop(server, stopping, app.state.live.close), name="backend stop"),
        )
        try:
            await server.serve(sockets=[listener])
        except asyncio.CancelledError:
            if server.started:
                await server.shutdown(sockets=[listener])
            raise
        finally:
            await cancel(*helpers)
            listener.close()
            if self._exit:
                await asyncio.to_thread(self._exit.close)
            store.close()
            self.store = None

    def _open_store(self) -> Store:
        """Nobody is let in before it has been seen whether a key protects what is in it."""
        store = Store.open(self._settings.database)
        try:
            self.keys = bool(self._settings.api_key) or any(
                key.holds(self._now_us()) for key in KeyStore(store.database).all()
            )
            refuse_strangers(self._settings, listen_address(self._settings), keys=self.keys)
        except BaseException:
            store.close()
            raise
        return store

    async def _maintain(self, store: Store) -> None:
        """Scores stay in their window, marks lapse, old events go, a new half-life is worked in."""
        complained = False
        while True:
            pause_s = MAINTAIN_S
            try:
                deleted = await asyncio.to_thread(store.maintain, self._now_us())
                if deleted:
                    log.info("deleted %d events that were older than the retention", deleted)
                if await asyncio.to_thread(store.rebuild_step, self._now_us()):
                    pause_s = REBUILD_PAUSE_S
                complained = False
            except SQLAlchemyError as error:
                if not complained:
                    log.warning("the store could not be maintained, trying again: %s", cause(error))
                complained = True
            await asyncio.sleep(pause_s)

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)


class _Server(uvicorn.Server):
    """uvicorn without hands on the process: signals belong to the command line."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()


async def _stop(server: uvicorn.Server, stopping: Stopping, end_streams: Callable[[], None]) -> None:
    await stopping.wait()
    end_streams()
    server.should_exit = True


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=partial(HeadProtocol, Complaints(log, time.monotonic)),  # type: ignore[arg-type]
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # X-Forwarded-For is believed from `trusted_proxies` alone, in `create_app`
        lifespan="off",
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        backlog=BACKLOG,
    )


def _bind(address: Address) -> socket.socket:
    """A bound TCP socket. Raises ConfigError with what to do."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {error.strerror}", where="backend.listen") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = f"{address} is in use by another program; stop it or listen on another port"
        else:
            message = f"cannot listen on {address}: {error.strerror}"
        raise ConfigError(message, where="backend.listen") from None
    return listener
