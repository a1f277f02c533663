"""The Kafka source against a real broker: offsets follow acceptance, nothing is skipped, whatever moves or ends."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest

from forwarder.errors import Overloaded
from forwarder.sources.kafka import KafkaSource, KafkaSourceSettings
from forwarder.tasks import spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.budget import ByteBudget

pytestmark = pytest.mark.e2e


def messages(count, first=0):
    return [
        json.dumps({"kind": "Event", "auditID": str(number), "verb": "get"}).encode()
        for number in range(first, first + count)
    ]


class Submit:
    """What the pipeline is to a source."""

    def __init__(self, error=None):
        self.error, self.batches, self.asked = error, [], asyncio.Event()

    async def __call__(self, batch):
        self.asked.set()
        if self.error:
            raise self.error
        self.batches.append(batch)

    @property
    def ids(self):
        return [json.loads(line.data)["auditID"] for batch in self.batches for line in batch.lines]


def source_of(broker, topic, budget=None, **settings):
    settings = {"brokers": [broker.address], "topics": [topic], "options": {"session.timeout.ms": 6000}} | settings
    telemetry = Telemetry()
    source = KafkaSource("kafka", KafkaSourceSettings(**settings), lambda *_: True, telemetry, "prod", budget=budget)
    source.telemetry = telemetry
    return source


@asynccontextmanager
async def running(source, submit):
    stopping, started = asyncio.Event(), asyncio.Event()
    task = spawn(source.run(submit, stopping, started.set), name="source")
    await asyncio.wait_for(started.wait(), 10)
    try:
        yield task
    finally:
        stopping.set()
        await asyncio.wait([task], timeout=30)
        assert task.done()


async def until(condition, deadline_s=30.0):
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in librdkafka
            await asyncio.sleep(0.05)


async def test_several_partitions_are_read_and_committed(shared_broker, topic):
    """Every message once; at the end the group stands behind the last of each partition."""
    shared_broker.topic(topic, partitions=3)
    shared_broker.produce(topic, messages(900))
    submit = Submit()
    source = source_of(shared_broker, topic)
    async with running(source, submit):
        await until(lambda: len(submit.ids) == 900)
        assert source.telemetry.value("forwarder_kafka_partitions") == 3
    assert sorted(submit.ids, key=int) == [str(number) for number in range(900)]
    assert {batch.origin for batch in submit.batches} == {f"kafka {topic}/{number}" for number in range(3)}
    assert {batch.cluster for batch in submit.batches} == {"prod"}
    assert shared_broker.committed(topic, partitions=3) == 900


async def test_the_next_run_goes_on_where_the_last_one_stopped(shared_broker, topic):
    """And a new group begins at the beginning, or at the end."""
    shared_broker.topic(topic)
    shared_broker.produce(topic, messages(10))
    for first, count in ((0, 10), (10, 5)):
        submit = Submit()
        if first:
            shared_broker.produce(topic, messages(count, first))
        async with running(source_of(shared_broker, topic), submit):
            await until(lambda submit=submit, count=count: len(submit.ids) == count)
            await asyncio.sleep(0.5)
        assert submit.ids == [str(number) for number in range(first, first + count)]
    late = Submit()
    async with running(source_of(shared_broker, topic, group="late", auto_offset_reset="latest"), late) as task:
        await asyncio.sleep(4)
        shared_broker.produce(topic, messages(1, 99))
        await until(lambda: late.ids or task.done())
    assert late.ids == ["99"]


async def test_overload_pauses_and_commits_nothing_until_it_is_over(shared_broker, topic):
    """The partitions stay ours meanwhile, and no message is taken twice or skipped."""
    shared_broker.topic(topic, partitions=2)
    shared_broker.produce(topic, messages(50))
    submit = Submit(Overloaded("outbox_full", retry_after_s=0.2))
    options = {"session.timeout.ms": 6000, "max.poll.interval.ms": 6000}
    async with running(source_of(shared_broker, topic, options=options), submit):
        await submit.asked.wait()
        shared_broker.produce(topic, messages(50, 50))
        await asyncio.sleep(8)  # longer than a member may be silent
        assert await asyncio.to_thread(shared_broker.committed, topic, partitions=2) == 0
        submit.error = None
        await until(lambda: len(submit.ids) == 100)
        await asyncio.sleep(0.5)
    assert sorted(submit.ids, key=int) == [str(number) for number in range(100)]
    assert shared_broker.committed(topic, partitions=2) == 100


async def test_a_second_member_takes_its_share_and_gives_it_back(shared_broker, topic):
    """Through both rebalances every message is accepted, and the group ends behind all of them."""
    shared_broker.topic(topic, partitions=4)
    one, two = Submit(), Submit()
    produced = 0
    async with running(source_of(shared_broker, topic), one):
        shared_broker.produce(topic, messages(400))
        await until(lambda: len(one.ids) >= 100)
        async with running(second := source_of(shared_broker, topic), two):
            for produced in range(400, 1600, 100):
                await asyncio.to_thread(shared_broker.produce, topic, messages(100, produced))
                await asyncio.sleep(0.3)
            await until(lambda: two.ids)
            assert second.telemetry.value("forwarder_kafka_partitions") == 2
        await asyncio.to_thread(shared_broker.produce, topic, messages(100, 1600))
        await until(lambda: len({*one.ids, *two.ids}) == 1700)
    assert {*one.ids, *two.ids} == {str(number) for number in range(1700)}
    assert shared_broker.committed(topic, partitions=4) == 1700


async def test_reading_stops_while_the_budget_is_spent(shared_broker, topic):
    """And goes on afterwards without a gap."""
    shared_broker.topic(topic)
    budget, submit = ByteBudget(1000), Submit()
    other = budget.share(lambda: None)
    other.resize(5000)
    shared_broker.produce(topic, messages(20))
    async with running(source_of(shared_broker, topic, budget=budget), submit):
        await asyncio.sleep(5)
        assert len(submit.ids) <= 1
        other.close()
        await until(lambda: len(submit.ids) >= 20)
        await asyncio.sleep(0.5)
    assert submit.ids == [str(number) for number in range(20)]


async def test_bad_messages_are_kept_and_passed(shared_broker, topic):
    """A tombstone, an empty message, gzip that is none: their neighbours count, the offset moves on."""
    shared_broker.topic(topic)
    shared_broker.produce(topic, [*messages(1), b"", b"\x1f\x8b\x08 oops", None, *messages(1, 1)])
    submit = Submit()
    async with running(source_of(shared_broker, topic), submit):
        await until(lambda: len(submit.ids) == 2)
    letters = [letter for batch in submit.batches for letter in batch.rejected]
    assert [(letter.reason, letter.offset, letter.source) for letter in letters] == [
        ("bad_gzip", 2, f"kafka {topic}/0")
    ]
    assert shared_broker.committed(topic) == 5


async def test_the_broker_goes_and_comes_back(own_broker, topic, caplog):
    """Killed and started again while messages wait: nothing is lost, and it is said once what is wrong."""
    own_broker.topic(topic, partitions=2)
    own_broker.produce(topic, messages(100))
    submit = Submit()
    async with running(source_of(own_broker, topic), submit):
        await until(lambda: len(submit.ids) == 100)
        await asyncio.sleep(1.5)
        own_broker.kill()
        await asyncio.sleep(2)
        await asyncio.to_thread(own_broker.start)
        await asyncio.to_thread(own_broker.produce, topic, messages(100, 100))
        await until(lambda: len(set(submit.ids)) == 200, 60)
    assert own_broker.committed(topic, partitions=2) == 200
    assert "Connection refused" in caplog.text


async def test_a_broker_that_is_not_there_yet(own_broker, topic):
    """The source starts all the same, and reads when it comes."""
    own_broker.topic(topic)
    own_broker.produce(topic, messages(5))
    own_broker.stop()
    submit = Submit()
    async with running(source_of(own_broker, topic), submit):
        await asyncio.sleep(1)
        await asyncio.to_thread(own_broker.start)
        await until(lambda: len(submit.ids) == 5, 60)


async def test_latency_is_not_the_poll(shared_broker, topic):
    """A message is handed over when it comes, not when a batch is full."""
    shared_broker.topic(topic)
    submit = Submit()
    async with running(source_of(shared_broker, topic), submit):
        shared_broker.produce(topic, messages(1))
        await until(lambda: submit.ids)
        began = time.monotonic()
        await asyncio.to_thread(shared_broker.produce, topic, messages(1, 1))
        await until(lambda: len(submit.ids) == 2)
    assert time.monotonic() - began < 1.0


async def test_the_end_does_not_wait_for_a_broker_that_is_away(own_broker, topic):
    """A shutdown has ten seconds in all."""
    own_broker.topic(topic)
    own_broker.produce(topic, messages(5))
    submit = Submit()
    async with running(source_of(own_broker, topic), submit):
        await until(lambda: len(submit.ids) == 5)
        own_broker.kill()
        await asyncio.sleep(1)
        began = time.monotonic()
    assert time.monotonic() - began < 8


async def test_a_cooperative_group(shared_broker, topic):
    """Partitions move one by one; the others are read on meanwhile."""
    shared_broker.topic(topic, partitions=4)
    one, two = Submit(), Submit()
    options = {"session.timeout.ms": 6000, "partition.assignment.strategy": "cooperative-sticky"}
    first = source_of(shared_broker, topic, options=options)
    async with running(first, one):
        shared_broker.produce(topic, messages(200))
        await until(lambda: len(one.ids) == 200)
        async with running(source_of(shared_broker, topic, options=options), two):
            await until(lambda: first.telemetry.value("forwarder_kafka_partitions") == 2)
            await asyncio.to_thread(shared_broker.produce, topic, messages(400, 200))
            await until(lambda: len({*one.ids, *two.ids}) == 600)
            assert two.ids
    assert shared_broker.committed(topic, partitions=4) == 600
