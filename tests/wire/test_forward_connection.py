"""One connection, with a transport and a door of the test's own: what leaves, in how many writes, and when."""

import asyncio
import gzip
import logging
import os
from itertools import chain

import msgpack
import pytest
import zstandard

from forwarder.errors import ForwardProtocolError, Overloaded, ShuttingDown
from forwarder.wire import forward_connection
from forwarder.wire.budget import ByteBudget
from forwarder.wire.fluent_forward import ForwardReceiver, ack
from forwarder.wire.forward_client import entries, packed_forward
from forwarder.wire.forward_connection import HANDSHAKE_DEADLINE_S, ForwardConnection
from forwarder.wire.forward_handshake import ClientHandshake, ServerHandshake


class Transport(asyncio.Transport):
    """Remembers every write by itself, and what it was told."""

    def __init__(self):
        super().__init__({"peername": ("10.0.0.7", 5000)})
        self.writes, self.closing, self.reading, self.aborted = [], False, True, False
        self.unread_bytes = 0

    def write(self, data):
        assert not self.closing
        self.writes.append(bytes(data))

    def get_write_buffer_size(self):
        return self.unread_bytes

    def close(self):
        self.closing = True

    def abort(self):
        self.closing = self.aborted = True

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class Gatherer:
    """Keeps lines; full beyond three."""

    def __init__(self):
        self.lines = []
        self.held_bytes = 0

    @property
    def full(self):
        return len(self.lines) > 3

    def add(self, found):
        self.lines += [bytes(found.buffer[start:end]) for start, end in found.spans]
        self.held_bytes = sum(map(len, self.lines))

    def add_unreadable(self, rest):
        self.lines.append(rest.sha256.encode())

    def batch(self):
        batch, self.lines, self.held_bytes = self.lines, [], 0
        return batch


class Door:
    """Takes batches; each of `errors` is raised once before; waits at `gate` while it is closed."""

    def __init__(self, *errors, handshake=None, ack_timeout_s=5.0, budget=10**9):
        self.budget, self.tls = ByteBudget(budget), None
        self.ack_timeout_s, self.idle_timeout_s = ack_timeout_s, 60.0
        self.errors, self.handshake = list(errors), handshake
        self.batches, self.complaints, self.causes, self.bytes = [], [], [], 0
        self.gate, self.refusal = asyncio.Event(), ""
        self.gate.set()

    def admit(self, connection):
        return self.refusal

    def receiver(self):
        return ForwardReceiver(handshake=self.handshake), self.handshake

    def gatherer(self, peer, certificate):
        return Gatherer()

    async def submit(self, batch):
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(batch)

    def received(self, size_bytes):
        self.bytes += size_bytes

    def complain(self, peer, kind, text, *, level=logging.WARNING):
        self.complaints.append((kind, text, level))

    def closed(self, connection, cause):
        self.causes.append(cause)


class Client:
    """A connection to `door`, seen from the other end."""

    def __init__(self, door):
        self.door, self.transport = door, Transport()
        self.connection = ForwardConnection(door)
        self.connection.connection_made(self.transport)

    def send(self, data):
        room = self.connection.get_buffer(-1)
        room[: len(data)] = data
        self.connection.buffer_updated(len(data))

    async def settle(self):
        """Let everything run that can."""
        for _ in range(20):
            await asyncio.sleep(0)

    def lose(self):
        self.transport.closing = True
        self.connection.connection_lost(None)

    @property
    def writes(self):
        return self.transport.writes


def _message(*lines, chunk=b"c"):
    return packed_forward(b"t", entries([line.encode() for line in lines], 1.0), chunk=chunk)


async def test_an_acknowledgement_leaves_in_one_write_and_only_after_submit_has_returned():
    """Until the batch is durable nothing leaves, and nothing more is read."""
    client = Client(door := Door())
    door.gate.clear()
    client.send(_message("a", "b"))
    await client.settle()
    assert (client.writes, client.transport.reading) == ([], False)
    door.gate.set()
    await client.settle()
    assert door.batches == [[b"a", b"b"]]
    assert (client.writes, client.transport.reading) == ([ack(b"c")], True)


async def test_nothing_is_acknowledged_before_the_options_have_come():
    """The last byte of the message makes it complete."""
    client, data = Client(Door()), _message("a", "b")
    for byte in data[:-1]:
        client.send(bytes([byte]))
    await client.settle()
    assert (client.writes, client.door.batches) == ([], [])
    client.send(data[-1:])
    await client.settle()
    assert client.writes == [ack(b"c")]


@pytest.mark.parametrize(
    ("error", "cause"),
    [(ShuttingDown("x"), "stopping"), (RuntimeError("a fault"), "fault"), (TimeoutError(), "overloaded")],
    ids=["shutting down", "fault", "timeout"],
)
async def test_when_submit_raises_the_connection_closes_without_an_acknowledgement(error, cause, caplog):
    """The client sends again."""
    client = Client(Door(error))
    client.send(_message("a"))
    await client.settle()
    assert (client.writes, client.transport.closing) == ([], True)
    client.lose()
    assert client.door.causes == [cause]


async def test_an_overloaded_pipeline_is_asked_again_until_the_time_is_over(monkeypatch):
    """Within the client's patience the acknowledgement is late; after it there is none."""
    monkeypatch.setattr(forward_connection, "MIN_RETRY_INTERVAL_S", 0)
    patient = Client(Door(*[Overloaded("full", retry_after_s=0)] * 3))
    patient.send(_message("a"))
    hasty = Client(Door(*[Overloaded("full", retry_after_s=9)] * 1000, ack_timeout_s=0))
    hasty.send(_message("a"))
    await hasty.settle()
    assert (patient.door.batches, patient.writes) == ([[b"a"]], [ack(b"c")])
    assert (hasty.door.batches, hasty.writes, hasty.transport.closing) == ([], [], True)
    assert [kind for kind, _, _ in hasty.door.complaints] == ["overloaded"]


async def test_a_client_that_wants_no_acknowledgement_waits_as_long_as_it_takes(monkeypatch):
    """It would not send again: closing would lose its lines."""
    monkeypatch.setattr(forward_connection, "MIN_RETRY_INTERVAL_S", 0)
    client = Client(door := Door(*[Overloaded("full", retry_after_s=0)] * 5, ack_timeout_s=0))
    client.send(_message("a", chunk=None))
    await client.settle()
    assert (door.batches, client.writes, client.transport.closing) == ([[b"a"]], [], False)


async def test_lines_that_are_lost_for_good_are_an_error_in_the_log():
    """Shutdown, and a client that wants no acknowledgement."""
    client = Client(door := Door(ShuttingDown("x")))
    client.send(_message("a", chunk=None))
    await client.settle()
    assert [(kind, level) for kind, _, level in door.complaints] == [("lost", logging.ERROR)]


async def test_messages_of_one_read_are_one_batch_and_their_acknowledgements_leave_in_order():
    """The node client has many in flight; Fluentd's order must never slip."""
    client = Client(Door())
    client.send(_message("a", chunk=b"1") + _message("b", chunk=None) + _message("c", chunk=b"3") + _message("d")[:9])
    await client.settle()
    assert client.door.batches == [[b"a", b"b", b"c"]]
    assert client.writes == [ack(b"1") + ack(b"3")]


async def test_too_much_for_one_batch_is_submitted_early_and_acknowledged_at_the_end():
    """Nothing is acknowledged before the message's last line is durable."""
    client, data = Client(door := Door()), _message(*"abcdefghij")
    client.send(data[:-8])
    await client.settle()
    assert (list(chain(*door.batches)), client.writes) == ([bytes([n]) for n in b"abcdefghij"], [])
    door.gate.clear()
    client.send(data[-8:])
    await client.settle()
    assert client.writes == []
    door.gate.set()
    await client.settle()
    assert client.writes == [ack(b"c")]


async def test_what_was_complete_before_the_garbage_is_acknowledged():
    """Then the connection closes, with a word about what was wrong."""
    client = Client(Door())
    client.send(_message("a") + b"\x01garbage")
    await client.settle()
    assert (client.door.batches, client.writes, client.transport.closing) == ([[b"a"]], [ack(b"c")], True)
    assert client.door.complaints[0][0] == "protocol"
    client.lose()
    assert client.door.causes == ["protocol"]


async def test_a_blob_that_is_short_is_never_acknowledged():
    """Its last entry is missing its end."""
    client = Client(Door())
    blob = entries([b"x" * 50], 1.0)[0][:-1]
    client.send(msgpack.packb(["t", blob, {"chunk": "c"}]))
    await client.settle()
    assert (client.writes, client.door.batches, client.transport.closing) == ([], [], True)


async def test_the_handshake_takes_one_write_each_way():
    """Fluent Bit fails on a HELO or PONG that comes in two pieces."""
    client = Client(Door(handshake=ServerHandshake("key", {})))
    assert len(client.writes) == 1
    me = ClientHandshake("key")
    for byte in me.answer(client.writes[0]):
        client.send(bytes([byte]))
    assert len(client.writes) == 2
    me.check(client.writes[1])
    client.send(_message("a"))
    await client.settle()
    assert client.writes[2:] == [ack(b"c")]


async def test_a_wrong_key_is_told_and_the_connection_closes_at_once():
    """An open connection would be used for data, without another handshake."""
    client = Client(door := Door(handshake=ServerHandshake("key", {})))
    client.send(ClientHandshake("wrong").answer(client.writes[0]) + _message("a"))
    await client.settle()
    assert client.transport.closing
    assert msgpack.unpackb(client.writes[1])[:3] == ["PONG", False, "the shared key is wrong"]
    client.send(_message("a"))
    await client.settle()
    client.lose()
    assert (door.batches, door.causes, len(client.writes)) == ([], ["auth"], 2)
    assert "the shared key is wrong" in door.complaints[0][1]


async def test_whom_the_certificate_does_not_name_is_not_served():
    """The door asks it for the cluster."""
    door = Door(handshake=ServerHandshake("key", {}))

    def gatherer(peer, certificate):
        raise ForwardProtocolError("no name")

    door.gatherer = gatherer
    client = Client(door)
    assert (client.writes, client.transport.closing) == ([], True)
    client.lose()
    assert door.causes == ["auth"]


async def test_one_connection_too_many_is_closed_as_it_comes():
    """And the log says why."""
    door = Door()
    door.refusal = "full"
    client = Client(door)
    assert client.transport.closing
    client.lose()
    assert (door.causes, door.complaints[0][:2]) == (["too_many"], ("too_many", "full"))


async def test_a_client_that_has_said_all_still_gets_its_acknowledgement():
    """It closed its own direction and waits."""
    client = Client(door := Door())
    door.gate.clear()
    client.send(_message("a"))
    assert client.connection.eof_received() is True
    await client.settle()
    door.gate.set()
    await client.settle()
    assert (client.writes, client.transport.closing) == ([ack(b"c")], True)
    client.lose()
    assert door.causes == ["peer"]


async def test_a_connection_that_is_lost_meanwhile_is_only_over_when_its_lines_are_kept():
    """A logging library sends and goes; what it sent in one piece is handed on completely."""
    client = Client(door := Door())
    door.gate.clear()
    client.send(_message(*"abcdef", chunk=None) + _message("g", chunk=None))
    client.lose()
    await client.settle()
    assert door.causes == []
    door.gate.set()
    await client.settle()
    assert sorted(chain(*door.batches)) == [bytes([n]) for n in b"abcdefg"]
    assert (door.causes, client.writes) == (["peer"], [])


async def test_connecting_and_leaving_is_nothing_to_speak_of():
    """Fluentd's heartbeat does it every second."""
    client = Client(Door())
    assert not client.connection.eof_received()
    client.lose()
    assert (client.door.causes, client.door.complaints) == (["empty"], [])


async def test_stopping_closes_who_is_idle_and_acknowledges_what_is_complete():
    """What is not complete is not acknowledged, and comes again."""
    idle, busy, cut = Client(Door()), Client(Door()), Client(Door())
    busy.door.gate.clear()
    busy.send(_message("a"))
    cut.send(_message("a")[:-1])
    for client in (idle, busy, cut):
        client.connection.stop()
    assert [client.transport.closing for client in (idle, busy, cut)] == [True, False, True]
    busy.door.gate.set()
    await busy.settle()
    assert (busy.writes, busy.transport.closing, cut.writes) == ([ack(b"c")], True, [])


async def test_aborting_ends_what_is_in_flight():
    """At the end of the time for shutdown."""
    client = Client(door := Door())
    door.gate.clear()
    client.send(_message("a"))
    client.connection.abort()
    client.lose()
    await client.settle()
    assert (client.writes, client.transport.aborted, door.causes) == ([], True, ["stopping"])


async def test_a_handshake_that_is_not_finished_in_time_ends_the_connection():
    """Whoever is not authenticated holds nothing for long."""
    client = Client(door := Door(handshake=ServerHandshake("key", {})))
    now = asyncio.get_running_loop().time()
    client.connection.sweep(now + HANDSHAKE_DEADLINE_S - 1)
    assert not client.transport.closing
    client.connection.sweep(now + HANDSHAKE_DEADLINE_S + 1)
    assert client.transport.closing
    assert door.complaints[0][0] == "handshake"
    client.connection.sweep(now + 3 * HANDSHAKE_DEADLINE_S)
    assert client.transport.aborted  # it did not even read our last words


async def test_a_silent_connection_is_closed_and_one_that_never_spoke_gets_a_hint():
    """A Fluent Bit with a shared key waits for a HELO that never comes, and says nothing itself."""
    spoke, silent = Client(Door()), Client(Door())
    spoke.send(_message("a"))
    await spoke.settle()
    now = asyncio.get_running_loop().time()
    busy = Client(door := Door())
    door.gate.clear()
    busy.send(_message("a"))
    busy.connection.sweep(now + 61)
    assert not busy.transport.closing  # it waits for us
    door.gate.set()
    for client in (spoke, silent):
        client.connection.sweep(now + 59)
        assert not client.transport.closing
        client.connection.sweep(now + 61)
        assert client.transport.closing
    assert spoke.door.complaints == []
    assert "shared_key" in silent.door.complaints[0][1]


async def test_a_client_that_does_not_read_its_acknowledgements_is_not_read():
    """They would pile up here."""
    client = Client(Door())
    client.connection.pause_writing()
    assert not client.transport.reading
    client.connection.resume_writing()
    assert client.transport.reading


async def test_when_the_budget_is_spent_nobody_is_read_and_lines_go_early():
    """They are held only to be submitted together. Reading goes on when there is room."""
    door = Door(budget=1000)
    holder, idle = Client(door), Client(door)
    other = door.budget.share(lambda: None)
    data = _message("a", "b")
    holder.send(data[:-8])
    other.resize(2000)
    assert (holder.transport.reading, idle.transport.reading) == (False, False)
    await holder.settle()
    assert door.batches == [[b"a", b"b"]]
    other.resize(0)
    assert (holder.transport.reading, idle.transport.reading) == (True, True)
    holder.send(data[-8:])
    await holder.settle()
    assert holder.writes == [ack(b"c")]


async def test_who_holds_memory_and_waits_for_more_too_long_is_closed():
    """Two that wait for each other's memory would wait for ever; who holds nothing may stay."""
    door = Door(budget=1000, ack_timeout_s=3)
    holder, idle = Client(door), Client(door)
    holder.send(_message("x" * 2000)[:1500])
    assert door.budget.spent
    now = asyncio.get_running_loop().time()
    for client in (holder, idle):
        client.connection.sweep(now + 2)
        assert not client.transport.closing
        client.connection.sweep(now + 4)
    assert (holder.transport.closing, idle.transport.closing) == (True, False)
    holder.lose()
    assert (door.causes, door.budget.used_bytes, idle.transport.reading) == (["memory"], 0, True)


async def test_a_flood_of_entries_lets_others_have_their_turn(monkeypatch):
    """Decoding stops after a while, and goes on after whoever else is ready."""
    monkeypatch.setattr(forward_connection, "TURN_S", -1.0)
    monkeypatch.setattr(Gatherer, "full", False)
    client = Client(door := Door())
    client.send(b"".join(msgpack.packb(["t", [[1, {"log": "a"}]] * 6, {}]) for _ in range(9)))
    taken = []
    for _ in range(60):
        await asyncio.sleep(0)
        taken.append(sum(map(len, door.batches)))
    assert taken[0] < 54
    assert taken[-1] == 54


async def test_a_packet_of_bombs_lets_others_have_their_turn(monkeypatch):
    """Few entries, or none, may take long: a turn is measured in time."""
    monkeypatch.setattr(forward_connection, "TURN_S", 0.001)
    client = Client(Door())
    bomb = zstandard.compress(bytes(100 << 20))
    client.send(b"".join(msgpack.packb(["t", blob, {"chunk": "c"}]) for blob in (bomb, gzip.compress(b"") * 10_000)))
    turns = 0
    while not client.writes:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    client.lose()
    await client.settle()  # the batch that was under way comes to its end


async def test_a_connection_that_is_gone_holds_nothing():
    """It is in a cycle with its transport, so its memory would wait for the garbage collector."""
    client = Client(Door())
    blob = zstandard.compress(os.urandom(200_000))
    client.send(msgpack.packb(["t", blob])[:-1000])
    assert client.connection._receiver.held_bytes > 100_000
    client.lose()
    assert client.connection._receiver.held_bytes == 0
    assert client.door.budget.used_bytes == 0
    with pytest.raises(ForwardProtocolError, match="closed"):
        client.connection._receiver.next_event()


async def test_acknowledgements_that_are_not_read_count_against_the_budget():
    """A thousand clients that only ever send would otherwise make us hold what they leave."""
    client = Client(door := Door(budget=1000))
    client.transport.unread_bytes = 1001
    client.connection.pause_writing()
    assert door.budget.spent
    client.transport.unread_bytes = 0
    client.connection.resume_writing()
    assert not door.budget.spent
    client.lose()


async def test_a_fault_in_the_decoder_is_seen_and_not_acknowledged():
    """It reaches the transport, which logs it and closes."""
    client = Client(Door())
    client.connection._gatherer.add = None
    with pytest.raises(TypeError):
        client.send(_message("a"))
    await client.settle()
    assert (client.writes, client.transport.closing) == ([], True)
    client.send(_message("a"))  # what TLS still hands on goes nowhere
    assert client.connection._receiver.held_bytes < 1 << 20
    client.lose()
    assert client.door.causes == ["fault"]
