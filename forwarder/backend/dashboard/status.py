"""Status: is everything that should come in coming in, and has it arrived."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.requests import Request

from forwarder.backend.dashboard.desk import Desk


def router(desk: Desk) -> APIRouter:
    """`GET /status`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/status", response_class=HTMLResponse)
    @desk.store.database.one_moment()
    def status(request: Request) -> HTMLResponse:
        return desk.page(request, "status.html", here="/status", status=200, state=gather(desk))

    return routes


def gather(desk: Desk) -> dict[str, Any]:
    """Receivers with their ledgers, clusters with their silence, and how the score is set."""
    now_us = desk.now_us()
    receivers = desk.store.receivers.reports(now_us)
    clusters = desk.store.receivers.clusters(now_us)
    return {
        "receivers": receivers,
        "clusters": clusters,
        "silent": [cluster for cluster in clusters if cluster.silent],
        "late": [receiver for receiver in receivers if receiver.late],
        "settings": desk.store.settings.all(),
    }
