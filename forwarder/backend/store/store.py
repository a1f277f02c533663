"""The store: all that the backend keeps, room by room. SQLite by default, PostgreSQL by URL, the same calls for both.

Once means one row per id. A higher revision replaces the row's content, an equal or lower one changes nothing, so that
the order and the number of deliveries do not matter. Every call is one transaction and may come from any thread;
what fails is an `sqlalchemy.exc.SQLAlchemyError`, and then nothing of the call was kept.

    events      read them: page by page, by id, open sessions       scores     list, explain, history
    people      actors, rules, services, objects                    charts     heatmap, calendar
    search      across everything                                   triage     what is expected
    settings    of the score                                        receivers  their ledgers, silent clusters
"""

import logging
from collections.abc import Sequence

import sqlalchemy as sa

from forwarder.backend.database import Database, open_database
from forwarder.backend.intake import NewEvent
from forwarder.backend.store import rebuild, reset
from forwarder.backend.store.charts import Charts
from forwarder.backend.store.events import Events, StoredEvent
from forwarder.backend.store.names import Names
from forwarder.backend.store.people import People
from forwarder.backend.store.receivers import Receivers
from forwarder.backend.store.rolling import roll, roll_is_due
from forwarder.backend.store.scores import Scores
from forwarder.backend.store.search import Search
from forwarder.backend.store.settings import ScoreSettings
from forwarder.backend.store.state import read_state
from forwarder.backend.store.triage import Triage
from forwarder.backend.store.views import DAY_US
from forwarder.backend.store.writing import Result, Writing

log = logging.getLogger(__name__)


class Store:
    """The events of all clusters, and what is known of them."""

    def __init__(self, engine: sa.Engine) -> None:
        self.database = Database(engine)
        self._names = Names()
        self._writing = Writing(self.database, self._names)
        self.events = Events(self.database)
        self.people = People(self.database)
        self.charts = Charts(self.database)
        self.settings = ScoreSettings(self.database)
        self.scores = Scores(self.database, self.settings)
        self.triage = Triage(self.database, self._names)
        self.receivers = Receivers(self.database)
        self.search = Search(self.people, self.events)

    @classmethod
    def open(cls, database: str) -> "Store":
        """The store in `database` (a path or a URL), created or migrated, its sums made where they are missing.

        Raises ConfigError.
        """
        store = cls(open_database(database))
        store.build()
        return store

    def close(self) -> None:
        """Wait for the write that is under way, end a purge after its step, release the connections."""
        self.database.close()

    def record(self, batch: Sequence[NewEvent], now_us: int) -> list[Result]:
        """Store `batch`, all of it or nothing; one result per event, in order, as if they had come one by one."""
        return self._writing.record(batch, now_us)

    def purge(self, before_us: int, now_us: int) -> int:
        """Delete the events that happened before `before_us`, and what they added to the sums; returns how many."""
        return self._writing.purge(before_us, now_us)

    def maintain(self, now_us: int) -> int:
        """What is to be done every few seconds: keep the running scores in their window, let marks lapse, delete what is
        older than the retention; returns how many events were deleted.
        """
        self.settings.start_with(self.settings.base, now_us)  # another process may have changed them
        with self.database.reading() as connection:
            due = roll_is_due(connection, read_state(connection), now_us)
        if due:
            with self.database.writing() as connection:
                roll(connection, read_state(connection), now_us)
        oldest_us = now_us - self.settings.retention_days() * DAY_US
        deleted = self.purge(oldest_us, now_us)
        self.triage.lapse(now_us, oldest_us)
        return deleted

    def rebuild_step(self, now_us: int) -> bool:
        """Work a little of a new half-life into the buckets; False when there is nothing left to do."""
        return rebuild.step(self.database, now_us)

    def build(self) -> None:
        """Make the sums of events that were stored before there were sums."""
        rebuild.build(self.database, self._names)

    def empty(self) -> int:
        """Delete every event and what was made of it; settings and keys stay. How many events there were."""
        return reset.empty(self.database)

    # --- in short ----------------------------------------------------------------------------------------------------

    def latest(
        self, limit: int, *, entity_ref: str | None = None, since_us: int | None = None, include_tests: bool = False
    ) -> list[StoredEvent]:
        """See Events.latest."""
        return self.events.latest(limit, entity_ref=entity_ref, since_us=since_us, include_tests=include_tests)

    def find(self, event_id: str) -> StoredEvent | None:
        """See Events.find."""
        return self.events.find(event_id)

    def known(self, ids: Sequence[str]) -> set[str]:
        """See Events.known."""
        return self.events.known(ids)

    def suppressed(self, event: NewEvent) -> bool:
        """Whether a mark that is in force covers an event like this one: then nobody is to be told about it."""
        return self.triage.suppressed(
            actor=event.actor, rule=event.type, entity_ref=event.entity_ref, occurred_us=event.occurred_us
        )

    def count(self, *, include_tests: bool = False) -> int:
        """See Events.count."""
        return self.events.count(include_tests=include_tests)
