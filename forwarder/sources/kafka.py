"""The Kafka door: audit events from the topics of a Kafka cluster or of Azure Event Hubs.

    sources:
      kafka:
        brokers: [kafka-1:9092]                # with `tls` and `sasl` where the brokers want them
        topics: [kube-audit]
      aks:
        type: kafka
        connection_string: ${EVENT_HUB}        # Event Hubs; the topic is its EntityPath, else `topics`
        cluster_from_envelope: true

An offset is stored for committing only after `submit` has returned for everything before it in its partition; librdkafka
commits what is stored every second, when a partition is taken away, and at the end. So after a crash or a rebalance messages may
come again, and are recognised by their ids; none is skipped. While the pipeline does not accept, the partitions are paused
and the group is told that this member lives. Payloads are whatever forwarder/envelopes knows.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Final, Literal

import msgspec

from forwarder.contracts import Batch, Screen, Stopping, Submit
from forwarder.envelopes.batches import Gathering
from forwarder.envelopes.contents import Contents
from forwarder.envelopes.opening import open_message
from forwarder.errors import ConfigError, ForwarderError, Overloaded, ShuttingDown
from forwarder.telemetry import Telemetry
from forwarder.wire.budget import ByteBudget
from forwarder.wire.complaints import Complaints
from forwarder.wire.kafka import KafkaSettings, client_config, error_words, event_hub, library, make_client

log = logging.getLogger(__name__)

POLL_S: Final = 0.2  # how long a look for messages may wait for one; also how soon a stop is seen
BATCH_MESSAGES: Final = 1000  # taken at once; of one event each they are about 3 MB
QUEUED_KIB: Final = 16 << 10  # fetched ahead by librdkafka, for all partitions together; its default is 64 MiB
COMMIT_INTERVAL_MS: Final = 1000  # what a crash makes us read again
MAX_INFLATED_BYTES: Final = 64 << 20  # of one message's compressed parts
MAX_RETRY_AFTER_S: Final = 10.0  # however long an overloaded pipeline asks for: its state may change any moment
MIN_RETRY_AFTER_S: Final = 0.05


class KafkaSourceSettings(KafkaSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Beside how to reach the brokers:

    topics: which topics; of Event Hubs: which event hubs. A name that begins with `^` is a regular expression.
    group: the consumer group; receivers that share one share the partitions.
    auto_offset_reset: where to begin in a partition for which the group has no offset, or one that is gone: `earliest`
    misses nothing, `latest` passes over what is there.
    cluster: name of the cluster whose events come in here; "": the global one.
    cluster_from_envelope: take it from the envelope where AKS, EKS or GKE name it there.
    batch_messages: the most that is submitted at once.
    keep_raw_dead_letters: keep the bytes of records that gave no line, which may hold secrets.
    """

    topics: list[str] = msgspec.field(default_factory=list)
    group: str = "friction-forwarder"
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    cluster: str = ""
    cluster_from_envelope: bool = False
    batch_messages: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = BATCH_MESSAGES
    keep_raw_dead_letters: bool = False


class KafkaSource:
    """A `contracts.Source` that is a member of a consumer group."""

    def __init__(
        self,
        name: str,
        settings: KafkaSourceSettings,
        screen: Screen,
        telemetry: Telemetry,
        cluster: str,
        *,
        budget: ByteBudget | None = None,
    ) -> None:
        """Raises ConfigError for settings that do not go together; connects to nothing."""
        self.name = name
        where = f"sources.{name}"
        self._where = where
        self._settings = settings
        self._screen = screen
        self._cluster = settings.cluster or cluster
        self._budget = budget or ByteBudget()
        self._topics = _topics(settings, where)
        self._config = _consumer_config(settings, where)
        library(where)
        self._bytes = telemetry["forwarder_source_bytes"].labels(name)
        self._skipped = telemetry["forwarder_records_skipped"]
        self._partitions = telemetry["forwarder_kafka_partitions"].labels(name)
        self._lag = telemetry["forwarder_kafka_lag_messages"].labels(name)
        self._complaints = Complaints(log, time.monotonic)
        self._fatal = ""
        self._thread: ThreadPoolExecutor | None = None  # the consumer's own: its callbacks run where it is polled
        self.description = f"{', '.join(self._topics)} of {self._config['bootstrap.servers']}, group {settings.group}"

    async def run(self, submit: Submit, stopping: Stopping, started: Callable[[], None]) -> None:
        """See `contracts.Source`. Brokers that cannot be reached are no reason to end: it goes on trying."""
        consumer = make_client("Consumer", self._config | {"error_cb": self._on_error}, self._where, log)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"kafka-{self.name}")
        share = self._budget.share(on_change=_nothing)
        try:
            await self._call(
                lambda: consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke)
            )
            started()
            early: list[Any] = []
            while not stopping.is_set():
                if self._budget.spent:
                    early += await self._hold(consumer, POLL_S)
                    continue
                messages = early or await self._call(lambda: self._take(consumer))
                early = []
                share.resize(2 * sum(len(message) for message in messages))  # the lines in them are copies
                good = [message for message in messages if self._is_good(message)]
                accepted, early = await self._hand_over(consumer, good, submit, stopping)
                share.resize(0)
                if not accepted:
                    break
                if self._fatal:
                    raise ForwarderError(f"{self._where}: {self._fatal}")
        finally:
            share.close()
            await asyncio.shield(self._call(consumer.close))  # commits what is stored, and leaves the group
            self._thread.shutdown(wait=False)

    async def _hand_over(
        self, consumer: Any, messages: Sequence[Any], submit: Submit, stopping: Stopping
    ) -> tuple[bool, list[Any]]:
        """(whether all was accepted, messages that came while it waited). Stores offsets for what was."""
        if not messages:
            return True, []
        batches = await self._batches(messages)
        early: list[Any] = []
        for batch in batches:
            while True:
                try:
                    await submit(batch)
                    break
                except Overloaded as error:
                    if stopping.is_set():
                        return False, []
                    delay_s = max(MIN_RETRY_AFTER_S, min(error.retry_after_s, MAX_RETRY_AFTER_S))
                    early += await self._hold(consumer, delay_s)
                except ShuttingDown:
                    return False, []
        await self._call(lambda: self._store(consumer, messages))
        return True, early

    async def _batches(self, messages: Sequence[Any]) -> Sequence[Batch]:
        settings = self._settings
        gathering = Gathering(
            self._screen,
            cluster=self._cluster,
            cluster_from_envelope=settings.cluster_from_envelope,
            keep_raw=settings.keep_raw_dead_letters,
        )
        for message, contents in await asyncio.to_thread(_opened, messages):
            origin = f"{self.name} {message.topic()}/{message.partition()}"
            await gathering.add(contents, origin=origin, offset=message.offset())
            for reason, count in contents.skipped.items():
                self._skipped.labels(self.name, reason).inc(count)
        return gathering.batches()

    async def _hold(self, consumer: Any, delay_s: float) -> list[Any]:
        """Wait with all partitions paused, polling so that the group keeps us; what came in spite of it."""
        early: list[Any] = []

        def beat() -> None:
            _pause(consumer)
            if (message := consumer.poll(0)) is not None:
                early.append(message)
            _pause(consumer)  # a rebalance may have brought new ones

        await self._call(beat)
        await asyncio.sleep(delay_s)
        await self._call(lambda: consumer.resume(consumer.assignment()))
        return early

    async def _call(self, function: Callable[[], Any]) -> Any:
        """In the consumer's thread."""
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    # --- in the consumer's thread ---

    def _take(self, consumer: Any) -> list[Any]:
        """What is there, at most `batch_messages`; waits only for the first."""
        first = consumer.poll(POLL_S)
        self._partitions.set(len(consumer.assignment()))
        if first is None:
            return []
        more: list[Any] = (
            consumer.consume(self._settings.batch_messages - 1, 0) if self._settings.batch_messages > 1 else []
        )
        self._show_lag(consumer, [first, *more])
        return [first, *more]

    def _store(self, consumer: Any, messages: Sequence[Any]) -> None:
        """Offsets behind the last message of each partition; one that was taken away meanwhile belongs to another."""
        module = library(self._where)
        last: dict[tuple[str, int], int] = {}
        for message in messages:
            last[message.topic(), message.partition()] = message.offset() + 1
        for (topic, partition), offset in last.items():
            try:
                consumer.store_offsets(offsets=[module.TopicPartition(topic, partition, offset)])
            except module.KafkaException as error:
                self._complain(
                    "offsets", f"offset of {topic}/{partition} not stored: {error_words(error.args[0])}; it comes again"
                )
        self._bytes.inc(sum(len(message) for message in messages))

    def _is_good(self, message: Any) -> bool:
        """Whether it is a message, and no word of librdkafka about one."""
        error = message.error()
        if error is not None:
            self._complain(error.name(), f"{message.topic() or 'the consumer'}: {error_words(error)}")
            return False
        return message.value() is not None  # a tombstone deletes a key; it says nothing

    def _on_assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        log.info("%s: reads %s", self.name, _named(partitions) or "no partition: others of the group have them all")

    def _on_revoke(self, consumer: Any, partitions: Sequence[Any]) -> None:
        """librdkafka commits what is stored for them before they go."""
        log.info("%s: gives back %s", self.name, _named(partitions))

    def _on_error(self, error: Any) -> None:
        """Trouble with brokers; librdkafka goes on trying, unless it says that it is fatal."""
        if error.fatal():
            self._fatal = error_words(error)
        if error.name() == "_ALL_BROKERS_DOWN":
            return  # said of each of them already
        self._complain(error.name(), error_words(error))

    def _complain(self, kind: str, text: str) -> None:
        self._complaints.say(self.name, kind, text)

    def _show_lag(self, consumer: Any, messages: Sequence[Any]) -> None:
        """Messages that the brokers have beyond these, in the partitions that they came from; as librdkafka last heard."""
        module = library(self._where)
        lag = 0
        for topic, partition, offset in {
            (m.topic(), m.partition()): (m.topic(), m.partition(), m.offset()) for m in messages
        }.values():
            if topic is not None and offset is not None:
                _, high = consumer.get_watermark_offsets(module.TopicPartition(topic, partition), cached=True)
                lag += max(0, high - offset - 1)
        self._lag.set(lag)


def _opened(messages: Sequence[Any]) -> list[tuple[Any, Contents]]:
    return [(message, open_message(message.value(), max_bytes=MAX_INFLATED_BYTES)) for message in messages]


def _pause(consumer: Any) -> None:
    consumer.pause(consumer.assignment())


def _named(partitions: Sequence[Any]) -> str:
    return ", ".join(f"{one.topic}/{one.partition}" for one in partitions)


def _topics(settings: KafkaSourceSettings, where: str) -> list[str]:
    topics = list(settings.topics)
    if not topics and settings.connection_string:
        path = event_hub(settings.connection_string, f"{where}.connection_string").entity_path
        topics = [path] if path else []
    if not topics or not all(topics):
        raise ConfigError(
            "it needs at least one topic, or a `connection_string` with an EntityPath", where=f"{where}.topics"
        )
    if not settings.group:
        raise ConfigError("it needs a name", where=f"{where}.group")
    return topics


def _consumer_config(settings: KafkaSourceSettings, where: str) -> dict[str, Any]:
    defaults = {"queued.max.messages.kbytes": QUEUED_KIB, "auto.commit.interval.ms": COMMIT_INTERVAL_MS}
    return (
        defaults
        | client_config(settings, where)
        | {
            "group.id": settings.group,
            "auto.offset.reset": settings.auto_offset_reset,
            "enable.auto.commit": True,  # of what is stored; and that is done after acceptance
            "enable.auto.offset.store": False,
        }
    )


def _nothing() -> None:
    """The budget is looked at before every look for messages."""
