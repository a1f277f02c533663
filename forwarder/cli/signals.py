"""How a service of the command line runs and ends: one event loop, SIGTERM and Ctrl-C to drain, a second one to end.

Ending at once loses nothing: what was acknowledged is committed, what was not comes again.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from forwarder.cli.console import FAILED

log = logging.getLogger("forwarder")

RELOAD_DELAY_S = 0.25  # a hundred SIGHUPs in a row are one reload each so long, so that others have their turn between

Service = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def run_service(service: Service, *, reload: Callable[[], object] | None = None) -> None:
    """Run `service(stopping)` until it returns; the first SIGINT or SIGTERM sets `stopping`, the second ends the process.

    reload: called on SIGHUP, in the event loop. Without it SIGHUP is ignored: a closed terminal ends nothing.
    """
    asyncio.run(_run(service, reload))


async def _run(service: Service, reload: Callable[[], object] | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            log.warning("ended at once; what was not acknowledged comes again")
            os._exit(FAILED)  # whatever hangs, hangs in a thread that a normal exit would wait for
        log.info("stopping: draining what was received; once more ends at once")
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    waiting: asyncio.TimerHandle | None = None

    def reload_soon() -> None:
        nonlocal waiting
        if reload is not None and (waiting is None or waiting.when() < loop.time()):
            waiting = loop.call_later(RELOAD_DELAY_S, reload)

    loop.add_signal_handler(signal.SIGHUP, reload_soon)
    await service(stopping)
