"""The file source on a log that kube-apiserver rotates and compresses, through a kill: exactly the scenario's events."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.controlplane.plane import NODE, ControlPlane, find_part, missing_parts
from tests.e2e.product.conftest import Product, wait_until
from tests.e2e.scenario import Scenario, difference
from tests.e2e.stage import Stage

pytestmark = pytest.mark.e2e


@pytest.fixture
def compressing(scenario: Scenario, tmp_path: Path) -> Iterator[ControlPlane]:
    if missing := missing_parts():
        pytest.skip(f"needs {', '.join(missing)}: run `make e2e-parts` (needs Go), and install kubectl")
    folder = tmp_path / "plane"
    folder.mkdir()
    plane = ControlPlane(folder, scenario.people, ["--audit-log-compress=true"])
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def test_every_action_gives_exactly_its_events(compressing, scenario, tmp_path):
    """What was rotated while the receiver was dead is read out of its `.gz`; nothing is read twice."""
    product = Product(tmp_path, None)
    source = {"path": str(compressing.audit_log), "checkpoint": "file.json", "start": "beginning"}
    product.configure(sources={"file": source}, detection={"rules": ["rules/friction.yaml", "rules/extended.yaml"]})
    folder = tmp_path / "stage"
    folder.mkdir()
    try:
        product.start()

        def events():
            return product.get("/api/v1/events?limit=1000")

        def compressed():
            return list(compressing.audit_log.parent.glob("audit-*.log.gz"))

        words = {"node": NODE, "image": "example.test/tools:1"}
        kubectl = str(find_part("kubectl"))
        stage = Stage(
            scenario, kubeconfig=compressing.kubeconfig, events=events, folder=folder, kubectl=kubectl, words=words
        )
        stage.prepare()
        half = len(scenario.actions) // 2
        stage.play(scenario.actions[:half])
        product.receiver.kill()
        before = len(compressed())
        # writes of a machine, until the log has been rotated and compressed twice: what people do waits for the receiver
        while len(compressed()) < before + 2:
            for _ in range(30):
                compressing.kubectl("get", "pods,secrets,configmaps,deployments", "-A", "-o", "name")
        product.receiver.start()
        product.wait_receiver()
        stage.play(scenario.actions[half:])
        expected = stage.expected()
        product.settled(len(expected))
        differs = difference(expected, events())
        assert not differs, f"\n{differs}"
        assert compressed()
        wait_until(lambda: "unread" not in product.receiver.output(), "nothing unread")
        assert "is not seen" not in product.receiver.output()
        assert product.ledger().balanced() == []
    finally:
        product.stop()
