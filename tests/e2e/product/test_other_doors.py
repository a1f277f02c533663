"""The webhook and the file source as a product: receiver killed, log rotated and compressed, sender repeating: every event once."""

import contextlib
import gzip
import http.client
import threading
import time

import pytest

from tests.ports import free_port

pytestmark = pytest.mark.e2e

BATCH = 200


class Sender:
    """Posts EventLists as kube-apiserver does: each again until it is answered with 200, whatever happens meanwhile."""

    def __init__(self, port, batches):
        self.port, self.batches, self.tries = port, batches, 0
        self._threads = [threading.Thread(target=self._work, name="sender") for _ in range(3)]
        self._lock = threading.Lock()

    def start(self):
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def _work(self):
        while True:
            with self._lock:
                if not self.batches:
                    return
                body = self.batches.pop(0)
            while not self._posted(body):
                time.sleep(0.1)
            time.sleep(0.01)

    def _posted(self, body):
        self.tries += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        with contextlib.closing(connection):
            try:
                connection.request(
                    "POST", "/audit", gzip.compress(body), {"Content-Encoding": "gzip", "Authorization": "Bearer t"}
                )
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


def settled_exactly(product, sample, rows_of):
    expected = rows_of(sample)
    product.settled(len(expected))
    assert sorted(product.stored()) == expected
    assert product.ledger().balanced() == []


def test_the_webhook_through_kills_and_an_outage(product, sample, rows_of):
    """The receiver is killed twice and the backend is away; batches come again, and what is in them counts once."""
    port = free_port()
    product.configure(sources={"webhook": {"listen": f"127.0.0.1:{port}", "token": "t"}})
    product.start()
    lines = list(sample.lines(30_000))
    batches = [
        b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[' + b",".join(lines[at : at + BATCH]) + b"]}"
        for at in range(0, len(lines), BATCH)
    ]
    sender = Sender(port, batches)
    sender.start()
    for step in range(2):
        time.sleep(1.0)
        product.receiver.kill()
        if step:
            product.backend.stop()
        product.receiver.start()
        product.wait_receiver()
    time.sleep(1.0)
    product.backend.start()
    sender.join()
    assert sender.tries > len(lines) // BATCH
    settled_exactly(product, sample, rows_of)


def test_files_through_rotation_compression_and_kills(product, sample, rows_of):
    """Two logs, one of them rotated into `.gz` while the receiver lives and while it does not; history is read once."""
    other = product.folder / "logs" / "other.log"
    settings = {
        "path": [str(product.audit_log), str(other)],
        "checkpoint": "file.json",
        "start": "beginning",
        "history": True,
    }
    product.configure(sources={"file": settings})
    lines = iter(list(sample.lines(40_000)))

    def some(count=2000):
        return [next(lines) for _ in range(count)]

    def compress():
        for old in product.audit_log.parent.glob("audit-*.log"):
            target = old.with_name(old.name + ".gz")
            target.write_bytes(gzip.compress(old.read_bytes(), 1))
            old.unlink()

    product.append(some())
    product.rotate()
    compress()
    product.start()
    for step in range(9):
        product.append(some())
        with open(other, "ab") as log:
            log.write(b"".join(line + b"\n" for line in some()))
        if step in (2, 5):
            product.receiver.kill()
        if step % 2:
            product.rotate()
            compress()
        if step in (2, 5):
            product.receiver.start()
            product.wait_receiver()
        time.sleep(0.4)
    with open(other, "ab") as log:
        log.write(b"".join(line + b"\n" for line in some()))
    settled_exactly(product, sample, rows_of)
    before = product.metrics()
    product.receiver.stop()
    product.receiver.start()
    product.wait_receiver()
    time.sleep(1.0)
    assert 'forwarder_lines_received_total{source="file"}' in before
    received = [line for line in product.metrics().splitlines() if line.startswith("forwarder_lines_received_total")]
    assert all(line.endswith(" 0.0") for line in received)
