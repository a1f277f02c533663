"""The list of pages."""

from fastapi import APIRouter
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from forwarder.backend.dashboard import actors, cards, home, rules, search, service, sign_in, status, tables, triage
from forwarder.backend.dashboard.desk import STATIC, Desk

PAGES = (home, service, search, actors, rules, tables, triage, status, sign_in, cards)


def dashboard(desk: Desk) -> APIRouter:
    """Every page, its style sheet and its scripts."""
    routes = APIRouter()
    for page in PAGES:
        routes.include_router(page.router(desk))
    return routes


class Files(StaticFiles):
    """Style sheet, scripts and icon: kept by browsers, and asked for again each time, so that an update is seen."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope):  # type: ignore[no-untyped-def]
        """The file, or 304 where the browser has it."""
        answer = await super().get_response(path, scope)
        answer.headers["Cache-Control"] = "no-cache"
        return answer
