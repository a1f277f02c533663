"""Everything that a filter finds, as a file: NDJSON for programs, CSV for spreadsheets. Sent while it is read."""

import csv
import io
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from forwarder.backend.extras.answers import refusals
from forwarder.backend.extras.events import Filter, full_event
from forwarder.backend.store import Store
from forwarder.backend.store.events import EventFilter

COLUMNS = (
    "timestamp", "entity_ref", "type", "severity", "points", "actor", "acting_as", "via", "outcome", "response_code",
    "duration_s", "cluster", "namespace", "verb", "resource", "subresource", "name", "container", "command", "workflow",
    "description", "source_ips", "user_agent", "id", "audit_id", "mark", "recorded_at",
)  # fmt: skip


def router(store: Store) -> APIRouter:
    """/api/v1/export."""
    routes = APIRouter(prefix="/api/v1", tags=["events"])
    content: dict[str, Any] = {
        "application/x-ndjson": {"schema": {"type": "string"}},
        "text/csv": {"schema": {"type": "string"}},
    }

    @routes.get(
        "/export",
        response_class=StreamingResponse,
        responses={200: {"description": "OK", "content": content}, **refusals(422)},
    )
    def export(where: Filter, format: Literal["ndjson", "csv"] = "ndjson") -> StreamingResponse:  # noqa: A002
        """All events of the filter, latest first."""
        parts, kind = (
            (_ndjson(store, where), "application/x-ndjson")
            if format == "ndjson"
            else (_csv(store, where), "text/csv; charset=utf-8")
        )
        headers = {"Content-Disposition": f'attachment; filename="friction-events.{format}"'}
        return StreamingResponse(parts, media_type=kind, headers=headers)

    return routes


def _ndjson(store: Store, where: EventFilter) -> Iterator[bytes]:
    for events in store.events.every(where):
        yield b"".join(msgspec.json.encode(full_event(event)) + b"\n" for event in events)


def _csv(store: Store, where: EventFilter) -> Iterator[bytes]:
    yield (",".join(COLUMNS) + "\r\n").encode()
    for events in store.events.every(where):
        text = io.StringIO()
        writer = csv.writer(text)
        for event in events:
            told = full_event(event)
            writer.writerow([cell(told.get(name, "")) for name in COLUMNS])
        yield text.getvalue().encode()


def cell(value: Any) -> str:
    """A value as a spreadsheet may show it: never as a formula, which it would run (`=HYPERLINK(…)` in a pod's name)."""
    if value is None:
        return ""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return (
        f"'{text}"
        if text[:1] in ("=", "+", "-", "@", "\t", "\r") or text.lstrip()[:1] in ("=", "+", "-", "@")
        else text
    )
