"""What could not go on, kept so that a person can see why and, where it helps, send it again.

Two kinds: `record`, a line that nobody could read, and `delivery`, an event that one sink did not take. Both are
bounded by number and bytes together; the oldest go first, which is counted and logged.
"""

import hashlib
from collections.abc import Sequence

from forwarder.contracts import DeadLetter
from forwarder.outbox.books import Books

MAX_DEAD_LETTERS = 10_000  # more than a person reads; a fault that makes more of them makes them all alike
MAX_DEAD_BYTES = 64 << 20  # raw lines may be kept, up to 8 MiB each
MAX_DEAD_SHARE = 8  # and never more than 1/8 of the outbox's own limit
MAX_REASON_CHARS = 300
MAX_HEAD_CHARS = 1_000

BACKLOG_FULL = "backlog_full"
SINK_REMOVED = "sink_removed"
OVERTAKEN = "put off again and again while others went out"


def add_records(books: Books, letters: Sequence[DeadLetter]) -> None:
    """Keep lines that were rejected."""
    evicted(books, max(0, len(letters) - MAX_DEAD_LETTERS))
    for letter in letters[-MAX_DEAD_LETTERS:]:
        reason, head = _plain(letter.reason, MAX_REASON_CHARS), _plain(letter.head, MAX_HEAD_CHARS)
        payload = letter.payload
        if payload is not None and len(payload) > MAX_DEAD_BYTES // 4:
            payload = None  # one giant must not push out everything else; size and digest still tell which it was
        cost = len(reason) + len(head) + len(payload or b"") + 200
        books.connection.execute(
            "INSERT INTO dead_letters (at, kind, name, reason, size_bytes, offset_bytes, sha256, head, payload,"
            " cost_bytes) VALUES (?, 'record', ?, ?, ?, ?, ?, ?, ?, ?)",
            (books.now, _plain(letter.source, MAX_REASON_CHARS), reason, letter.size_bytes, letter.offset,
             letter.sha256, head, payload, cost),
        )  # fmt: skip
        books.counts["dead_rows"] += 1
        books.counts["dead_bytes"] += cost


def add_delivery(books: Books, sink: str, seq: int, reason: str) -> None:
    """Keep the stored event `seq`, which `sink` is not going to get."""
    event, revision, kind, payload = books.connection.execute(
        "SELECT id, revision, kind, payload FROM events WHERE seq = ?", (seq,)
    ).fetchone()
    reason = _plain(reason, MAX_REASON_CHARS)
    cost = len(reason) + len(payload) + 200
    books.connection.execute(
        "INSERT INTO dead_letters (at, kind, name, reason, size_bytes, offset_bytes, sha256, head, payload, event_id,"
        " seq, event_kind, revision, cost_bytes) VALUES (?, 'delivery', ?, ?, ?, -1, ?, '', ?, ?, ?, ?, ?, ?)",
        (books.now, sink, reason, len(payload), hashlib.sha256(payload).hexdigest(), payload, _uuid(event), seq,
         kind, revision, cost),
    )  # fmt: skip
    books.counts["dead_rows"] += 1
    books.counts["dead_bytes"] += cost


def take_back(books: Books, sink: str, seq: int) -> bool:
    """Forget the dead letter that a full backlog made of this event; False when there is none (any more)."""
    row = books.connection.execute(
        "DELETE FROM dead_letters WHERE kind = 'delivery' AND name = ? AND seq = ? AND reason = ? RETURNING cost_bytes",
        (sink, seq, BACKLOG_FULL),
    ).fetchone()
    if row is None:
        return False
    books.counts["dead_rows"] -= 1
    books.counts["dead_bytes"] -= row[0]
    return True


def evicted(books: Books, letters: int) -> None:
    """Count dead letters that were not kept."""
    books.counts["dead_evicted"] += letters


def enforce_cap(books: Books, *, max_bytes: int) -> None:
    """Drop the oldest until number and bytes are within their caps."""
    rows, size = books.ledger("dead_rows"), books.ledger("dead_bytes")
    cap_bytes = min(MAX_DEAD_BYTES, max_bytes // MAX_DEAD_SHARE)
    if rows <= MAX_DEAD_LETTERS and size <= cap_bytes:
        return
    last = gone = gone_bytes = 0
    for letter_id, cost in books.connection.execute("SELECT id, cost_bytes FROM dead_letters ORDER BY id"):
        last, gone, gone_bytes = letter_id, gone + 1, gone_bytes + cost
        if rows - gone <= MAX_DEAD_LETTERS and size - gone_bytes <= cap_bytes:
            break
    books.connection.execute("DELETE FROM dead_letters WHERE id <= ?", (last,))
    books.counts["dead_rows"] -= gone
    books.counts["dead_bytes"] -= gone_bytes
    evicted(books, gone)


def _plain(text: str, limit: int) -> str:
    """Without control characters (a peer's words reach terminals from here), and of bounded length."""
    return "".join(char if char.isprintable() else " " for char in text[:limit])


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
