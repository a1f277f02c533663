"""One worker of a Forward door: `python -m forwarder.workers.worker CHANNEL CONNECTIONS`, started by door.py only.

The two numbers are inherited sockets: messages (channel.py), and accepted connections as they come. It listens to no
signals, as what is sent to the whole process group is the parent's to act on, and ends when its parent does.
"""

import array
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from forwarder import logs
from forwarder.contracts import Batch
from forwarder.detection.detector import Detector
from forwarder.errors import ConfigError, Overloaded, ShuttingDown
from forwarder.sources.forward import ForwardSource
from forwarder.tasks import cancel, settle, spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.budget import ByteBudget
from forwarder.workers.channel import (
    Answer,
    Counts,
    Everything,
    Offer,
    Ready,
    Rules,
    Setup,
    Stop,
    decode_to_worker,
    frame,
    receive,
)

COUNTS_EVERY_S = 1.0
FDS_AT_ONCE = 16  # connections taken from the parent in one turn of the event loop


class Worker:
    """The connections of one process, and what it says to its parent."""

    def __init__(self, setup: Setup, send: Callable[[bytes], None]) -> None:
        """Raises ConfigError."""
        self._send = send
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0
        self.telemetry = Telemetry()
        self.detector = _detector(setup.rules)
        self.screen = self.detector.screen
        self.source = ForwardSource(
            setup.name,
            setup.settings,
            self.screen,
            self.telemetry,
            setup.cluster,
            budget=ByteBudget(setup.budget_bytes),
            max_connections=setup.max_connections,
        )
        self._told: dict[str, float] = {}
        self._told_closed: dict[str, float] = {}

    async def submit(self, batch: Batch) -> None:
        """`contracts.Submit`, answered by the parent."""
        self._number += 1
        number = self._number
        self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(
                frame(
                    Offer(number, batch.origin, batch.received, list(batch.lines), list(batch.rejected), batch.cluster)
                )
            )
            answer = await self._waiting[number]
        finally:
            del self._waiting[number]
        if answer.closing:
            raise ShuttingDown("the receiver is shutting down")
        if answer.refused:
            raise Overloaded(answer.refused, retry_after_s=answer.retry_after_s)

    def hear(self, message: Any) -> None:
        """One message of the parent, except Stop."""
        match message:
            case Answer():
                waiting = self._waiting.get(message.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Rules():
                self.screen.adopt(_detector(message).screen)
            case Everything():
                self.screen.everything = message.wanted

    def counts(self) -> Counts:
        """What was counted since the last call."""
        name = self.source.name
        closed = self._since(self._told_closed, self.telemetry.by_label("forwarder_connections_closed", "cause"))
        plain = self._since(
            self._told,
            {
                "bytes": self.telemetry.value("forwarder_source_bytes", source=name),
                "fallback": self.screen.counts.fallback,
            },
        )
        opened = int(self.telemetry.value("forwarder_connections", source=name))
        return Counts(opened, plain.get("bytes", 0), plain.get("fallback", 0), closed)

    @staticmethod
    def _since(told: dict[str, float], now: dict[str, float]) -> dict[str, int]:
        new = {key: int(value - told.get(key, 0)) for key, value in now.items() if value != told.get(key, 0)}
        told.update(now)
        return new


def _detector(rules: Rules) -> Detector:
    return Detector(rules.ruleset, own_namespace=rules.own_namespace, robots=rules.robots)


def take_connections(connections: socket.socket, take: Callable[[socket.socket], None]) -> None:
    """The connections that the parent has handed over and nobody has taken yet, some of them."""
    size = array.array("i").itemsize
    for _ in range(FDS_AT_ONCE):
        try:
            _, ancillary, _, _ = connections.recvmsg(1, socket.CMSG_LEN(size))
        except (BlockingIOError, ConnectionError):
            return
        if not ancillary:
            return
        for _, _, data in ancillary:
            for descriptor in array.array("i", data[: len(data) - len(data) % size]):
                take(socket.socket(fileno=descriptor))


async def run(channel: socket.socket, connections: socket.socket) -> None:
    """Until the parent says stop, or is gone."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    first = await receive(reader)
    setup = decode_to_worker(first) if first is not None else None
    if not isinstance(setup, Setup):
        return
    logs.configure(logging.getLevelName(setup.log_level).lower(), setup.log_format)
    try:
        worker = Worker(setup, writer.write)
        stopping, started = asyncio.Event(), asyncio.Event()
        serving = spawn(worker.source.serve(worker.submit, stopping, started.set), name="connections")
        await asyncio.wait({serving, spawn(started.wait(), name="started")}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    except ConfigError as error:
        writer.write(frame(Ready(str(error))))
        await writer.drain()
        return
    settle()
    writer.write(frame(Ready()))
    connections.setblocking(False)
    loop.add_reader(connections, take_connections, connections, worker.source.take)
    counting = spawn(_count(worker, writer), name="counts")
    while (data := await receive(reader)) is not None:
        message = decode_to_worker(data)
        if isinstance(message, Stop) and not stopping.is_set():
            loop.remove_reader(connections)
            take_connections(connections, worker.source.take)
            stopping.set()
            serving.add_done_callback(lambda _: reader.feed_eof())
        else:
            worker.hear(message)
    if not stopping.is_set():
        os._exit(1)  # the parent is gone: nothing that is in flight can be acknowledged
    await cancel(counting)
    writer.write(frame(worker.counts()))
    await writer.drain()
    writer.close()


async def _count(worker: Worker, writer: asyncio.StreamWriter) -> None:
    while True:
        await asyncio.sleep(COUNTS_EVERY_S)
        writer.write(frame(worker.counts()))


def main() -> None:
    """The process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    channel, connections = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    asyncio.run(run(channel, connections))


if __name__ == "__main__":
    main()
