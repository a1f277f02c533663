"""The UDP heartbeat: what is answered, and what is not."""

import pytest

from forwarder.errors import ConfigError
from forwarder.settings import Address
from forwarder.wire.heartbeats import Heartbeats, answer


class Sent(list):
    def sendto(self, data: bytes, address: object) -> None:
        self.append((data, address))


def test_only_the_one_byte_is_sent_back() -> None:
    """Nobody can use the port to send more to a third machine than it was sent."""
    heartbeats, sent = Heartbeats(), Sent()
    heartbeats.connection_made(sent)  # type: ignore[arg-type]
    for data in (b"\0", b"\0\0", b"", b"x", b"\0" * 1000):
        heartbeats.datagram_received(data, "there")
    assert sent == [(b"\0", "there")]


async def test_a_unix_socket_has_no_port_for_it() -> None:
    """Said with the setting's name."""
    with pytest.raises(ConfigError, match=r"sources\.forward\.udp_heartbeat"):
        await answer([Address(path="/run/x.sock")], "sources.forward")
