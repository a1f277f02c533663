"""Emptying the store: every event and everything that was made of events; settings, keys and marks on patterns stay."""

import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import events, marks, names, pairs, receivers, score_days, scores, tallies


def empty(database: Database) -> int:
    """How many events there were. One transaction."""
    with database.writing() as connection:
        number = connection.execute(sa.select(sa.func.count()).select_from(events)).scalar_one()
        if database.sqlite:
            _empty_sqlite(connection)
        else:
            connection.execute(sa.delete(events))
        for table in (tallies, pairs, scores, score_days, receivers):
            connection.execute(sa.delete(table))
        connection.execute(sa.update(names).values({"count": 0, "last_us": 0}))
        connection.execute(sa.delete(marks).where(marks.c.event_id != ""))
        connection.execute(sa.update(marks).values(hidden=0))
    return int(number)


def _empty_sqlite(connection: sa.Connection) -> None:
    """Without its triggers, which would take each event's words out one by one, the table is emptied at once."""
    find = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'events'"
    triggers = connection.exec_driver_sql(find).all()
    for name, _ in triggers:
        connection.exec_driver_sql(f'DROP TRIGGER "{name}"')
    connection.exec_driver_sql("INSERT INTO search (search) VALUES ('delete-all')")
    connection.execute(sa.delete(events))
    for _, text in triggers:
        connection.exec_driver_sql(text)
