"""Receivers and clusters: what each receiver last said of itself, and when something last came from each cluster.

A cluster is silent when its receivers, though they report, have received no audit line from it for SILENT_US; or when a
receiver that reported of it does so no more; or, where no receiver ever reported of it, never: friction is rare, and its
absence says nothing.
"""

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from forwarder.backend.database import Database, insert
from forwarder.backend.schema import names, receivers
from forwarder.backend.store.views import DAY_US, NameKind

LATE_US = 60_000_000  # four reports that did not come
SILENT_US = 15 * 60_000_000  # an API server is never without a request for a quarter of an hour
FORGET_US = 30 * DAY_US  # a receiver that was taken away
MAX_RECEIVERS = 1000

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Text = Annotated[str, msgspec.Meta(max_length=200)]


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One source of a receiver. last_received_s: Unix seconds of its last batch, 0 for never."""

    name: Text
    received: Count = 0
    unmatched: Count = 0
    matched: Count = 0
    rejected: Count = 0
    last_received_s: Annotated[float, msgspec.Meta(ge=0, le=1e11)] = 0.0


class ClusterReport(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster that a receiver hears from. last_received_s: Unix seconds of its last batch, 0 for never."""

    name: Text = ""
    last_received_s: Annotated[float, msgspec.Meta(ge=0, le=1e11)] = 0.0


class SinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """One sink of a receiver: eligible = delivered + waiting + dead."""

    name: Text
    eligible: Count = 0
    delivered: Count = 0
    waiting: Count = 0
    dead: Count = 0
    oldest_waiting_s: Annotated[float, msgspec.Meta(ge=0, le=1e11)] = 0.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver says of itself, every 15 s or so. receiver: its name, the same after a restart.

    uptime_s: since it was started. events: by new, update, duplicate, expired; since its start, as `received` and the like are.
    """

    receiver: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    version: Annotated[str, msgspec.Meta(max_length=50)] = ""
    uptime_s: Annotated[float, msgspec.Meta(ge=0, le=1e11)] = 0.0
    rules: Count = 0
    sources: Annotated[list[SourceReport], msgspec.Meta(max_length=64)] = []
    clusters: Annotated[list[ClusterReport], msgspec.Meta(max_length=256)] = []
    sinks: Annotated[list[SinkReport], msgspec.Meta(max_length=64)] = []
    events: Annotated[dict[Text, Count], msgspec.Meta(max_length=16)] = {}
    dead_letters: Count = 0
    outbox_bytes: Count = 0


class ReceiverState(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver. late: its reports have stopped coming."""

    name: str
    version: str
    first_us: int
    reported_us: int
    late: bool
    report: Report


class ClusterState(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster. last_event_us: its latest friction event; last_received_us: its latest audit line, as receivers tell;
    0 for never. silent: an alarm, `why` in words.
    """

    name: str
    events: int
    last_event_us: int
    last_received_us: int
    receivers: list[str]
    silent: bool
    why: str


class Receivers:
    """The receivers of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, report: Report, now_us: int) -> None:
        """Keep a receiver's latest report; one that was not heard of for FORGET_US is forgotten."""
        row = {
            "name": report.receiver,
            "version": report.version,
            "first_us": now_us,
            "reported_us": now_us,
            "report": msgspec.to_builtins(report),
        }
        with self._database.writing() as connection:
            statement = insert(connection, receivers)
            new = {name: statement.excluded[name] for name in ("version", "reported_us", "report")}
            connection.execute(statement.on_conflict_do_update(index_elements=[receivers.c.name], set_=new), row)
            connection.execute(sa.delete(receivers).where(receivers.c.reported_us < now_us - FORGET_US))

    def reports(self, now_us: int) -> list[ReceiverState]:
        """Every receiver that is remembered, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(receivers).order_by(receivers.c.name).limit(MAX_RECEIVERS)).all()
        return [
            ReceiverState(
                name=row.name,
                version=row.version,
                first_us=row.first_us,
                reported_us=row.reported_us,
                late=now_us - row.reported_us > LATE_US,
                report=msgspec.convert(row.report, Report),
            )
            for row in rows
        ]

    def clusters(self, now_us: int) -> list[ClusterState]:
        """Every cluster that an event came from or a receiver reports of, by name."""
        with self._database.reading() as connection:
            query = sa.select(names.c.text, names.c["count"], names.c.last_us).where(
                names.c.kind == int(NameKind.CLUSTER)
            )
            known: dict[str, Any] = {row[0]: row for row in connection.execute(query)}
        by_cluster: dict[str, list[tuple[ReceiverState, ClusterReport]]] = {}
        for receiver in self.reports(now_us):
            for cluster in receiver.report.clusters:
                by_cluster.setdefault(cluster.name, []).append((receiver, cluster))
        return [
            _cluster(name, known.get(name), by_cluster.get(name, []), now_us) for name in sorted({*known, *by_cluster})
        ]


def _cluster(name: str, row: Any, reports: list[tuple[ReceiverState, ClusterReport]], now_us: int) -> ClusterState:
    last_us = int(max((cluster.last_received_s for _, cluster in reports), default=0.0) * 1_000_000)
    longest_us = int(max((receiver.report.uptime_s for receiver, _ in reports), default=0.0) * 1_000_000)
    why = ""
    if reports and all(receiver.late for receiver, _ in reports):
        why = "no receiver of this cluster reports any more"
    elif reports and last_us and now_us - last_us > SILENT_US:
        why = "no audit line has come from it"
    elif reports and not last_us and longest_us > SILENT_US:
        why = "no audit line has come from it since its receiver was started"
    return ClusterState(
        name=name,
        events=int(row[1]) if row else 0,
        last_event_us=int(row[2]) if row else 0,
        last_received_us=last_us,
        receivers=sorted({receiver.name for receiver, _ in reports}),
        silent=bool(why),
        why=why,
    )
