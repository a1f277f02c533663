"""A process that is killed at any instant loses nothing that it had acknowledged, and counts nothing twice."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from forwarder.errors import ConfigError
from forwarder.outbox import Outbox, dead_letters, read_ledger
from forwarder.telemetry import Telemetry

pytestmark = pytest.mark.e2e

ROUNDS = 6
WAIT_S = 30.0

# Commits batches as fast as it can, and says which are durable; two sinks take, refuse and put off at random, and note
# what they were given before they answer.
VICTIM = """
import os, random, sys, time, uuid
from forwarder.contracts import Done, Later, Refused
from forwarder.delivery import Delivery
from forwarder.events.friction import FrictionEvent
from forwarder.outbox import Outbox, SinkInfo
from forwarder.telemetry import Telemetry

path, folder, start = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Sink:
    takes_updates = True
    required = False
    def __init__(self, name):
        self.name = name
        self.notes = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def deliver(self, events):
        answers = random.choices([Done(), Later(0.01), Refused("no")], (80, 18, 2), k=len(events))
        lines = [e.description + "\\n" for e, a in zip(events, answers) if a == Done()]
        os.write(self.notes, "".join(lines).encode())
        return answers
    def close(self):
        pass

def event(number):
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return FrictionEvent(entity_ref="component:shop/cart", type="kubectl-exec", severity="high", actor="jane",
        workflow="debug", description=str(number), timestamp=now, points=10, id=str(uuid.UUID(int=number)), revision=0,
        audit_id="a", verb="create", resource="pods")

outbox = Outbox(path, [SinkInfo("one"), SinkInfo("two")], telemetry=Telemetry())
outbox.open()
for name in ("one", "two"):
    Delivery(outbox, Sink(name), Telemetry()).start()
number = start
while True:
    futures = []
    for _ in range(5):
        futures.append((number, outbox.commit([event(number + i) for i in range(3)])))
        number += 3
    for first, future in futures:
        future.result()
        os.write(1, b"%d\\n" % first)  # the acknowledgement
"""


@pytest.fixture
def victim(tmp_path: Path):
    """Start the victim; whatever still runs in the end is ended."""
    started: list[subprocess.Popen[bytes]] = []

    def start(first: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(tmp_path / "outbox.db"), str(tmp_path), str(first)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=WAIT_S)


def waiting(path: Path, sink: str) -> set[int]:
    """The rows that the sink has yet to take."""
    query = (
        "SELECT json_extract(CAST(payload AS TEXT), '$.description') FROM events JOIN sinks ON name = ? AND seq > cursor"
        " WHERE NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.sink = key AND o.seq = events.seq AND due_at IS NULL)"
    )
    with closing(sqlite3.connect(path)) as connection:
        return {int(row[0]) for row in connection.execute(query, (sink,))}


def dead(path: Path, sink: str) -> set[int]:
    assert read_ledger(path).dead_letters_evicted == 0
    letters = dead_letters(path, limit=1_000_000, name=sink)
    return {int(json.loads(letter.payload or b"")["description"]) for letter in letters}


def test_kill_9_at_any_instant(tmp_path: Path, victim) -> None:
    """After each kill: all that was acknowledged is in the ledger, which balances; every event went where it belongs."""
    path = tmp_path / "outbox.db"
    chance = random.Random(20250615)
    acknowledged: list[int] = []
    for round_ in range(ROUNDS):
        process = victim(round_ * 1_000_000)
        assert process.stdout is not None
        first = process.stdout.readline()  # it is at work
        time.sleep(chance.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        rest, errors = process.communicate(timeout=WAIT_S)
        assert first, errors.decode()
        lines = (first + rest).split(b"\n")[:-1]
        acknowledged += [int(line) + offset for line in lines for offset in range(3)]
        ledger = read_ledger(path)
        assert ledger.balanced() == []
        assert ledger.new >= len(acknowledged)
        assert ledger.detected == ledger.new
    for sink in read_ledger(path).sinks:
        given = {int(line) for line in (tmp_path / sink.name).read_text().split()}
        assert set(acknowledged) <= given | waiting(path, sink.name) | dead(path, sink.name)
        assert len(given) >= sink.delivered > 0  # it may have noted more than it could still report; never less
    assert ROUNDS * 3 < len(acknowledged) == len(set(acknowledged))


def test_two_services_never_share_an_outbox(tmp_path: Path, victim) -> None:
    """The second is told which process has it; when that dies, however it dies, the file is free."""
    process = victim(0)
    assert process.stdout is not None
    assert process.stdout.readline()
    outbox = Outbox(tmp_path / "outbox.db", [], telemetry=Telemetry())
    with pytest.raises(ConfigError, match=rf"in use by pid {process.pid}\b"):
        outbox.open()
    process.kill()
    process.wait(WAIT_S)
    outbox.open()
    outbox.close()
