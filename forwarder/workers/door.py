"""The parent's side: a `contracts.Source` that accepts connections, hands each to a worker, and submits what they find.

A connection goes to the worker with the fewest, so that no kernel's choice or race decides how the load is shared. The
listening sockets stay here: while a worker is replaced clients wait in the backlog instead of being refused.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

from forwarder.contracts import Batch, Stopping, Submit
from forwarder.detection.actors import ROBOTS
from forwarder.detection.rules import RuleSet
from forwarder.errors import ConfigError, Overloaded, ShuttingDown
from forwarder.settings import Address
from forwarder.sources import forward
from forwarder.sources.forward import ForwardSettings
from forwarder.tasks import cancel, spawn
from forwarder.telemetry import Telemetry
from forwarder.wire import heartbeats, listen
from forwarder.wire.budget import DEFAULT_BUDGET_BYTES
from forwarder.workers.channel import (
    Answer,
    Counts,
    Everything,
    Offer,
    Ready,
    Rules,
    Setup,
    Stop,
    ToWorker,
    decode_to_parent,
    frame,
    receive,
)

log = logging.getLogger(__name__)

ACCEPT_AT_ONCE = 64  # connections in one turn of the event loop
RESTART_DELAY_S = 1.0  # a worker that ends as it begins must not keep a core busy
START_DEADLINE_S = 30.0  # a busy machine; it imports what the parent has imported already
STOP_MARGIN_S = 3.0  # beyond what a worker takes to drain, until it is killed


class Hand:
    """One worker as the parent sees it. open: its connections, as far as known: reported ones, and those given since."""

    def __init__(
        self, process: asyncio.subprocess.Process, writer: asyncio.StreamWriter, connections: socket.socket
    ) -> None:
        self.process = process
        self.open = 0
        self.given = 0  # since the last report
        self._writer = writer
        self._connections = connections

    def tell(self, message: ToWorker) -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    def give(self, accepted: socket.socket) -> bool:
        """Hand a connection over; False when it cannot take one now."""
        try:
            socket.send_fds(self._connections, [b"c"], [accepted.fileno()])
        except OSError:
            return False
        self.given += 1
        return True

    def close(self) -> None:
        self._writer.close()
        self._connections.close()


class WorkersSource:
    """One Forward door with `workers` processes behind it. addresses: where it listens, once `started` was called."""

    def __init__(
        self,
        name: str,
        settings: ForwardSettings,
        telemetry: Telemetry,
        cluster: str,
        *,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
    ) -> None:
        """Raises ConfigError for settings that do not go together; opens nothing."""
        self.name = name
        self.addresses: list[Address] = []
        self._settings = settings
        self._cluster = cluster
        self._budget_bytes = budget_bytes // settings.workers
        self._address = forward.checked(name, settings)
        self._telemetry = telemetry
        self._rules = Rules(RuleSet(rules=(), ignore_namespaces=(), warnings=(), files=()), "", list(ROBOTS))
        self._everything = False
        self._hands: list[Hand] = []
        self._submit: Submit | None = None
        self._stopping = False
        telemetry["forwarder_workers"].labels(name).set(0)

    # --- what the pipeline tells it ---

    def set_rules(self, ruleset: RuleSet, own_namespace: str, robots: list[str]) -> None:
        """Screen by these from now on."""
        self._rules = Rules(ruleset, own_namespace, robots)
        for hand in self._hands:
            hand.tell(self._rules)

    def set_everything(self, wanted: bool) -> None:
        """Whether every line is wanted."""
        self._everything = wanted
        for hand in self._hands:
            hand.tell(Everything(wanted))

    # --- the source ---

    async def run(self, submit: Submit, stopping: Stopping, started: Callable[[], None]) -> None:
        """Until `stopping` is set and what was received is acknowledged. Raises ConfigError when it cannot open."""
        loop = asyncio.get_running_loop()
        self._submit = submit
        sockets = listen.bind(self._address, f"sources.{self.name}.listen")
        self.addresses = [listen.bound_address(opened) for opened in sockets]
        answering: list[asyncio.DatagramTransport] = []
        keepers: list[asyncio.Task[None]] = []
        try:
            first = [await self._start() for _ in range(self._settings.workers)]
            keepers = [spawn(self._keep(*one), name=f"{self.name} worker {number}") for number, one in enumerate(first)]
            if self._settings.udp_heartbeat:
                answering = await heartbeats.answer(self.addresses, f"sources.{self.name}")
            for opened in sockets:
                opened.setblocking(False)
                loop.add_reader(opened, self._accept, opened)
            log.info("%s: listening on %s, %d workers", self.name, ", ".join(map(str, self.addresses)), len(first))
            started()
            await stopping.wait()
        finally:
            self._stopping = True
            for opened in sockets:
                loop.remove_reader(opened)
                self._accept(opened)  # whoever was accepted by the kernel already
                opened.close()
            for transport in answering:
                transport.close()
            for address in self.addresses:
                listen.remove(address)
            for hand in self._hands:
                hand.tell(Stop())
            if keepers:
                patience_s = self._settings.ack_timeout_s + forward.DRAIN_MARGIN_S + STOP_MARGIN_S
                await asyncio.wait(keepers, timeout=patience_s)
            for hand in tuple(self._hands):
                hand.process.kill()
            await cancel(*keepers)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            with accepted:  # our copy; the worker has its own, and where none took it the client tries again
                for hand in sorted(self._hands, key=lambda hand: hand.open + hand.given):
                    if hand.give(accepted):
                        break

    # --- one worker ---

    async def _start(self) -> tuple[Hand, asyncio.StreamReader]:
        """Start a worker. Raises ConfigError when it says why it cannot work."""
        ours, theirs = socket.socketpair()
        give, take = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs, take:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "forwarder.workers.worker", str(theirs.fileno()), str(take.fileno()),
                pass_fds=(theirs.fileno(), take.fileno()), stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        give.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        hand = Hand(process, writer, give)
        hand.tell(self._setup())
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                data = await receive(reader)
        except TimeoutError:
            data = None
        answer = decode_to_parent(data) if data is not None else None
        if not isinstance(answer, Ready) or answer.fault:
            process.kill()
            await process.wait()
            hand.close()
            raise ConfigError(
                answer.fault if isinstance(answer, Ready) else "a worker did not start", where=f"sources.{self.name}"
            )
        hand.tell(self._rules)  # they may have changed since
        hand.tell(Everything(self._everything))
        self._hands.append(hand)
        self._show()
        return hand, reader

    def _setup(self) -> Setup:
        root = logging.getLogger()
        return Setup(
            name=self.name,
            settings=self._settings,
            cluster=self._cluster,
            rules=self._rules,
            max_connections=max(1, self._settings.max_connections // self._settings.workers),
            budget_bytes=self._budget_bytes,
            log_level=root.level,
            log_format="json"
            if any("Json" in type(handler.formatter).__name__ for handler in root.handlers)
            else "text",
        )

    async def _keep(self, hand: Hand, reader: asyncio.StreamReader) -> None:
        """Serve one worker, and start another where it dies."""
        while True:
            try:
                await self._serve(hand, reader)
            finally:
                self._hands.remove(hand)
                hand.close()
                self._show()
            code = await hand.process.wait()
            if self._stopping:
                return
            self._telemetry["forwarder_worker_restarts"].labels(self.name).inc()
            log.warning(
                "%s: a worker ended (%s); what it had not acknowledged is sent again, another takes its place",
                self.name, f"signal {-code}" if code < 0 else f"code {code}",
            )  # fmt: skip
            while True:
                await asyncio.sleep(RESTART_DELAY_S)
                try:
                    hand, reader = await self._start()
                    break
                except (ConfigError, OSError) as error:
                    log.error("%s: a worker cannot be started: %s; it is tried again", self.name, error)

    async def _serve(self, hand: Hand, reader: asyncio.StreamReader) -> None:
        offers: set[asyncio.Task[Any]] = set()
        while (data := await receive(reader)) is not None:
            message = decode_to_parent(data)
            if isinstance(message, Offer):
                task = spawn(self._take(hand, message), name=f"batch of {message.origin}")
                offers.add(task)
                task.add_done_callback(offers.discard)
            elif isinstance(message, Counts):
                self._add_up(hand, message)

    async def _take(self, hand: Hand, offer: Offer) -> None:
        batch = Batch(
            origin=offer.origin,
            received=offer.received,
            lines=offer.lines,
            rejected=offer.rejected,
            cluster=offer.cluster,
        )
        assert self._submit is not None
        try:
            await self._submit(batch)
        except Overloaded as error:
            hand.tell(Answer(offer.number, error.reason or "overloaded", error.retry_after_s))
        except ShuttingDown:
            hand.tell(Answer(offer.number, closing=True))
        except Exception:
            hand.tell(Answer(offer.number, "fault", 1.0))
            raise
        else:
            hand.tell(Answer(offer.number))

    def _add_up(self, hand: Hand, counts: Counts) -> None:
        hand.open, hand.given = counts.open, 0
        self._telemetry["forwarder_source_bytes"].labels(self.name).inc(counts.received_bytes)
        self._telemetry["forwarder_screen_fallback"].inc(counts.fallback)
        for cause, number in counts.closed.items():
            self._telemetry["forwarder_connections_closed"].labels(self.name, cause).inc(number)
        self._show()

    def _show(self) -> None:
        self._telemetry["forwarder_workers"].labels(self.name).set(len(self._hands))
        self._telemetry["forwarder_connections"].labels(self.name).set(sum(hand.open for hand in self._hands))
