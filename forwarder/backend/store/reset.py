"""Emptying the store: every event and everything that was made of events; settings, keys and marks on patterns stay."""

import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import events, marks, names, pairs, receivers, score_days, scores, tallies


def empty(database: Database) -> int:
    """How many events there were. One transaction."""
    with database.writing() as connection:
        number = connection.execute(sa.select(sa.func.count()).select_from(events)).scalar_one()
        if database.sqlite:
            connection.exec_driver_sql("INSERT INTO search (search) VALUES ('delete-all')")
        connection.execute(sa.delete(events))
        for table in (tallies, pairs, scores, score_days, receivers):
            connection.execute(sa.delete(table))
        connection.execute(sa.update(names).values({"count": 0, "last_us": 0}))
        connection.execute(sa.delete(marks).where(marks.c.event_id != ""))
        connection.execute(sa.update(marks).values(hidden=0))
    return int(number)
