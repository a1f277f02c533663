"""The Healert API as a client sees it: what answers mean, and the words in which something was refused.

GET /health       {"status": "ok", "version": …, "auth": …}, and `capabilities` where it is our backend
POST /events      one event: {"status": "ok"}; a list, our backend only: {"status": "ok", "results": [{"status", "detail"}]}
A refusal is a 4xx with {"detail": text} or FastAPI's {"detail": [{"loc": […], "msg": text}]}.
"""

from typing import TypeVar

import msgspec

from forwarder.wire.http_client import Fault, Reply

T = TypeVar("T")

BATCH_CAPABILITIES = frozenset({"batch", "ids", "updates"})  # lists; each id once; a higher revision completes it
REPORTS_CAPABILITY = "reports"  # it shows what receivers report of themselves
MAX_WORDS_CHARS = 300  # of a peer's reason: a sentence or two
MAX_LISTED_FAULTS = 20


class Health(msgspec.Struct):
    """The answer of GET /health."""

    status: str
    version: str = ""
    auth: str = ""
    capabilities: list[str] = []


class Result(msgspec.Struct):
    """What became of one event of a list: recorded, updated, duplicate or refused."""

    status: str
    detail: str | None = None


class Results(msgspec.Struct):
    """The answer to a list; one result per event, in order."""

    status: str
    results: list[Result]


class Recorded(msgspec.Struct):
    """The answer to a single event."""

    status: str


def answer(reply: Reply | Fault, kind: type[T]) -> T | None:
    """The body of a 200 as `kind`; None for anything else: a proxy's page must not pass for a delivery."""
    if not isinstance(reply, Reply) or reply.status != 200:
        return None
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def words(reply: Reply) -> str:
    """The peer's reason, with its status: `422: entity_ref: String should match pattern …`."""
    try:
        data = msgspec.json.decode(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        data = reply.body[:MAX_WORDS_CHARS].decode("utf-8", "replace")
    if isinstance(data, dict):
        data = data.get("detail") or data.get("message") or data.get("error")
    if isinstance(data, list):
        # Only place and message: `input` beside them quotes the event.
        faults = [fault for fault in data[:MAX_LISTED_FAULTS] if isinstance(fault, dict)]
        data = "; ".join(_place(fault.get("loc")) + str(fault.get("msg") or "refused") for fault in faults)
    text = data if isinstance(data, str) and data.strip() else "no reason given"
    return plain(f"{reply.status}: {text}")


def plain(text: str, limit: int = MAX_WORDS_CHARS) -> str:
    """Cut, and without control characters: a peer's words end up on terminals."""
    return "".join(char if char.isprintable() else " " for char in text[:limit])


def _place(loc: object) -> str:
    steps = [str(step) for step in loc if step != "body"] if isinstance(loc, list) else []
    return ".".join(steps) + ": " if steps else ""
