"""Falcosidekick itself where it is installed, and behind a flaky proxy; each event reaches its output."""

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.product.conftest import LEASH, wait_until
from tests.e2e.sinks.conftest import Receiver, Recorder, exec_line, serving
from tests.ports import free_port

pytestmark = pytest.mark.e2e


class Falcosidekick:
    """The real program, passing all it takes on to `output` by its webhook."""

    def __init__(self, port: int, output: Recorder) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.output = output


@pytest.fixture
def falcosidekick(tmp_path: Path) -> Iterator[Falcosidekick]:
    program = os.environ.get("FALCOSIDEKICK") or shutil.which("falcosidekick")
    if program is None:
        pytest.skip("no falcosidekick on PATH or in FALCOSIDEKICK: go install it from its repository")
    port = free_port()
    with serving(Recorder()) as output:
        environment = {"PATH": os.environ["PATH"], "LISTENPORT": str(port), "LISTENADDRESS": "127.0.0.1",
                       "WEBHOOK_ADDRESS": output.url}  # fmt: skip
        with open(tmp_path / "falcosidekick.log", "wb") as log:
            process = subprocess.Popen([*LEASH, program], env=environment, stdout=log, stderr=log, cwd=tmp_path)
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/ping"), "falcosidekick to answer")
            yield Falcosidekick(port, output)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def passed_on(sidekick: Falcosidekick) -> list[dict[str, Any]]:
    return [body for body in sidekick.output.taken if isinstance(body, dict)]


def test_every_event_passes_through_falcosidekick_to_its_output(
    receiver: Receiver, falcosidekick: Falcosidekick
) -> None:
    """Taken as it is: priority, source, fields and all; and a kill in the middle loses none."""
    receiver.configure({"falcosidekick": {"url": falcosidekick.url}})
    receiver.write([exec_line(number, sourceIPs=["10.0.0.7", "fd00::1"]) for number in range(40)])
    receiver.start()
    wait_until(lambda: len(passed_on(falcosidekick)) >= 5, "the first events")
    receiver.kill()
    receiver.write([exec_line(number) for number in range(40, 60)])
    receiver.start()
    ledger = receiver.settled(60)
    assert (ledger.sinks[0].delivered, ledger.sinks[0].dead) == (60, 0)
    wait_until(
        lambda: len({one["output_fields"]["friction.id"] for one in passed_on(falcosidekick)}) == 60, "all of them"
    )
    one = passed_on(falcosidekick)[0]
    assert (one["priority"], one["source"], one["rule"]) == ("Critical", "k8s_audit", "kubectl-exec")
    assert one["output_fields"]["k8s.ns.name"] == "shop"
    assert one["output_fields"]["ka.cluster.name"] == "e2e"
    with urllib.request.urlopen(falcosidekick.url + "metrics", timeout=5) as reply:
        metrics = reply.read().decode()
    assert 'k8s_ns_name="shop"' in metrics
    rejected = [
        float(line.split()[-1]) for line in metrics.splitlines() if 'status="rejected"' in line and line[0] != "#"
    ]
    assert sum(rejected) <= 1  # of the request that the kill cut in two; whole ones are all good


def test_long_commands_stay_readable(receiver: Receiver, falcosidekick: Falcosidekick) -> None:
    """What Falcosidekick would have cut to 507 characters was cut here, where it says so."""
    receiver.configure({"falcosidekick": {"url": falcosidekick.url}})
    uri = f"/api/v1/namespaces/shop/pods/cart/exec?command=sh&command=-c&command=echo+{'word+' * 700}"
    receiver.write([exec_line(1, requestURI=uri, userAgent="a" * 600)])
    receiver.start()
    receiver.settled(1)
    wait_until(lambda: passed_on(falcosidekick), "the event")
    command = passed_on(falcosidekick)[0]["output_fields"]["friction.command"]
    assert command.endswith("…")
    assert "[...]" not in json.dumps(passed_on(falcosidekick)[0])


def test_a_flaky_proxy_loses_nothing(receiver: Receiver, flaky_proxy) -> None:
    """Half of the requests fail at nginx; the ledger balances, and what came through twice has the same id."""
    with serving(Recorder()) as peer:
        receiver.configure({"falcosidekick": {"url": f"http://127.0.0.1:{flaky_proxy(peer.port)}/", "timeout_s": 2}})
        receiver.start()
        receiver.write([exec_line(number) for number in range(40)])
        ledger = receiver.settled(40)
        receiver.stop()
    counts = Counter(body["output_fields"]["friction.id"] for body in peer.taken)
    assert len(counts) == 40
    assert (ledger.sinks[0].delivered, ledger.sinks[0].dead) == (40, 0)
    assert max(counts.values()) == 1  # nginx fails before it passes anything on
