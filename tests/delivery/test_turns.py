"""A few at a time, the newest first, and nobody keeps a turn who is not there."""

import asyncio

from forwarder.delivery.turns import Turns
from forwarder.tasks import cancel, spawn


class Crowd:
    """Tasks that take a turn, note it, and hold it until they are told."""

    def __init__(self, at_once: int) -> None:
        self.turns, self.began, self.go = Turns(at_once), [], asyncio.Event()

    async def arrive(self, number: int) -> "asyncio.Task[None]":
        task = spawn(self._hold(number), name=f"number {number}")
        await asyncio.sleep(0)
        return task

    async def _hold(self, number: int) -> None:
        async with self.turns.one():
            self.began.append(number)
            await self.go.wait()


async def test_the_newest_of_those_that_wait_is_next() -> None:
    """Its sender has the most patience left."""
    crowd = Crowd(2)
    tasks = [await crowd.arrive(number) for number in range(5)]
    assert crowd.began == [0, 1]
    crowd.go.set()
    await asyncio.gather(*tasks)
    assert crowd.began == [0, 1, 4, 3, 2]


async def test_who_gives_up_waiting_is_passed_over() -> None:
    """And takes no turn with it."""
    crowd = Crowd(1)
    tasks = [await crowd.arrive(number) for number in range(4)]
    await cancel(tasks[3], tasks[1])
    crowd.go.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert crowd.began == [0, 2]
    await asyncio.wait_for(await crowd.arrive(9), 1)
    assert crowd.began == [0, 2, 9]


async def test_a_turn_that_comes_in_the_moment_of_giving_up_is_given_back() -> None:
    """Otherwise there would be one turn less, for ever."""
    crowd = Crowd(1)
    first, second = [await crowd.arrive(number) for number in range(2)]
    crowd.go.set()
    await first  # has given its turn to the second, which does not know it yet
    await cancel(second)
    await asyncio.wait_for(await crowd.arrive(9), 1)
    assert crowd.began[-1] == 9


async def test_a_turn_ends_with_an_error_too() -> None:
    """What fails makes room."""
    turns = Turns(1)
    for _ in range(2):
        try:
            async with turns.one():
                raise ValueError
        except ValueError:
            pass
