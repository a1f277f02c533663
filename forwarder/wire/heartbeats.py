"""Fluentd's UDP heartbeat (`heartbeat_type udp`): one zero byte to the Forward door's port, sent back as it came."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from forwarder.errors import ConfigError
from forwarder.settings import Address


async def answer(addresses: Sequence[Address], where: str) -> list[asyncio.DatagramTransport]:
    """Open the UDP port beside each address. Raises ConfigError."""
    opened: list[asyncio.DatagramTransport] = []
    for address in addresses:
        if address.path:
            raise ConfigError("a Unix socket has no UDP port", where=f"{where}.udp_heartbeat")
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(Heartbeats, local_addr=(address.host, address.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on UDP {address}: {error.strerror}", where=f"{where}.udp_heartbeat"
            ) from None
        opened.append(transport)
    return opened


class Heartbeats(asyncio.DatagramProtocol):
    """Sends each one-byte datagram back, as Fluentd's in_forward does; anything else is not answered, so nobody can use
    this port to send more to a third machine than it was sent.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data == b"\0":
            self._transport.sendto(data, addr)
