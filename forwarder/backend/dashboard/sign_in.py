"""Signing in with a key, and out."""

import anyio.to_thread
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import Request
from starlette.responses import Response

from forwarder.backend.access.limits import Limits
from forwarder.backend.access.visitors import COOKIE, SECURE_COOKIE, session_cookie, visitor
from forwarder.backend.dashboard.desk import Desk
from forwarder.backend.dashboard.forms import own_path, read_form

TRIES_PER_MINUTE = 10  # of one address: a key of 256 bits cannot be guessed, one that somebody made up perhaps
MAX_KEY_CHARS = 1000


def router(desk: Desk) -> APIRouter:
    """`GET` and `POST /sign-in`, `POST /sign-out`."""
    routes = APIRouter(include_in_schema=False)
    tries = Limits(TRIES_PER_MINUTE)

    @routes.get("/sign-in", response_class=HTMLResponse)
    def form(request: Request) -> HTMLResponse:
        return _form(desk, request, own_path(request.query_params.get("next", "/")))

    @routes.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        wait_s = tries.take(request.client.host if request.client else "")
        if wait_s:
            slow = _form(desk, request, "/", problem=f"Too many tries. Come back in {wait_s} s.", status=429)
            slow.headers["Retry-After"] = str(wait_s)
            return slow
        fields = await read_form(request)
        wanted = own_path(fields.get("next", "/"))
        key = fields.get("key", "").strip()[:MAX_KEY_CHARS]
        cookie = await anyio.to_thread.run_sync(desk.access.sign_in, key) if key else None
        if cookie is None:
            return _form(desk, request, wanted, problem="That key is not in force.", status=401)
        answer = RedirectResponse(wanted, 303)
        secure = request.url.scheme == "https"
        # Lax, not Strict: a link in a chat must find its reader signed in. It gives nothing away, because whatever
        # changes something has to come from a page of ours (access/origins.py).
        answer.set_cookie(
            SECURE_COOKIE if secure else COOKIE,
            cookie,
            max_age=int(desk.settings.session_hours * 3600),
            httponly=True,
            secure=secure,
            samesite="lax",
            path="/",
        )
        return answer

    @routes.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        cookie = session_cookie(request.headers)
        if cookie:
            await anyio.to_thread.run_sync(desk.access.sessions.close, cookie)
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE, path="/")
        answer.delete_cookie(SECURE_COOKIE, path="/", secure=True)
        return answer

    return routes


def _form(desk: Desk, request: Request, wanted: str, *, problem: str = "", status: int = 200) -> HTMLResponse:
    needs = request.query_params.get("needs", "")
    return desk.page(
        request,
        "sign_in.html",
        status=status,
        wanted=wanted,
        problem=problem,
        needs=needs if needs in ("read", "change") else "",
        who=visitor(request).name,
    )
