"""source ► detection ► outbox ► sinks: the one place where their order, the acknowledgement and the shutdown stand.

The acknowledgement is the last step. A source hands a batch to `submit` and acknowledges when it returns. `submit`
returns when every friction event and every dead letter of the batch is committed in the outbox (fsynced); a batch that
gave neither needs no commit. A sink of the audit stream with `when_down: block` must have taken the batch too. If anything
fails, `submit` raises, nothing is acknowledged, and the sender sends again; what an earlier try kept is a duplicate by its id.

The ledger of lines is counted here, once per accepted batch: received = unmatched + matched + rejected.

Shutdown: sources stop accepting, finish and acknowledge what they had received; then sinks finish what is in flight;
then the outbox closes, and last the live feed, each with a deadline. What waits is in the outbox for the next start.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from forwarder import __version__
from forwarder.alerts.audit import as_event
from forwarder.contracts import Batch, DeadLetter, HasWorkers, Line, Source, Stopping, Submit, Tap
from forwarder.delivery import Delivery, Stream, Turns
from forwarder.detection.detector import Detector, Malformed
from forwarder.detection.selection import selection
from forwarder.errors import ForwarderError, ShuttingDown
from forwarder.events import redact
from forwarder.events.audit import AuditEvent
from forwarder.events.friction import FrictionEvent
from forwarder.events.outgoing import OutgoingEvent
from forwarder.events.redaction import Redaction
from forwarder.outbox import Outbox, read_ledger, show
from forwarder.registry import (
    Loaded,
    build_audit_sink,
    build_feed,
    build_sink,
    build_source,
    outbox_entry,
    takes_audit_events,
    takes_audit_stream,
)
from forwarder.rulebook import Rulebook
from forwarder.settings import Address
from forwarder.tasks import cancel, spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.budget import ByteBudget

log = logging.getLogger(__name__)

SOURCES_STOP_S = 10.0  # below the 30 s that Kubernetes gives, and above a Fluent Bit flush
SINKS_STOP_S = 12.0  # a delivery in flight has a deadline of 10 s of its own
GAVE_UP_S = 1.0  # who is cancelled after so long gave up waiting for us; sooner, its peer went away
REFUSED_LATELY_S = 5.0  # not ready for so long after a refusal: senders that can choose go elsewhere, then try again
GAUGES_EVERY_S = 2.0
BLOCKING_BATCHES = 2  # under way at once where a stream joins the acknowledgement: one is delivered, one decoded
SLICE_LINES = 256  # after so many examined lines the event loop gets a turn: acks of other connections stay fast


class Pipeline:
    """One receiver. `run` may be called once."""

    def __init__(self, loaded: Loaded, telemetry: Telemetry) -> None:
        """Reads the rules and makes every part; opens nothing. Raises ConfigError."""
        self.loaded = loaded
        self.telemetry = telemetry
        self.rulebook = Rulebook(loaded, telemetry)
        redaction = Redaction(loaded.config.redaction)
        self._redaction = redaction if redaction.active else None
        audit = [name for name, (_, settings) in loaded.sinks.items() if takes_audit_stream(settings)]
        self.sinks = {name: build_sink(name, loaded, telemetry) for name in loaded.sinks if name not in audit}
        self.streams = {name: self._stream(name) for name in audit}
        # Of the sinks for people, which audit events are theirs; these go by way of the outbox.
        self._told = {
            name: self._selected(name)
            for name, (_, settings) in loaded.sinks.items()
            if takes_audit_events(settings) and name not in audit
        }
        blocking = any(loaded.sinks[name][1].when_down == "block" for name in audit)
        self._turns = Turns(BLOCKING_BATCHES) if blocking else None
        self._taps: list[Tap] = []
        self.feed = build_feed(loaded, telemetry)
        self.feed_address: Address | None = None
        budget = ByteBudget()
        self.sources: dict[str, Source] = {
            name: build_source(name, loaded, self.detector.screen, telemetry, budget) for name in loaded.sources
        }
        self._workers = [source for source in self.sources.values() if isinstance(source, HasWorkers)]
        self.rulebook.workers = self._workers
        self.rulebook.tell_workers()
        self.outbox = Outbox(
            loaded.outbox_path,
            [outbox_entry(sink, loaded) for sink in self.sinks.values()],
            max_bytes=loaded.outbox_max_bytes,
            telemetry=telemetry,
        )
        self._deliveries = [Delivery(self.outbox, sink, telemetry) for sink in self.sinks.values()]
        self._closing = False
        self._refused_at = -REFUSED_LATELY_S
        self.look_at_taps()
        self._started: set[str] = set()
        telemetry["forwarder_info"].labels(__version__).set(1)
        for _, settings in loaded.sources.values():  # known from the start, so that one that stays silent is missed
            cluster = getattr(settings, "cluster", "") or loaded.config.cluster
            telemetry["forwarder_cluster_last_received_seconds"].labels(cluster).set(0)

    @property
    def detector(self) -> Detector:
        """What examines lines now."""
        return self.rulebook.detector

    @property
    def ready(self) -> bool:
        """Whether every source accepts, and nothing was refused a moment ago (a full disk, a blocking sink that is down)."""
        calm = time.monotonic() - self._refused_at >= REFUSED_LATELY_S
        return calm and not self._closing and len(self._started) == len(self.sources)

    async def run(self, stopping: Stopping, started: Callable[[], None]) -> None:
        """Until `stopping` is set, or every source has read its input to the end. Raises ConfigError before it accepted
        anything, or the error of a source that failed later.
        """
        self.outbox.open()
        background: list[asyncio.Task[None]] = []
        try:
            for delivery in self._deliveries:
                delivery.start()
            for stream in self.streams.values():
                stream.start()
            await self._open_feed()
            background = [
                spawn(self._gauges(), name="gauges"),
                spawn(self.rulebook.watch(), name="watch-rules"),
            ]
            await self._run_sources(stopping, started)
        finally:
            self._closing = True
            await cancel(*background)
            await asyncio.to_thread(self._close)
            if self.feed:
                await asyncio.to_thread(self.feed.stop)  # last: who watches sees how it ends

    async def _open_feed(self) -> None:
        if self.feed is None:
            return
        loop = asyncio.get_running_loop()

        def changed() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(self.look_at_taps)

        self.feed_address = await asyncio.to_thread(self.feed.start, changed)
        self.attach(self.feed)

    async def _run_sources(self, stopping: Stopping, started: Callable[[], None]) -> None:
        halt = asyncio.Event()
        opened = asyncio.Event()

        def source_started(name: str) -> None:
            self._started.add(name)
            if len(self._started) == len(self.sources):
                opened.set()

        tasks = {
            spawn(
                source.run(self.submit_for(name), halt, lambda name=name: source_started(name)),  # type: ignore[misc]
                name=f"source {name}",
                failed=lambda _: None,
            ): name
            for name, source in self.sources.items()
        }
        asked = spawn(_wait(stopping), name="stopping")
        ready = spawn(_wait(opened), name="sources open")
        error: BaseException | None = None
        pending: set[asyncio.Task[None]] = set(tasks)
        try:
            while pending and not asked.done() and error is None:
                waiting = {*pending, asked} | ({ready} if not ready.done() else set())
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if ready in done:
                    started()
                for task in done & pending:
                    pending.discard(task)
                    error = error or task.exception()
            halt.set()
            if pending:
                _, late = await asyncio.wait(pending, timeout=SOURCES_STOP_S)
                for task in late:
                    log.warning(
                        "source %s did not stop in %d s; what it had not acknowledged comes again",
                        tasks[task],
                        SOURCES_STOP_S,
                    )
                for task in pending - late:
                    error = error or task.exception()
        finally:
            await cancel(asked, ready, *pending)
        if error is not None:
            raise error

    def _close(self) -> None:
        deadline = time.monotonic() + SINKS_STOP_S
        for delivery in self._deliveries:
            delivery.stop_soon()
        for stream in self.streams.values():
            stream.stop_soon(SINKS_STOP_S / 2)
        for delivery in self._deliveries:
            delivery.stop(max(0.1, deadline - time.monotonic()))
        for stream in self.streams.values():
            stream.join(max(0.1, deadline - time.monotonic()))
        self.outbox.close()

    # --- the way of a batch ------------------------------------------------------------------------------------------

    def submit_for(self, source: str) -> Submit:
        """`submit` as the source of that name gets it."""

        async def submit(batch: Batch) -> None:
            began = time.monotonic()
            try:
                async with self._turns.one() if self._turns else contextlib.nullcontext():
                    await self._submit(source, batch)
            except (ForwarderError, asyncio.CancelledError) as error:
                now, reason = time.monotonic(), "shutting_down" if isinstance(error, ShuttingDown) else "overloaded"
                if isinstance(error, ForwarderError) or now - began >= GAVE_UP_S:
                    self._refused_at = now
                    self.telemetry["forwarder_batches_refused"].labels(source, reason).inc()
                raise

        return submit

    async def _submit(self, source: str, batch: Batch) -> None:
        if self._closing:
            raise ShuttingDown("the receiver is shutting down")
        began = time.monotonic()
        events: list[FrictionEvent] = []
        dead: list[DeadLetter] = list(batch.rejected)
        reasons: Counter[str] = Counter(letter.reason for letter in batch.rejected)
        matched = 0
        keep = self.detector.screen.everything
        audit: list[OutgoingEvent] = []
        for position, line in enumerate(batch.lines):
            examined = self.detector.examine(
                line.data, cluster=batch.cluster, time_s=line.time_s or time.time(), keep=keep
            )
            audit.extend(
                OutgoingEvent(event, data, batch.cluster or self.detector.cluster, self._redaction)
                for event, data in examined.audit
            )
            if examined.malformed:
                dead.extend(self._dead_letter(malformed, line, batch.origin) for malformed in examined.malformed)
                reasons[examined.malformed[0].reason] += 1
            elif examined.events:
                matched += 1
            events.extend(examined.events)
            if position % SLICE_LINES == SLICE_LINES - 1:
                await asyncio.sleep(0)
        if self._redaction:
            events = [self._redaction.friction(event) for event in events]
            dead = [msgspec.structs.replace(letter, head=self._redaction.text(letter.head)) for letter in dead]
        directed = [
            (name, as_event(event, name))
            for name, selected in self._told.items()
            for event in audit
            if selected(event.original)
        ]
        if events or dead or directed:
            await self._commit(events, dead, directed)
            self.telemetry["forwarder_accept_seconds"].observe(time.monotonic() - began)
        if audit:
            await self._pass_on(audit)
        self._count(source, batch, matched, reasons, events)
        for tap in self._taps:
            if events:
                tap.friction(events)
            if audit and tap.wants_audit:
                tap.audit(audit)

    async def _commit(
        self,
        events: Sequence[FrictionEvent],
        dead: Sequence[DeadLetter],
        directed: Sequence[tuple[str, FrictionEvent]] = (),
    ) -> None:
        # shielded: a source that gives up waiting must not tear a batch out of a group that is being written
        future = asyncio.wrap_future(self.outbox.commit(events, dead, directed))
        future.add_done_callback(_looked_at)
        result = await asyncio.shield(future)
        counter = self.telemetry["forwarder_events"]
        for name in ("new", "update", "duplicate", "expired"):
            counter.labels(name).inc(getattr(result, name))

    async def _pass_on(self, audit: Sequence[OutgoingEvent]) -> None:
        """To every audit stream; returns when those that block have taken it. Whoever gives up waiting withdraws it."""
        waiting: list[asyncio.Future[None]] = []
        try:
            for stream in self.streams.values():
                waiting += [asyncio.wrap_future(taken)] if (taken := stream.put(audit)) else []
            for one in waiting:
                await one
        except asyncio.CancelledError as error:
            if self._closing:
                raise ShuttingDown("the audit streams are shutting down") from error
            raise
        finally:
            for one in waiting:
                one.cancel()

    def _count(
        self, source: str, batch: Batch, matched: int, reasons: Counter[str], events: Sequence[FrictionEvent]
    ) -> None:
        telemetry = self.telemetry
        rejected = sum(reasons.values())
        telemetry["forwarder_batches"].labels(source).inc()
        telemetry["forwarder_lines_received"].labels(source).inc(batch.received)
        telemetry["forwarder_lines_matched"].labels(source).inc(matched)
        telemetry["forwarder_lines_unmatched"].labels(source).inc(batch.received - matched - rejected)
        for reason, count in reasons.items():
            telemetry["forwarder_lines_rejected"].labels(source, reason).inc(count)
        for event in events:
            telemetry["forwarder_rule_fired"].labels(event.type, event.severity).inc()
        telemetry["forwarder_last_received_seconds"].labels(source).set(time.time())
        cluster = batch.cluster or self.loaded.config.cluster
        telemetry["forwarder_cluster_last_received_seconds"].labels(cluster).set(time.time())

    def _dead_letter(self, malformed: Malformed, line: Line, origin: str) -> DeadLetter:
        return DeadLetter(
            reason=malformed.reason,
            source=origin,
            size_bytes=len(malformed.data),
            sha256=hashlib.sha256(malformed.data).hexdigest(),
            offset=line.offset,
            head=redact.head(malformed.data),
            payload=malformed.data if self.loaded.config.outbox.keep_payloads else None,
        )

    # --- who else is shown what passes -------------------------------------------------------------------------------

    def attach(self, tap: Tap) -> None:
        """Show it what is accepted from now on."""
        self._taps.append(tap)
        self.look_at_taps()

    def look_at_taps(self) -> None:
        """Whether every line has to be decoded; a tap whose `wants_audit` changed has this called, in the event loop."""
        passed_on = bool(self.streams) or bool(self._told)
        self.detector.screen.everything = passed_on or any(tap.wants_audit for tap in self._taps)
        for source in self._workers:
            source.set_everything(self.detector.screen.everything)

    def _stream(self, name: str) -> Stream:
        _, settings = self.loaded.sinks[name]
        sink = build_audit_sink(name, self.loaded, self.telemetry)
        return Stream(sink, settings, self._selected(name), self.telemetry)

    def _selected(self, name: str) -> Callable[[AuditEvent], bool]:
        _, settings = self.loaded.sinks[name]
        return selection(
            self.loaded.selections.get(name, ()),
            settings.stages,
            ignore_system=settings.ignore_system,
            robots=self.loaded.config.detection.robots,
        )

    # --- rules that change while we run ------------------------------------------------------------------------------

    def reload(self) -> bool:
        """Load the rules again; see `Rulebook.reload`."""
        return self.rulebook.reload()

    # --- what the metrics say ----------------------------------------------------------------------------------------

    async def _gauges(self) -> None:
        fallback, told = 0, ""
        counts = self.detector.screen.counts
        while True:
            try:
                show(await asyncio.to_thread(read_ledger, self.loaded.outbox_path), self.telemetry)
                told = ""
            except (ForwarderError, OSError) as error:
                if str(error) != told:
                    log.warning("cannot read the ledger: %s", error)
                told = str(error)
            self.telemetry["forwarder_screen_fallback"].inc(counts.fallback - fallback)
            fallback = counts.fallback
            await asyncio.sleep(GAUGES_EVERY_S)


def _looked_at(future: asyncio.Future[Any]) -> None:
    """A batch whose source gave up waiting may fail later; asyncio would report that as an error nobody saw."""
    if not future.cancelled():
        future.exception()


async def _wait(event: Stopping) -> None:
    await event.wait()
