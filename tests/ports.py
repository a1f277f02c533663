"""Ports for the programs that a test starts: nobody else has them, and nobody else comes to have them meanwhile.

A port that the kernel would give (bind to 0) may become the local port of any outgoing connection of this machine
before its program has bound it. So they come from outside the kernel's range, and never twice in one run.
"""

import random
import socket
from pathlib import Path

_LOWEST, _HIGHEST = 15_000, 60_999  # below and above stand services with fixed ports
_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    candidates = _outside_the_kernels_range()
    while True:
        port = random.choice(candidates)
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _given.add(port)
        return port


def _outside_the_kernels_range() -> list[int]:
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        first, last = 32_768, 60_999
    outside = [port for port in range(_LOWEST, _HIGHEST) if not first <= port <= last]
    return outside or list(range(_LOWEST, _HIGHEST))
