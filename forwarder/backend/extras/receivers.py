"""What receivers report of themselves, and which clusters have gone silent."""

from collections.abc import Callable

import anyio.to_thread
import msgspec
from fastapi import APIRouter, Request, Response

from forwarder.backend.extras.answers import answer, gives, read_body, takes, told
from forwarder.backend.guard import Bodies
from forwarder.backend.store import Store
from forwarder.backend.store.receivers import ClusterState, ReceiverState, Report


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """status: ok."""

    status: str


def router(store: Store, now_us: Callable[[], int], bodies: Bodies) -> APIRouter:
    """/api/v1/reports, receivers, clusters."""
    routes = APIRouter(prefix="/api/v1", tags=["health"])

    @routes.post("/reports", **gives(Taken, also=(408, 413)), openapi_extra=takes(Report))
    async def report(request: Request) -> Response:
        """A receiver's ledger, sent by its backend sink every 15 s. Needs a key that may write events."""
        found = await read_body(request, bodies, Report)
        await anyio.to_thread.run_sync(store.receivers.report, found, now_us())
        return answer({"status": "ok"})

    @routes.get("/receivers", **gives(ReceiverState, many=True))
    def receivers() -> Response:
        """Every receiver with its last ledger."""
        return answer(told(store.receivers.reports(now_us())))

    @routes.get("/clusters", **gives(ClusterState, many=True))
    def clusters() -> Response:
        """Every cluster: its last event, its last audit line, and whether it has gone silent."""
        return answer(told(store.receivers.clusters(now_us())))

    return routes
