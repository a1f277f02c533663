"""The sinks that hang off a backend: an outbox of their own, one delivery thread each, and a port that tells about them.

    backend: {listen: ":8000", database: /var/lib/forwarder/backend.db}
    sinks:
      platform-team: {type: slack, channel: "#platform", token_file: /run/secrets/slack-token}
    outbox: {path: /var/lib/forwarder/onward.db, max_bytes: 256MiB}

The backend hands over what it sees for the first time (backend/onward.py says which and when); from there on it is as in a
receiver: durable first, then delivered, put off or dead, and nothing is sent twice for a restart.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from forwarder import __version__
from forwarder.delivery import Delivery
from forwarder.events.friction import FrictionEvent
from forwarder.outbox import Outbox, read_ledger, show
from forwarder.registry import Loaded, TelemetrySettings, build_sink, outbox_entry
from forwarder.settings import Address, parse_address
from forwarder.telemetry import Telemetry
from forwarder.wire.http import TelemetryServer

STOP_S = 12.0  # a delivery in flight has a deadline of 10 s of its own


class NoExits:
    """A backend without sinks: only the port that tells about it. telemetry_address: as of Exits."""

    def __init__(self, settings: TelemetrySettings) -> None:
        """Opens nothing. Raises ConfigError."""
        self.telemetry = Telemetry()
        self.telemetry_address: Address | None = None
        self._http = _port(settings, self.telemetry.exposition)
        self.telemetry["forwarder_info"].labels(__version__).set(1)

    def open(self) -> None:
        """Raises ConfigError when the port cannot be bound."""
        if self._http:
            self.telemetry_address = self._http.start()

    def close(self) -> None:
        """May be called whether it is open or not."""
        if self._http:
            self._http.stop()


class Exits:
    """backend.onward.Exit. telemetry_address: where /metrics answers, once open; None for nowhere."""

    def __init__(self, loaded: Loaded) -> None:
        """Makes every part; opens nothing. Raises ConfigError."""
        self.telemetry = Telemetry()
        self.telemetry_address: Address | None = None
        self.sinks = {name: build_sink(name, loaded, self.telemetry) for name in loaded.sinks}
        self._outbox = Outbox(
            loaded.outbox_path,
            # first-seen events only, so no sink is offered an update
            [msgspec.structs.replace(outbox_entry(sink, loaded), takes_updates=False) for sink in self.sinks.values()],
            max_bytes=loaded.outbox_max_bytes,
            telemetry=self.telemetry,
        )
        self._deliveries = [Delivery(self._outbox, sink, self.telemetry) for sink in self.sinks.values()]
        self._http = _port(loaded.config.telemetry, self._exposition)
        self.telemetry["forwarder_info"].labels(__version__).set(1)

    def open(self) -> None:
        """Open the outbox, begin to deliver what waits in it. Raises ConfigError; nothing is left open then."""
        if self._http:
            self.telemetry_address = self._http.start()
        try:
            self._outbox.open()
        except BaseException:
            if self._http:
                self._http.stop()
            raise
        for delivery in self._deliveries:
            delivery.start()

    def put(self, events: Sequence[FrictionEvent]) -> None:
        """Blocks until `events` are durable. Raises Overloaded or ShuttingDown, and then nothing of them was kept."""
        result = self._outbox.commit(events).result()
        for name in ("new", "update", "duplicate", "expired"):
            self.telemetry["forwarder_events"].labels(name).inc(getattr(result, name))

    def skipped(self, reason: str, events: int) -> None:
        """Count events that do not go on."""
        self.telemetry["forwarder_onward_skipped"].labels(reason).inc(events)

    def close(self) -> None:
        """Finish what is in flight; the rest is in the outbox for the next start."""
        deadline = time.monotonic() + STOP_S
        for delivery in self._deliveries:
            delivery.stop_soon()
        for delivery in self._deliveries:
            delivery.stop(max(0.1, deadline - time.monotonic()))
        self._outbox.close()
        if self._http:
            self._http.stop()

    def _exposition(self) -> bytes:
        show(read_ledger(self._outbox.path), self.telemetry)
        return self.telemetry.exposition()


def _port(settings: TelemetrySettings, exposition: Callable[[], bytes]) -> TelemetryServer | None:
    if not settings.listen:
        return None
    return TelemetryServer(
        parse_address(settings.listen, where="telemetry.listen"),
        metrics=exposition,
        ready=lambda: True,
        token=settings.token or "",
        allow_anonymous=settings.allow_anonymous,
    )
