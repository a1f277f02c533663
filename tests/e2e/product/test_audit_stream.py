"""The audit tailer: every audit event of a real Fluent Bit as a line on standard output, whatever is killed meanwhile."""

import json
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def lines_of(path: Path) -> list[bytes]:
    """The whole lines so far; a kill may leave half of one, which the next line then continues."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def identity(line: bytes) -> tuple[str, str, str]:
    event = json.loads(line)
    return event["auditID"], event["stage"], event["requestReceivedTimestamp"]


def readable(lines: list[bytes]) -> set[tuple[str, str, str]]:
    found = set()
    for line in lines:
        try:
            found.add(identity(line))
        except ValueError:
            continue
    return found


def test_every_event_is_printed_through_a_kill(product, sample, until):
    """`when_down: block` joins the acknowledgement; friction is found beside it, counted once; our logs stay on stderr."""
    out = product.folder / "stdout"
    product.receiver.out = out
    product.configure(
        sinks={
            "backend": {"url": f"http://127.0.0.1:{product.ports['backend']}"},
            "tail": {"type": "stdout", "stream": "audit", "when_down": "block"},
        }
    )
    product.start()
    product.fluent_bit().start()
    written = list(sample.lines(6000))
    for step in range(6):
        product.append(written[step * 1000 : (step + 1) * 1000])
        time.sleep(0.3)
        if step in (2, 4):
            product.receiver.kill()
            time.sleep(0.3)
            product.receiver.start()
    expected = {identity(line) for line in written}
    until(lambda: readable(lines_of(out)) >= expected, "every event on standard output")
    product.wait_receiver()
    product.settled(len({action.audit_id for action in sample.actions}))
    broken = [line for line in lines_of(out) if not line.startswith(b'{"kind":"Event"')]
    assert len(broken) <= 2  # at most one half line a kill
    assert readable(lines_of(out)) == expected
    product.receiver.stop()
    assert "receiving" in product.receiver.output()


def test_a_reader_that_is_gone_keeps_the_log_on_the_node(product, sample, until):
    """Nothing is acknowledged that standard output did not take; when it can be written again, everything comes."""
    out = product.folder / "stdout"
    out.symlink_to("/dev/full")
    product.receiver.out = out
    product.configure(sinks={"tail": {"type": "stdout", "stream": "audit", "when_down": "block"}})
    product.receiver.start()
    product.wait_receiver()
    product.fluent_bit().start()
    written = list(sample.lines(300))
    product.append(written)
    until(lambda: "No space left" in product.receiver.output(), "the receiver to say that it cannot write")
    product.receiver.stop()
    out.unlink()
    product.receiver.start()
    expected = {identity(line) for line in written}
    until(lambda: readable(lines_of(out)) >= expected, "every event on standard output")
    assert readable(lines_of(out)) == expected
