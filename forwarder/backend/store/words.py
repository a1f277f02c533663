"""Text search: which events hold all the given words. FTS5 in SQLite, tsvector in PostgreSQL.

A word is found as a whole, in any case; one with punctuation (`payments-api`, `10.0.0.7`) as the sequence of its parts.
"""

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import events

MAX_WORDS = 16  # more is a document, not a search
CANDIDATES = 400  # rows fetched at once
BUDGET_S = 0.002  # after that long a page ends where it is, and says how to go on
WORD_S = 0.0005  # to see how rare one word is
LOOKED_AT = 150  # events, one by one, where the index finds nothing in time
STEPS = 100  # of SQLite's machine between two looks at the clock; FTS5 makes a few for every page of its index
TOKENIZER = "unicode61 remove_diacritics 2"  # that of the index, as the migration made it

_PUNCTUATION = re.compile(
    r"[^\w]|_"
)  # what the migration takes out of PostgreSQL's documents: it would make one word of a path


# What a search looks through. In SQLite the index holds words alone, so an entry is taken out by the very text that it was
# made of: a change here needs a migration that makes the index anew.
_DOCUMENT = " || ' ' || ".join(
    ["entity_ref", "cluster", "type", "actor", "description"]
    + [
        f"coalesce(json_extract(details, '$.{name}'), '')"
        for name in ("command", "name", "acting_as", "via", "node", "source_ips")
    ]
)
SEARCHED = ("entity_ref", "cluster", "type", "actor", "description", "details")  # the columns that it is made of


def add_words(connection: sa.Connection, which: str, values: Mapping[str, int]) -> None:
    """Make events found by their words; `which`: a condition on events. PostgreSQL does that by itself.

    No trigger: within one, FTS5 would write its index to disk after each row.
    """
    if connection.dialect.name == "sqlite":
        text = f"INSERT INTO search (rowid, document) SELECT seq, {_DOCUMENT} FROM events WHERE {which}"  # noqa: S608
        connection.execute(sa.text(text), values)


def drop_words(connection: sa.Connection, seqs: Sequence[int]) -> None:
    """Take events out of the index, before they are changed or deleted."""
    if connection.dialect.name == "sqlite" and seqs:
        text = (
            f"INSERT INTO search (search, rowid, document) SELECT 'delete', seq, {_DOCUMENT} FROM events WHERE seq = :s"  # noqa: S608
        )
        connection.execute(sa.text(text), [{"s": seq} for seq in seqs])


class WordSearch:
    """Finds events by words."""

    def __init__(self, database: Database) -> None:
        self._sqlite = database.sqlite

    def candidates(
        self, connection: sa.Connection, text: str, before: int, *, first: int = CANDIDATES
    ) -> Iterator[tuple[list[int], int]]:
        """Parts of the answer, latest arrival first: (seqs below `before`, how far down it looked; 0 at the end).

        first: how many the first part may hold.
        """
        words = text.replace("\0", " ").split()[:MAX_WORDS]
        last = connection.execute(sa.select(sa.func.max(events.c.seq))).scalar()
        if not words or last is None:
            yield [], 0
            return
        deadline = time.monotonic() + BUDGET_S
        before = min(before, last + 1)
        wanted = min(first, CANDIDATES)
        part = _in_index if self._sqlite else _in_documents
        while before > 0:
            seqs, before = part(connection, words, before, wanted, deadline)
            wanted = CANDIDATES
            yield seqs, before
            if time.monotonic() > deadline:
                return


Part = tuple[list[int], int]  # seqs, and how far down they are all


def _in_documents(connection: sa.Connection, words: list[str], before: int, limit: int, _deadline: float) -> Part:
    """PostgreSQL."""
    document: Any = sa.literal_column("document")
    query = sa.select(events.c.seq).where(events.c.seq < before)
    for word in (_PUNCTUATION.sub(" ", word) for word in words):
        query = query.where(document.op("@@")(sa.func.phraseto_tsquery(sa.literal_column("'simple'::regconfig"), word)))
    seqs = list(connection.execute(query.order_by(events.c.seq.desc()).limit(limit)).scalars())
    return seqs, seqs[-1] if len(seqs) == limit else 0


def _in_index(connection: sa.Connection, words: list[str], before: int, limit: int, deadline: float) -> Part:
    """SQLite. FTS5 goes through its index until it finds a match, however far that is: seconds, where two frequent words
    never meet. So it is stopped in time. What it had found then is an answer, down to the last of it; where it had found
    nothing, some of the events with the rarest word are looked at one by one, so that the next page begins further down.
    """
    phrases = ['"' + word.replace('"', '""') + '"' for word in words]
    seqs, ended = _matches(connection, " ".join(phrases), before, limit, deadline)
    if ended:
        return seqs, seqs[-1] if len(seqs) == limit else 0
    if seqs:
        return seqs, seqs[-1]
    looked_at, reached = _of_the_rarest(connection, phrases, before)
    numbers = ", ".join(map(str, looked_at)) or "NULL"
    # A table of this transaction: gone with it.
    connection.exec_driver_sql(f"CREATE VIRTUAL TABLE temp.looked_at USING fts5(document, tokenize='{TOKENIZER}')")
    connection.exec_driver_sql(
        f"INSERT INTO temp.looked_at (rowid, document) SELECT seq, {_DOCUMENT} FROM events WHERE seq IN ({numbers})"  # noqa: S608
    )
    query = "SELECT rowid FROM temp.looked_at WHERE looked_at MATCH ? ORDER BY rowid DESC"
    seqs = list(connection.exec_driver_sql(query, (" ".join(phrases),)).scalars())
    connection.exec_driver_sql("DROP TABLE temp.looked_at")
    return seqs, reached


def _of_the_rarest(connection: sa.Connection, phrases: list[str], before: int) -> Part:
    """The LOOKED_AT latest events below `before` that hold the word which fewest events hold."""
    query = sa.select(events.c.seq).where(events.c.seq < before).order_by(events.c.seq.desc()).limit(LOOKED_AT)
    seqs = list(connection.execute(query).scalars())
    reached = seqs[-1] if len(seqs) == LOOKED_AT else 0
    if len(phrases) == 1:
        return seqs, reached
    for phrase in phrases:
        found, ended = _matches(connection, phrase, before, LOOKED_AT, time.monotonic() + WORD_S)
        if ended and len(found) < LOOKED_AT:
            return found, 0
        if found and found[-1] < reached:
            seqs, reached = found, found[-1]
    return seqs, reached


def _matches(
    connection: sa.Connection, phrases: str, before: int, limit: int, deadline: float
) -> tuple[list[int], bool]:
    """The latest events below `before` that FTS5 finds until `deadline`, and whether it came to an end."""
    driver: Any = connection.connection.driver_connection
    seqs: list[int] = []
    query = "SELECT rowid FROM search WHERE search MATCH ? AND rowid < ? ORDER BY rowid DESC LIMIT ?"
    driver.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
    try:
        for row in driver.execute(query, (phrases, before, limit)):
            seqs.append(row[0])  # noqa: PERF401 - what was found before it was stopped stays
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return seqs, False
    finally:
        driver.set_progress_handler(None, 0)
    return seqs, True
