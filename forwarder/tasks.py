"""Tasks with names and owners: the only place that calls asyncio.create_task."""

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


def spawn(
    coroutine: Coroutine[Any, Any, Any], *, name: str, failed: Callable[[BaseException], None] | None = None
) -> asyncio.Task[Any]:
    """Start a task. Its failure is logged with its name and given to `failed`; cancelling it is no failure."""
    task = asyncio.create_task(coroutine, name=name)

    def done(finished: asyncio.Task[Any]) -> None:
        if finished.cancelled():
            return
        error = finished.exception()
        if error is None:
            return
        if failed is None:
            log.error("task %s failed: %s", name, error, exc_info=error)
        else:
            failed(error)

    task.add_done_callback(done)
    return task


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended; their errors were already reported by `spawn`."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def settle() -> None:
    """Take what a service has built by now out of the garbage collector's rounds: rules and settings live as long as it does.

    With a thousand rules each full round would take 20 ms, and a busy receiver makes several a second.
    """
    gc.collect()
    gc.freeze()
