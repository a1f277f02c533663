"""A real Apache Kafka broker on loopback, in KRaft mode, that may be stopped, killed and started again on the same data.

KAFKA_HOME names a folder with Kafka's jars under libs/ (a download of kafka.apache.org, or `make kafka-parts`); Java 17 runs them.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.e2e.product.conftest import ROOT, Program, wait_until
from tests.ports import free_port

HEAP = "-Xmx384m"
COORDINATOR = ("NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS")
CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"


def kafka_home() -> Path | None:
    """Where the jars are; None where there are none."""
    for place in (os.environ.get("KAFKA_HOME", ""), str(ROOT / "tests" / "e2e" / "parts" / "bin" / "kafka")):
        if place and any(Path(place, "libs").glob("kafka_2.1*.jar")):
            return Path(place)
    return None


def missing() -> str:
    """Why there can be no broker, in one line; "" where there can."""
    if not shutil.which("java"):
        return "needs Java 17 on PATH"
    return (
        "" if kafka_home() else "needs Apache Kafka 4: run `make kafka-parts` (needs Maven), or name it in KAFKA_HOME"
    )


class Broker:
    """`start` returns when it answers. address: HOST:PORT."""

    def __init__(self, folder: Path, **properties: str) -> None:
        self.folder = folder
        self._port, self._controller = free_port(), free_port()
        self.address = f"127.0.0.1:{self._port}"
        lines = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,SSL:SSL",
            "log.dirs": str(folder / "kafka-data"),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            **properties,
        }
        self.properties = folder / "server.properties"
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        self._program = Program("kafka", self._java("kafka.Kafka", str(self.properties)), folder, {})
        format_storage = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self.properties))
        run = subprocess.run(format_storage, capture_output=True, text=True, timeout=120, check=False)
        assert run.returncode == 0, run.stdout + run.stderr

    @staticmethod
    def _java(*arguments: str) -> list[str]:
        home = kafka_home()
        assert home
        return ["java", HEAP, "-XX:+UseSerialGC", "-cp", f"{home}/libs/*", *arguments]

    def start(self) -> None:
        self._program.start()
        wait_until(self._answers, "Kafka")

    def stop(self) -> None:
        if self._program.running:
            self._program.stop(deadline_s=60)

    def kill(self) -> None:
        self._program.kill()

    def output(self) -> str:
        return self._program.output()

    def _answers(self) -> bool:
        assert self._program.running, self._program.output()[-3000:]
        try:
            return bool(self.admin().list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    # --- what tests do with it -----------------------------------------------------------------------------------------

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def topic(self, name: str, partitions: int = 1, **config: str) -> str:
        admin = self.admin()
        admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)
        return name

    def produce(self, topic: str, values: list[bytes]) -> None:
        """Spread over the partitions; returns when the broker has all of them."""
        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 5, "log_level": 0})
        for value in values:
            while True:
                try:
                    producer.produce(topic, value)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0

    def committed(self, topic: str, group: str = "friction-forwarder", partitions: int = 1) -> int:
        """How many messages the group has behind it; asked again while the broker has yet to find its coordinator."""
        wanted = [TopicPartition(topic, number) for number in range(partitions)]
        end = time.monotonic() + 30
        while True:
            consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0})
            try:
                found = consumer.committed(wanted, timeout=10)
                break
            except KafkaException as error:
                if error.args[0].name() not in COORDINATOR or time.monotonic() > end:
                    raise
                time.sleep(0.5)
            finally:
                consumer.close()
        return sum(max(0, one.offset) for one in found)

    def consume(self, topic: str, count: int, deadline_s: float = 30.0) -> list[Any]:
        """The messages of a topic from its beginning, until there are `count`, and a moment for more."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": f"reader-{time.time_ns()}",
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        consumer.subscribe([topic])
        found: list[Any] = []
        end = time.monotonic() + deadline_s
        try:
            while time.monotonic() < end and len(found) < count:
                found += [one for one in consumer.consume(500, 0.5) if one.error() is None]
            found += [one for one in consumer.consume(500, 1.0) if one.error() is None]
        finally:
            consumer.close()
        return found
