"""The outbox: what was detected and is not yet everywhere it has to be; the one place where an event becomes durable.

`commit` of a batch is durable or nothing of it was kept; only then may its source acknowledge. An event is stored once
per id and revision. Each sink has a cursor of its own over the same append-only rows, so a dead sink delays nobody. All
that is left of an event which cannot go out is a dead letter that says why, until a person retries it.

    outbox = Outbox("outbox.db", [SinkInfo("backend", required=True)], telemetry=telemetry)
    outbox.open()
    outbox.commit(events, dead_letters).result()    # -> CommitResult; raises Overloaded, ShuttingDown
    read_ledger("outbox.db").balanced()             # -> the equations that do not hold; by any process, at any time

How the rooms of this package hang together: `outbox` is the service's face, `writer` its one thread that writes; each
group of jobs is one transaction, whose view of the counters is `books`. `admission` takes events in, `backlog` gives
them out, `deadletters` keeps what failed and `retry` brings it back, `ledger` reads the sums, and `file` knows the
schema, the lock and what SQLite's errors mean.
"""

from forwarder.outbox.admission import CommitResult
from forwarder.outbox.books import SinkInfo
from forwarder.outbox.ledger import Ledger, SinkLedger, read_ledger, show
from forwarder.outbox.outbox import Outbox
from forwarder.outbox.retry import RetryResult, StoredDeadLetter, dead_letter, dead_letters, forget_dead, retry_dead

__all__ = [
    "CommitResult",
    "Ledger",
    "Outbox",
    "RetryResult",
    "SinkInfo",
    "SinkLedger",
    "StoredDeadLetter",
    "dead_letter",
    "dead_letters",
    "forget_dead",
    "read_ledger",
    "retry_dead",
    "show",
]
