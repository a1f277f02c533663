"""The receiver's relay to the backend at the rate of a bad day, and after an outage: nothing is lost, nothing counts twice.

Both are the shipped programs; only the lines come from here, over the Forward protocol and acknowledged.
"""

import json
import shutil
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from forwarder.backend.store import Store
from forwarder.wire.forward_client import AckReader, entries, packed_forward
from tests.backend.store.test_rolling import check_buckets

pytestmark = pytest.mark.e2e

EVENTS_PER_S, MINUTE_S = 60, 60
SPURTS_PER_S = 5  # Fluent Bit's shipped flush interval is 0.2 s
BACKLOG_EVENTS = 50_000
FRAME_EVENTS = 500
SERVICES, PEOPLE = 17, 5
ACK_S = 30.0


def shell(number: int) -> list[bytes]:
    """The audit lines of one shell, which is one event. Every third is seen open first, so that it comes in two revisions."""
    service = f"service-{number % SERVICES}"
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    line = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": str(uuid.UUID(int=number)),
        "requestURI": f"/api/v1/namespaces/shop/pods/{service}-0/exec?command=sh&container=app", "verb": "get",
        "user": {"username": f"user-{number % PEOPLE}"}, "sourceIPs": ["10.0.0.9"], "userAgent": "kubectl",
        "objectRef": {"resource": "pods", "namespace": "shop", "name": f"{service}-0", "apiVersion": "v1", "subresource": "exec"},
        "responseStatus": {"code": 101}, "requestReceivedTimestamp": f"{now}.000000Z", "stageTimestamp": f"{now}.000000Z",
    }  # fmt: skip
    stages = ["ResponseStarted", "ResponseComplete"] if number % 3 == 0 else ["ResponseComplete"]
    return [json.dumps(line | {"stage": stage}, separators=(",", ":")).encode() for stage in stages]


def row(number: int):
    """What the backend holds of it in the end."""
    service = f"component:shop/service-{number % SERVICES}"
    return ("kubectl-exec", f"user-{number % PEOPLE}", service, str(uuid.UUID(int=number)), 1)


class Sender:
    """One connection; each frame is acknowledged before the next goes out."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._acks, self._frames = connection, AckReader(), 0

    def send(self, numbers: range) -> None:
        self._frames += 1
        lines = [line for number in numbers for line in shell(number)]
        chunk = b"%024d" % self._frames
        self._connection.sendall(packed_forward(b"audit", entries(lines, time.time()), chunk=chunk))
        while (acknowledged := self._acks.next_ack()) is None:
            data = self._connection.recv(4096)
            assert data, "the receiver closed without an acknowledgement"
            self._acks.receive_data(data)
        assert acknowledged == chunk


@contextmanager
def sender(product) -> Iterator[Sender]:
    with socket.create_connection(("127.0.0.1", product.ports["forward"]), timeout=ACK_S) as connection:
        yield Sender(connection)


def check(product, number: int, how: str) -> None:
    """Each event is one row at its last revision, counts once in scores and sums, and the receiver's ledger balances."""
    product.settled(number)
    assert Counter(product.stored()) == Counter(row(n) for n in range(number)), how
    counts = {found["entity_ref"]: found["count"] for found in product.get("/api/v1/entities?limit=500")}
    assert counts == Counter(row(n)[2] for n in range(number)), how
    shown = product.get("/friction/component%3Ashop%2Fservice-3")["frictionScore"]["bypassCount"]
    assert shown == counts["component:shop/service-3"], how
    ledger, two_revisions = product.ledger(), len(range(0, number, 3))
    assert ledger.balanced() == [], how
    assert (ledger.new, ledger.update, ledger.duplicate, ledger.expired) == (number, two_revisions, 0, 0), how
    (sink,) = ledger.sinks
    assert (sink.delivered, sink.waiting, sink.dead) == (number + two_revisions, 0, 0), how
    product.stop()
    store = Store.open(str(product.folder / "backend.db"))
    try:
        check_buckets(store, time.time_ns() // 1000)
    finally:
        store.close()


def test_60_events_a_second_for_a_minute(product):
    """As they come: at the end of the minute hardly anything waits, and every event is there once."""
    product.start()
    spurt, waited = EVENTS_PER_S // SPURTS_PER_S, []
    with sender(product) as line:
        began = time.monotonic()
        for step in range(MINUTE_S * SPURTS_PER_S):
            time.sleep(max(0.0, began + step / SPURTS_PER_S - time.monotonic()))
            line.send(range(step * spurt, (step + 1) * spurt))
            if step % SPURTS_PER_S == 0:
                waited.append(product.ledger().sinks[0].waiting)
        took_s = time.monotonic() - began
    number = EVENTS_PER_S * MINUTE_S
    how = f"{number} events in {took_s:.1f} s, {number / took_s:.0f}/s; waiting in the outbox at most {max(waited)}"
    print(how)
    assert took_s < MINUTE_S * 1.2, f"the receiver held the sender up: {how}"
    assert max(waited) < 10 * EVENTS_PER_S, f"the relay fell behind: {how}"
    check(product, number, how)


@pytest.fixture(scope="module")
def backlog(tmp_path_factory):
    """A function that makes the outbox of a receiver whose backend was down while 50,000 events came; made once."""
    kept = tmp_path_factory.mktemp("backlog") / "outbox.db"

    def make(product) -> None:
        if kept.exists():
            shutil.copy(kept, product.outbox)
            return
        product.receiver.start()
        product.wait_receiver()
        with sender(product) as line:
            for first in range(0, BACKLOG_EVENTS, FRAME_EVENTS):
                line.send(range(first, first + FRAME_EVENTS))
        assert product.receiver.stop() == 0
        assert product.ledger().sinks[0].waiting == BACKLOG_EVENTS + len(range(0, BACKLOG_EVENTS, 3))
        shutil.copy(product.outbox, kept)

    return make


@pytest.mark.parametrize("killed", [False, True], ids=["at-once", "the-backend-killed-9-in-the-middle"])
def test_a_backlog_of_50_000_events_is_flushed(product, backlog, until, killed):
    """The backend comes up to a receiver that has waited for it; what it had taken when it died is not counted again."""
    backlog(product)
    product.receiver.start()
    product.wait_receiver()
    assert product.backend_rows() == 0
    product.backend.start()
    until(product.backend_rows, "the first row")
    began = time.monotonic()
    if killed:
        until(lambda: product.backend_rows() > BACKLOG_EVENTS / 3, "a third of the backlog")
        product.backend.kill()
        there = product.backend_rows()
        assert BACKLOG_EVENTS / 3 < there < BACKLOG_EVENTS, "the kill came too late to prove anything"
        product.backend.start()
    until(lambda: product.ledger().sinks[0].waiting == 0, "an empty outbox")
    took_s = time.monotonic() - began
    how = f"{BACKLOG_EVENTS} events flushed in {took_s:.1f} s, {BACKLOG_EVENTS / took_s:.0f} events/s"
    print(how)
    check(product, BACKLOG_EVENTS, how)
