"""Text search: which events hold all the given words. FTS5 in SQLite, tsvector in PostgreSQL.

A word is found as a whole, in any case; one with punctuation (`payments-api`, `10.0.0.7`) as the sequence of its parts.
"""

import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from forwarder.backend.database import Database
from forwarder.backend.schema import events

MAX_WORDS = 16  # more is a document, not a search
WINDOW_EVENTS = 500_000  # looked through at once: two frequent words that never meet must not hold a page up
CANDIDATES = 400  # rows fetched at once
BUDGET_S = 0.006  # after that long a page ends where it is, and says how to go on

_search = sa.table("search", sa.column("rowid", sa.BigInteger), sa.column("search", sa.Text))


class WordSearch:
    """Finds events by words."""

    def __init__(self, database: Database) -> None:
        self._sqlite = database.sqlite

    def candidates(self, connection: sa.Connection, text: str, before: int) -> Iterator[tuple[list[int], int]]:
        """Parts of the answer, latest arrival first: (seqs below `before`, how far down it looked; 0 at the end)."""
        words = text.replace("\0", " ").split()[:MAX_WORDS]
        last = connection.execute(sa.select(sa.func.max(events.c.seq))).scalar()
        if not words or last is None:
            yield [], 0
            return
        deadline = time.monotonic() + BUDGET_S
        before = min(before, last + 1)
        while before > 0:
            floor = max(0, before - WINDOW_EVENTS) if self._sqlite else 0
            seqs: list[int] = list(connection.execute(self._query(words, floor, before)).scalars())
            before = seqs[-1] if len(seqs) == CANDIDATES else floor
            yield seqs, before
            if time.monotonic() > deadline:
                return

    def _query(self, words: list[str], floor: int, before: int) -> sa.Select[Any]:
        if self._sqlite:
            phrases = " ".join('"' + word.replace('"', '""') + '"' for word in words)
            query: sa.Select[Any] = sa.select(_search.c.rowid).where(
                _search.c.search.op("MATCH")(phrases), _search.c.rowid >= floor, _search.c.rowid < before
            )
            return query.order_by(_search.c.rowid.desc()).limit(CANDIDATES)
        document: Any = sa.literal_column("document")
        query = sa.select(events.c.seq).where(events.c.seq < before)
        for word in words:
            query = query.where(
                document.op("@@")(sa.func.phraseto_tsquery(sa.literal_column("'simple'::regconfig"), word))
            )
        return query.order_by(events.c.seq.desc()).limit(CANDIDATES)
