"""The telemetry port over a real socket."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from forwarder.errors import ConfigError
from forwarder.settings import Address
from forwarder.telemetry import Telemetry
from forwarder.wire.http import MAX_CONNECTIONS, TelemetryServer

pytestmark = pytest.mark.e2e


@pytest.fixture
def address() -> Iterator[Address]:
    """A server with the token `t0ken`."""
    telemetry = Telemetry()
    telemetry["forwarder_rules_loaded"].set(20)
    server = TelemetryServer(
        Address(host="127.0.0.1", port=0), metrics=telemetry.exposition, ready=lambda: True, token="t0ken"
    )
    yield server.start()
    server.stop()


def get(address: Address, path: str, token: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://{address}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_it_answers(address: Address) -> None:
    """Probes answer anybody, /metrics its bearer."""
    assert get(address, "/healthz") == (200, b"ok\n")
    assert get(address, "/readyz") == (200, b"ready\n")
    assert get(address, "/metrics")[0] == 401
    status, body = get(address, "/metrics", "t0ken")
    assert status == 200
    assert b"forwarder_rules_loaded 20.0" in body


def test_a_port_in_use_is_named(address: Address) -> None:
    """A second listener on the same port says which address and why."""
    second = TelemetryServer(address, metrics=lambda: b"", ready=lambda: True)
    with pytest.raises(ConfigError, match=f"cannot listen on {address}: Address already in use"):
        second.start()


def test_connections_that_say_nothing_hold_only_their_slots(address: Address) -> None:
    """Beyond the cap a connection is closed at once; when idle ones go, the next is answered."""
    idle = [socket.create_connection((address.host, address.port), timeout=5) for _ in range(MAX_CONNECTIONS)]
    try:
        with socket.create_connection((address.host, address.port), timeout=5) as extra:
            assert extra.recv(1) == b""
    finally:
        for connection in idle:
            connection.close()
    for _ in range(50):
        try:
            assert get(address, "/healthz") == (200, b"ok\n")
            break
        except OSError:
            continue
    else:
        pytest.fail("not answered after the idle connections closed")
