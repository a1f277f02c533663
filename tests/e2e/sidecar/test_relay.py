"""The relay over real sockets: what passes, what waits, what ends."""

import asyncio
import contextlib
import time

import pytest

from forwarder.errors import ConfigError
from forwarder.sidecar import relay as relay_module
from forwarder.sidecar.metrics import SIDECAR_METRICS
from forwarder.sidecar.relay import HIGH_WATER_BYTES, Relay
from forwarder.sidecar.tunnel import Direct, Target
from forwarder.telemetry import Telemetry

pytestmark = pytest.mark.e2e


class Receiver:
    """A TCP server whose connections the test holds."""

    def __init__(self):
        self.connections = asyncio.Queue()
        self._writers = []

    async def start(self):
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0, limit=1 << 16)
        self.target = Target("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def close(self):
        """Stop listening and let go of every connection."""
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.05)

    async def _take(self, reader, writer):
        self._writers.append(writer)
        await self.connections.put((reader, writer))

    async def next(self):
        return await asyncio.wait_for(self.connections.get(), 5)


@pytest.fixture
async def receiver():
    made = await Receiver().start()
    yield made
    await made.close()


@pytest.fixture
async def relay():
    made = Relay(Direct(), Telemetry(SIDECAR_METRICS))
    made.start()
    made.test_writers = []
    yield made
    for writer in made.test_writers:
        writer.close()
    await made.stop()
    await asyncio.sleep(0.05)


async def connect(relay):
    reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", relay.port), 5)
    relay.test_writers.append(writer)
    return reader, writer


async def eventually(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_without_a_target_a_connection_is_refused_by_the_kernel(relay, receiver):
    """Fluent Bit sees at once that nobody is there; the port stays ours and opens and closes with the target."""
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            await connect(relay)
        await relay.set_target(receiver.target)
        _, writer = await connect(relay)
        await receiver.next()
        writer.close()
        await relay.set_target(None)


async def test_each_half_closes_on_its_own(relay, receiver):
    """A client that has said its last still gets the answer, and the other way round."""
    await relay.set_target(receiver.target)
    reader, writer = await connect(relay)
    writer.write(b"question")
    writer.write_eof()
    up_reader, up_writer = await receiver.next()
    assert await up_reader.read() == b"question"
    up_writer.write(b"answer")
    up_writer.close()
    assert await reader.read() == b"answer"
    reader, writer = await connect(relay)
    up_reader, up_writer = await receiver.next()
    up_writer.write(b"bye")
    up_writer.write_eof()
    assert await reader.read() == b"bye"
    writer.write(b"one more")
    writer.close()
    assert await up_reader.read() == b"one more"
    up_writer.close()


async def test_a_receiver_that_does_not_read_is_not_read_for(relay, receiver):
    """Memory stays bounded: what waits in the relay is its high-water mark and the sockets' own buffers."""
    await relay.set_target(receiver.target)
    _, writer = await connect(relay)
    up_reader, up_writer = await receiver.next()
    sent = 0
    chunk = bytes(1 << 20)
    with contextlib.suppress(TimeoutError):
        while True:
            writer.write(chunk)
            await asyncio.wait_for(writer.drain(), 0.5)
            sent += len(chunk)
            assert sent < 200 << 20, "it swallows everything"
    (link,) = relay._links
    assert link.up.transport.get_write_buffer_size() <= HIGH_WATER_BYTES + (256 << 10)
    writer.write_eof()
    got = 0
    while piece := await asyncio.wait_for(up_reader.read(1 << 20), 5):
        got += len(piece)
    assert got >= sent, "and all of it arrives once it is read"
    up_writer.close()
    writer.close()


async def test_a_new_target_ends_old_connections_when_they_pause(relay, receiver, monkeypatch):
    """A chunk in flight is finished; what is silent goes, so that Fluent Bit connects to the new one."""
    monkeypatch.setattr(relay_module, "RETIRE_QUIET_S", 0.3)
    monkeypatch.setattr(relay_module, "SWEEP_S", 0.05)
    await relay.set_target(receiver.target)
    reader, writer = await connect(relay)
    _, old = await receiver.next()
    other = await Receiver().start()
    await relay.set_target(other.target)
    for _ in range(5):
        writer.write(b"still")
        await asyncio.sleep(0.1)
    assert not reader.at_eof()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)
    reader, writer = await connect(relay)
    await other.next()
    writer.close()
    old.close()
    await other.close()


async def test_what_is_silent_for_long_ends(relay, receiver, monkeypatch):
    """A flow whose other end died without a word holds its place no longer than the limit."""
    monkeypatch.setattr(relay_module, "IDLE_S", 0.2)
    await relay.set_target(receiver.target)
    reader, writer = await connect(relay)
    await receiver.next()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)
    await eventually(lambda: not relay._links)
    writer.close()


async def test_beyond_the_cap_a_connection_is_closed(relay, receiver, monkeypatch):
    """A receiver that hangs makes Fluent Bit open more and more."""
    monkeypatch.setattr(relay_module, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(relay_module, "LINGER_S", 0.2)  # this receiver says nothing
    await relay.set_target(receiver.target)
    held = [await connect(relay) for _ in range(3)]
    for _ in held:
        await receiver.next()
    reader, writer = await connect(relay)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)
    assert relay._telemetry.value("forwarder_relay_dials", result="full") == 1
    for _, writer in held:
        writer.close()
    await eventually(lambda: not relay._links)


async def test_an_abrupt_end_on_either_side_ends_the_other(relay, receiver):
    """A reset passes through; nothing is left behind."""
    await relay.set_target(receiver.target)
    for _ in range(20):
        reader, writer = await connect(relay)
        _, up_writer = await receiver.next()
        up_writer.transport.abort()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        reader, writer = await connect(relay)
        up_reader, up_writer = await receiver.next()
        writer.transport.abort()
        assert await asyncio.wait_for(up_reader.read(), 5) == b""
        up_writer.close()
    await eventually(lambda: not relay._links)


async def test_a_taken_port_is_a_persons_to_mend(receiver):
    """It says which port, and what to do."""
    with pytest.raises(ConfigError, match=rf"{receiver.target.port}.*choose another port"):
        Relay(Direct(), Telemetry(SIDECAR_METRICS), port=receiver.target.port).start()
