"""What runs in one process: a receiver with its telemetry port, and for `forwarder up` the backend beside it.

Order: the backend opens first and closes last, so that the receiver's last events still find it. If one of them ends
by itself, the other is stopped too, and the error of the one that failed is raised.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from forwarder.backend.settings import BackendSettings
from forwarder.contracts import Stopping
from forwarder.pipeline import Pipeline
from forwarder.registry import Loaded
from forwarder.settings import Address, parse_address
from forwarder.tasks import cancel, spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.http import TelemetryServer

if TYPE_CHECKING:
    from forwarder.backend.dashboard.rulebook import RuleBook


class Receiver:
    """A pipeline and the port that tells about it. `run` may be called once."""

    def __init__(self, loaded: Loaded) -> None:
        """Checks everything that can be checked without opening anything. Raises ConfigError."""
        self.loaded = loaded
        self.telemetry = Telemetry()
        self.pipeline = Pipeline(loaded, self.telemetry)
        self.telemetry_address: Address | None = None
        settings = loaded.config.telemetry
        self._http: TelemetryServer | None = None
        if settings.listen:
            self._http = TelemetryServer(
                parse_address(settings.listen, where="telemetry.listen"),
                metrics=self.telemetry.exposition,
                ready=lambda: self.pipeline.ready,
                token=settings.token or "",
                allow_anonymous=settings.allow_anonymous,
            )

    async def run(self, stopping: Stopping, started: Callable[[], None]) -> None:
        """Until `stopping` is set and everything is drained. `started` is called once every source accepts."""
        if self._http:
            self.telemetry_address = self._http.start()
        try:
            await self.pipeline.run(stopping, started)
        finally:
            if self._http:
                await asyncio.to_thread(self._http.stop)


class Up:
    """Backend and receiver together. receiver: None until the backend is open."""

    def __init__(
        self, backend: BackendSettings, configure: Callable[[Address], Loaded], rules: "RuleBook | None" = None
    ) -> None:
        """configure: the receiver's settings, given the address at which the backend is bound. rules: for their pages."""
        # `receive` loads no web framework.
        from forwarder.backend.dashboard.rulebook import no_rules  # noqa: PLC0415
        from forwarder.backend.server import BackendServer  # noqa: PLC0415

        self._configure = configure
        self.backend = BackendServer(backend, rules=rules or no_rules)
        self.receiver: Receiver | None = None

    def reload(self) -> None:
        """Load the rules again."""
        if self.receiver:
            self.receiver.pipeline.reload()

    async def run(self, stopping: Stopping, started: Callable[[], None]) -> None:
        """Until `stopping` is set and both are closed, or one of them fails."""
        close_backend, opened = asyncio.Event(), asyncio.Event()
        serving = spawn(self.backend.serve(close_backend, opened.set), name="backend", failed=_raised_by_await)
        waiting = spawn(opened.wait(), name="backend open")
        try:
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await self._receive(serving, stopping, started)
        finally:
            close_backend.set()
            await cancel(waiting)
            await asyncio.wait({serving})
        serving.result()

    async def _receive(self, serving: asyncio.Task[None], stopping: Stopping, started: Callable[[], None]) -> None:
        assert self.backend.address is not None  # `serve` has called `started`
        self.receiver = Receiver(self._configure(self.backend.address))
        halt = asyncio.Event()
        receiving = spawn(self.receiver.run(halt, started), name="receiver", failed=_raised_by_await)
        asked = spawn(stopping.wait(), name="asked to stop")
        try:
            await asyncio.wait({serving, receiving, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            halt.set()
            await cancel(asked)
            await asyncio.wait({receiving})
        receiving.result()


def _raised_by_await(_: BaseException) -> None:
    """`run` raises it."""
