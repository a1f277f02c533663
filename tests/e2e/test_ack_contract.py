"""Invariant 1 over the whole registry: no source acknowledges a batch that was not accepted, whatever went wrong."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from forwarder.contracts import Batch
from forwarder.errors import Overloaded, ShuttingDown
from forwarder.registry import SOURCES
from forwarder.sources.file import FileSettings, FileSource
from forwarder.sources.forward import ForwardSettings, ForwardSource
from forwarder.sources.kafka import KafkaSource, KafkaSourceSettings
from forwarder.sources.webhook import WebhookSettings, WebhookSource
from forwarder.telemetry import Telemetry
from forwarder.wire.forward_client import AckReader, entries, packed_forward
from tests.e2e.kafka.broker import Broker

pytestmark = pytest.mark.e2e

LINES = [json.dumps({"kind": "Event", "auditID": str(number), "verb": "get"}).encode() for number in range(20)]


class Submit:
    """What the pipeline is to a source. error: raised while it is set. batches: what was accepted."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.batches: list[Batch] = []
        self.asked = asyncio.Event()

    async def __call__(self, batch: Batch) -> None:
        self.asked.set()
        if self.error:
            raise self.error
        self.batches.append(batch)


@asynccontextmanager
async def running(source, submit: Submit) -> AsyncIterator[None]:
    """The source, started; it may end by an error of its own, as it does for a bug in the pipeline."""
    stopping, started = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(source.run(submit, stopping, started.set))  # noqa: TID251
    await asyncio.wait([task, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED, timeout=10)  # noqa: TID251
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait([task], timeout=15)
        assert task.done()


class ForwardDriver:
    """Acknowledged: the chunk id came back."""

    def __init__(self, folder: Path) -> None:
        self.settings = ForwardSettings(listen="127.0.0.1:0", ack_timeout_s=0.3)
        self.source = self.fresh()

    def fresh(self) -> ForwardSource:
        self.source = ForwardSource("forward", self.settings, lambda *_: True, Telemetry(), "")
        return self.source

    async def acknowledged(self) -> bool:
        address = self.source.addresses[0]
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(packed_forward(b"audit", entries(LINES, time.time()), chunk=b"the-chunk"))
        acks = AckReader()
        try:
            while (data := await asyncio.wait_for(reader.read(1000), 2)) != b"":
                acks.receive_data(data)
        except (TimeoutError, ConnectionError):
            pass
        writer.close()
        return acks.next_ack() == b"the-chunk"


class FileDriver:
    """Acknowledged: the checkpoint stands behind the last line."""

    def __init__(self, folder: Path) -> None:
        self.log, self.checkpoint = folder / "audit.log", folder / "position.json"
        self.log.write_bytes(b"\n".join(LINES) + b"\n")
        self.settings = FileSettings(
            path=str(self.log), start="beginning", checkpoint=str(self.checkpoint), poll_interval_s=0.02
        )

    def fresh(self) -> FileSource:
        return FileSource("file", self.settings, lambda *_: True, Telemetry())

    async def acknowledged(self) -> bool:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            if self.checkpoint.exists():
                marks = json.loads(self.checkpoint.read_text())["files"]
                if [mark["offset"] for mark in marks] == [self.log.stat().st_size]:
                    return True
            await asyncio.sleep(0.02)
        return False


class KafkaDriver:
    """Acknowledged: the group's committed offset stands behind the last message."""

    def __init__(self, _: Path, broker: Broker) -> None:
        self.broker = broker
        self.topic = broker.topic(f"contract-{uuid.uuid4().hex[:8]}")
        broker.produce(self.topic, LINES)

    def fresh(self) -> KafkaSource:
        settings = KafkaSourceSettings(brokers=[self.broker.address], topics=[self.topic], group=self.topic)
        return KafkaSource("kafka", settings, lambda *_: True, Telemetry(), "")

    async def acknowledged(self) -> bool:
        """Offsets are committed every second."""
        end = time.monotonic() + 8.0
        while time.monotonic() < end:
            if await asyncio.to_thread(self.broker.committed, self.topic, self.topic) == len(LINES):
                return True
            await asyncio.sleep(0.2)
        return False


class WebhookDriver:
    """Acknowledged: the answer is 200."""

    def __init__(self, folder: Path) -> None:
        self.settings = WebhookSettings(listen="127.0.0.1:0", ack_timeout_s=0.3)
        self.source = self.fresh()

    def fresh(self) -> WebhookSource:
        self.source = WebhookSource("webhook", self.settings, lambda *_: True, Telemetry(), "")
        return self.source

    async def acknowledged(self) -> bool:
        address = self.source.addresses[0]
        reader, writer = await asyncio.open_connection(address.host, address.port)
        body = b"[" + b",".join(LINES) + b"]"
        writer.write(b"POST /audit HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = await asyncio.wait_for(reader.read(1000), 5)
        writer.close()
        return answer.startswith(b"HTTP/1.1 2")


Driver = ForwardDriver | FileDriver | WebhookDriver | KafkaDriver
DRIVERS: dict[str, Callable[..., Driver]] = {
    "forward": ForwardDriver,
    "file": FileDriver,
    "webhook": WebhookDriver,
    "kafka": KafkaDriver,
}


def test_every_source_is_driven() -> None:
    """A new source brings its driver."""
    assert set(DRIVERS) == set(SOURCES)


@pytest.mark.parametrize("kind", sorted(DRIVERS))
@pytest.mark.parametrize(
    "error",
    [Overloaded("outbox_full", retry_after_s=0.05), ShuttingDown("closing"), RuntimeError("a bug in the pipeline")],
    ids=["overloaded", "shutting-down", "bug"],
)
async def test_what_was_not_accepted_is_not_acknowledged(
    kind: str, error: Exception, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """And comes again: the next run of the same source gets it accepted, every line of it."""
    brokers = [request.getfixturevalue("shared_broker")] if kind == "kafka" else []
    driver = DRIVERS[kind](tmp_path, *brokers)
    submit = Submit()
    submit.error = error
    async with running(driver.fresh(), submit):
        assert not await driver.acknowledged()
        assert submit.asked.is_set()
    assert submit.batches == []
    submit = Submit()
    async with running(driver.fresh(), submit):
        assert await driver.acknowledged()
    assert [line.data for batch in submit.batches for line in batch.lines] == LINES
    assert sum(batch.received for batch in submit.batches) == len(LINES)
