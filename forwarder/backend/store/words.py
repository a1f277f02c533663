"""Text search: which events hold all the given words. FTS5 in SQLite, tsvector in PostgreSQL.

A word is found as a whole, in any case; one with punctuation (`payments-api`, `10.0.0.7`) as the sequence of its parts.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import events

MAX_WORDS = 16  # more is a document, not a search
FIRST_WINDOW_EVENTS = 50_000  # looked through at once: two frequent words that never meet must not hold a page up
LAST_WINDOW_EVENTS = 2_000_000  # each window is twice the one before, so that a rare word takes few of them
CANDIDATES = 400  # rows fetched at once
BUDGET_S = 0.004  # after that long a page ends where it is, and says how to go on

_PUNCTUATION = re.compile(
    r"[^\w]|_"
)  # what the migration takes out of PostgreSQL's documents: it would make one word of a path

_search = sa.table("search", sa.column("rowid", sa.BigInteger), sa.column("search", sa.Text))


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
        wanted, window = min(first, CANDIDATES), FIRST_WINDOW_EVENTS
        while before > 0:
            floor = max(0, before - window) if self._sqlite else 0
            seqs: list[int] = list(connection.execute(self._query(words, floor, before, wanted)).scalars())
            before = seqs[-1] if len(seqs) == wanted else floor
            wanted, window = CANDIDATES, min(2 * window, LAST_WINDOW_EVENTS)
            yield seqs, before
            if time.monotonic() > deadline:
                return

    def _query(self, words: list[str], floor: int, before: int, limit: int) -> sa.Select[Any]:
        if self._sqlite:
            phrases = " ".join('"' + word.replace('"', '""') + '"' for word in words)
            query: sa.Select[Any] = sa.select(_search.c.rowid).where(
                _search.c.search.op("MATCH")(phrases), _search.c.rowid >= floor, _search.c.rowid < before
            )
            return query.order_by(_search.c.rowid.desc()).limit(limit)
        document: Any = sa.literal_column("document")
        query = sa.select(events.c.seq).where(events.c.seq < before)
        for word in (_PUNCTUATION.sub(" ", word) for word in words):
            query = query.where(
                document.op("@@")(sa.func.phraseto_tsquery(sa.literal_column("'simple'::regconfig"), word))
            )
        return query.order_by(events.c.seq.desc()).limit(limit)
