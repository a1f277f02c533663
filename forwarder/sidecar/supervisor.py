"""Keeps one Fluent Bit running: starts it again when it ends, reloads it, ends it in time, and never leaves it behind.

It runs on a leash (leash.py): the kernel kills it if this process dies. A kill loses nothing, because positions and lines
are on disk; so whatever it does not do in time is answered by a kill and a new start. That happens in practice: a hot
reload waits for every chunk that is being retried, and while the receiver is away that is for ever.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from forwarder.errors import ConfigError
from forwarder.sidecar.metrics import Agent
from forwarder.tasks import cancel, spawn
from forwarder.telemetry import Telemetry

log = logging.getLogger(__name__)

RESTART_S = 0.5  # before a new start of one that had worked: a kill or a crash, not a bad configuration
RELOAD_S = 6.0  # a reload takes 1 to 2 s; its own grace is 5 s
STOP_S = 8.0  # its grace and a little: below the 30 s that Kubernetes gives, with our own end still to come
HURRY_S = 1.0  # for one that is replaced while it cannot deliver anyway
LOOK_S = 0.5
HUNG_S = 30.0  # it answers within milliseconds, but not while it reloads
REAP_S = 5.0


class Supervisor:
    """One process. command: asked for before each start, so that it may write fresh files first.

    healthy: whether the process runs and answers. pid: of the running one, else None.
    """

    def __init__(
        self, command: Callable[[], Sequence[str]], agent: Agent, telemetry: Telemetry, *, longest_pause_s: float
    ) -> None:
        self._command = command
        self._agent = agent
        self._telemetry = telemetry
        self._longest_pause_s = longest_pause_s
        self._process: asyncio.subprocess.Process | None = None
        self._replacing = False
        self._answered = False
        self._wake = asyncio.Event()
        self._reloading = asyncio.Lock()
        self.healthy = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set and the process is gone. Raises ConfigError if it cannot even be started."""
        reason, failures = "begin", 0
        reaping = spawn(_reap_strangers(lambda: self.pid), name="reaper") if os.getpid() == 1 else None
        try:
            while not stopping.is_set():
                await self._start(reason)
                await self._until_it_ends(stopping)
                if stopping.is_set():
                    break
                if self._replacing:
                    self._replacing, reason = False, "replaced"
                    continue
                failures = 0 if self._answered else failures + 1
                pause_s = min(self._longest_pause_s, RESTART_S * 2.0 ** min(failures, 16))
                reason = "crashed" if self._answered else "failed"
                log.warning("Fluent Bit %s; starting it again in %.1f s", self._how_it_ended(), pause_s)
                await self._pause(pause_s, stopping)
        finally:
            if reaping:
                await cancel(reaping)
            await self._end(STOP_S)
            self._set_healthy(False)

    async def reload(self, *, gently: bool) -> bool:
        """Have it read its configuration again; True if it did so without an end.

        gently: by hot reload, seen to have happened. Otherwise, or if that fails, by a new start: quicker while nothing
        can be delivered.
        """
        async with self._reloading:
            process = self._process
            if process is None or process.returncode is not None:
                self._wake.set()  # the next start reads it; no reason to wait for that
                return False
            if gently and await self._hot_reload(process):
                self._telemetry["forwarder_agent_reloads"].labels("reloaded").inc()
                log.info("Fluent Bit has read its configuration again")
                return True
            self._telemetry["forwarder_agent_reloads"].labels("replaced").inc()
            if gently:
                log.warning("Fluent Bit did not reload in time; it is started anew (its lines are on disk)")
            self._replacing = True
            await self._end(HURRY_S)
            return False

    def pass_on(self, number: signal.Signals) -> None:
        """Send a signal to it, where it runs."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)

    # --- one process -------------------------------------------------------------------------------------------------

    async def _start(self, reason: str) -> None:
        self._answered = False
        self._wake.clear()
        command = self._command()
        leash = [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py")), str(os.getpid())]
        try:
            # A group of its own: Ctrl-C reaches us, and we end it in order.
            self._process = await asyncio.create_subprocess_exec(
                *leash, *command, stdin=asyncio.subprocess.DEVNULL, process_group=0
            )
        except OSError as error:
            raise ConfigError(f"cannot start {command[0]}: {error.strerror}", where="fluent-bit") from None
        self._telemetry["forwarder_agent_starts"].labels(reason).inc()

    async def _until_it_ends(self, stopping: asyncio.Event) -> None:
        assert self._process is not None
        ending = spawn(self._process.wait(), name="Fluent Bit")
        stop = spawn(stopping.wait(), name="stop")
        looking = spawn(self._look(), name="look at Fluent Bit")
        try:
            await asyncio.wait({ending, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if stopping.is_set():
                await self._end(STOP_S)
            await cancel(looking, stop, ending)
            self._set_healthy(False)

    async def _look(self) -> None:
        """Whether it answers; one that did and has stopped answering for long is replaced."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            if await asyncio.to_thread(self._agent.reloads) is not None:
                last = loop.time()
                self._answered = True
            self._set_healthy(self._answered and loop.time() - last < HUNG_S / 3)
            if self._answered and loop.time() - last > HUNG_S:
                log.error("Fluent Bit has not answered for %d s; it is started anew", HUNG_S)
                await self._end(HURRY_S)
                return
            await asyncio.sleep(LOOK_S)

    async def _hot_reload(self, process: asyncio.subprocess.Process) -> bool:
        before = await asyncio.to_thread(self._agent.reloads)
        if before is None:
            return False
        process.send_signal(signal.SIGHUP)
        end = asyncio.get_running_loop().time() + RELOAD_S
        while asyncio.get_running_loop().time() < end and process.returncode is None:
            await asyncio.sleep(LOOK_S / 5)
            count = await asyncio.to_thread(self._agent.reloads)
            if count is not None and count > before:
                return True
        return False

    async def _end(self, patience_s: float) -> None:
        """SIGTERM, then SIGKILL; returns when it is gone and reaped."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), patience_s)
        except TimeoutError:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _pause(self, pause_s: float, stopping: asyncio.Event) -> None:
        tasks = {spawn(stopping.wait(), name="stop"), spawn(self._wake.wait(), name="new configuration")}
        await asyncio.wait(tasks, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
        await cancel(*tasks)

    def _how_it_ended(self) -> str:
        code = self._process.returncode if self._process else None
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        hint = "" if self._answered else "; what is wrong it says above, usually a line in a further output"
        return f"ended with code {code}{hint}"

    def _set_healthy(self, healthy: bool) -> None:
        self.healthy = healthy
        self._telemetry["forwarder_agent_up"].set(int(healthy))


async def _reap_strangers(known: Callable[[], int | None]) -> None:
    """As process 1 we inherit orphans, of plug-ins for instance. One that is still dead at the second look is reaped: our
    own children are waited for by who started them.
    """
    before: int | None = None
    while True:
        await asyncio.sleep(REAP_S)
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # noqa: ASYNC222 - never waits
        except ChildProcessError:
            continue
        number = dead.si_pid if dead else None
        if number is not None and number == before and number != known():
            os.waitpid(number, os.WNOHANG)  # noqa: ASYNC222 - never waits
        before = number
