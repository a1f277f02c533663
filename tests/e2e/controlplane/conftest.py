"""A control plane for each file of tests, and for each test the product that follows its audit log."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.controlplane.plane import ControlPlane, find_part, missing_parts
from tests.e2e.product.conftest import Product, Program
from tests.e2e.scenario import Scenario, load

KEY = "0123456789abcdef0123456789abcdef"
RECEIVER_NAME = "friction-forwarder"


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    return load(routable=False)


@pytest.fixture(scope="module")
def plane(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with a ready node and everybody of the scenario; skips where a part is missing."""
    if missing := missing_parts():
        pytest.skip(f"needs {', '.join(missing)}: run `make e2e-parts` (needs Go), and install kubectl")
    whole = ControlPlane(tmp_path_factory.mktemp("plane"), scenario.people)
    try:
        whole.start()
        yield whole
    finally:
        began = time.monotonic()
        whole.stop()
    assert time.monotonic() - began < 15, "the control plane took too long to stop"


class ClusterProduct(Product):
    """Backend, receiver and the node's Fluent Bit with fluent-bit/node.yaml (TLS, shared key) over the plane's audit log."""

    def __init__(self, folder: Path, agent: str, plane: ControlPlane) -> None:
        super().__init__(folder, agent)
        self.plane = plane
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.crt")
        certificate = self.authority.issue_cert(RECEIVER_NAME)
        certificate.cert_chain_pems[0].write_to_path(folder / "tls.crt")
        certificate.private_key_pem.write_to_path(folder / "tls.key")
        self.door = {
            "shared_key": KEY,
            "tls": {"cert_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")},
        }
        self.configure(self.door)

    def configure(self, forward: dict[str, Any] | None = None, **sections: Any) -> None:
        """With all shipped rules."""
        super().configure(forward, detection={"rules": ["rules/friction.yaml", "rules/extended.yaml"]}, **sections)

    def node_agent(self, *, flush_s: float = 0.2, port: int = 0, from_head: bool = False) -> Program:
        """port: of the receiver or what stands before it. from_head: what the log holds already is read, too."""
        return self.fluent_bit(
            "fluent-bit/node.yaml",
            AUDIT_LOG_PATH=str(self.plane.audit_log.with_name("audit*.log")),
            AUDIT_LOG_FROM_HEAD="on" if from_head else "off",
            NODE_NAME="node1",
            FLUENT_BIT_FLUSH=str(flush_s),
            FORWARDER_HOST="127.0.0.1",
            FORWARDER_PORT=str(port or self.ports["forward"]),
            FORWARDER_TLS_NAME=RECEIVER_NAME,
            FORWARDER_CA_FILE=str(self.folder / "ca.crt"),
            FORWARD_SHARED_KEY=KEY,
        )


@pytest.fixture
def cluster(plane: ControlPlane, tmp_path: Path) -> Iterator[ClusterProduct]:
    """The product, not started; whatever of it still runs at the end is stopped, and its ledger must balance."""
    agent = os.environ.get("FLUENT_BIT") or shutil.which("fluent-bit")
    if not agent:
        pytest.skip("needs Fluent Bit 5.1: install it (docs.fluentbit.io) or name it in the variable FLUENT_BIT")
    whole = ClusterProduct(tmp_path, agent, plane)
    try:
        yield whole
    finally:
        whole.stop()
    if whole.outbox.exists():
        assert whole.ledger().balanced() == []


@pytest.fixture
def kubectl() -> str:
    return str(find_part("kubectl"))
