"""Ports for the programs that a test starts: nobody else has them, and nobody else comes to have them meanwhile.

A port that the kernel would give (bind to 0) may become the local port of any outgoing connection of this machine
before its program has bound it. So they come from outside the kernel's range, and never twice in one run; and a lock on a
file per port keeps other runs on this machine away from it until this one ends.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_LOWEST, _HIGHEST = 15_000, 60_999  # below and above stand services with fixed ports
_given: dict[int, int] = {}  # port -> descriptor of its lock, held until this process ends


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    candidates = _outside_the_kernels_range()
    while True:
        port = random.choice(candidates)
        if port in _given or (lock := _locked(port)) is None:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            os.close(lock)
            continue
        _given[port] = lock
        return port


def _locked(port: int) -> int | None:
    """The descriptor of the lock on a port; None while another run has it."""
    folder = Path(tempfile.gettempdir()) / f"forwarder-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _outside_the_kernels_range() -> list[int]:
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        first, last = 32_768, 60_999
    outside = [port for port in range(_LOWEST, _HIGHEST) if not first <= port <= last]
    return outside or list(range(_LOWEST, _HIGHEST))
