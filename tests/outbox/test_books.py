"""The counters of one transaction."""

from contextlib import closing

from forwarder.outbox import SinkInfo
from forwarder.outbox.books import Books
from forwarder.outbox.file import attach


def test_what_another_process_wrote_is_simply_there(bench) -> None:
    """Nothing is kept between transactions: each reads the counters anew and writes back what it added."""
    bench.open(SinkInfo("backend"))
    bench.commit(bench.event(1))
    bench.sql("UPDATE sinks SET dead = 7")
    bench.sql("UPDATE ledger SET value = 100 WHERE name = 'detected'")
    bench.commit(bench.event(2))
    with closing(attach(bench.path)) as connection:
        books = Books(connection, [SinkInfo("backend"), SinkInfo("unknown")], bench.clock.now)
        assert list(books.sinks) == ["backend"]
        assert (books.sinks["backend"].eligible, books.sinks["backend"].dead) == (2, 7)
        assert books.sinks["backend"].waiting == -5
        books.counts["detected"] += 1
        assert books.ledger("detected") == 102
        assert books.ledger("never_counted") == 0
