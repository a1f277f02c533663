"""Whose turn it is where batches must wait for each other: a few at a time, and of those that wait the newest first.

Each sender waits for its acknowledgement for a few seconds, and sends again after that. An agent that catches up after an
outage sends fifty chunks at once; served in order, each would be done just when its time is over, and all the work would be
for nothing, again and again. Served from the other end, what is begun is done in time, and what is not has cost nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """`async with turns.one():` waits for a turn and gives it back. Of one event loop."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: list[asyncio.Future[None]] = []

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Whoever gives up waiting is forgotten."""
        await self._take()
        try:
            yield
        finally:
            self._give_back()

    async def _take(self) -> None:
        if self._free:
            self._free -= 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                self._waiting.remove(mine)
            else:  # it came in the very moment
                self._give_back()
            raise

    def _give_back(self) -> None:
        while self._waiting:
            newest = self._waiting.pop()
            if not newest.done():
                newest.set_result(None)
                return
        self._free += 1
