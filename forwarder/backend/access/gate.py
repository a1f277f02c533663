"""The gate: one table says which right a request needs, so that a route added tomorrow is closed until somebody opens it.

    /health, /static/, /sign-in        nothing
    POST /events, /api/v1/reports      write
    every other GET                    read
    everything else                    change

Answers 401 to a wrong key, 403 to one without the right, 429 with Retry-After to one that asks too often. A browser is
led to the sign-in page instead, and sees every other refusal as a page. Stands inside CORS, so that a refusal can be read
by the page that caused it.
"""

import logging
from urllib.parse import quote

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forwarder.backend.access.keys import Right
from forwarder.backend.access.limits import Limits
from forwarder.backend.access.origins import from_our_page, host_is_this_machine
from forwarder.backend.access.visitors import Access, Visitor
from forwarder.backend.database import cause
from forwarder.backend.guard import Shown
from forwarder.backend.settings import BackendSettings

log = logging.getLogger(__name__)

SAFE = ("GET", "HEAD")
STORE_RETRY_S = 5

_OPEN = ("/health", "/sign-in", "/sign-out", "/favicon.ico")
_WRITES = ("/events", "/api/v1/reports")  # what a receiver sends
_CARDS = ("/embed/", "/badge/")
_WORDS: dict[Right, str] = {"write": "write events", "read": "read", "change": "change anything"}


def needed_right(method: str, path: str, *, open_cards: bool = False) -> Right | None:
    """The right that a request needs; None where it needs none."""
    if path in _OPEN or path.startswith("/static/"):
        return None
    if method in SAFE:
        return None if open_cards and path.startswith(_CARDS) else "read"
    return "write" if path in _WRITES else "change"


class Gate:
    """ASGI middleware. Puts the Visitor into the request's state as `visitor`."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        settings: BackendSettings,
        shown: Shown = lambda _, refusal: refusal,
    ) -> None:
        self._app = app
        self._shown = shown
        self._access = access
        self._limits = Limits(settings.rate_limit_per_minute)
        self._open_cards = settings.anonymous_cards
        # Behind a proxy, or where strangers may read anyway, other names than this machine's are to be expected.
        self._check_host = access.local and not settings.trusted_proxies and settings.anonymous_reads is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            visitor = await self._access.visitor(headers, (scope.get("client") or ("",))[0])
        except SQLAlchemyError as error:
            log.error("the database failed, so nobody's key can be checked: %s", cause(error))
            refusal: Response | None = _refuse(503, "the database is not available; try again", STORE_RETRY_S)
        else:
            scope.setdefault("state", {})["visitor"] = visitor or Visitor()
            refusal = self._refusal(scope, headers, visitor)
        if refusal is not None:
            await self._shown(scope, refusal)(scope, receive, send)
            return
        await self._app(scope, receive, self._while_let_in(visitor, send))

    def _while_let_in(self, visitor: Visitor | None, send: Send) -> Send:
        """Send, but end an answer that goes on (a live feed, an export) when its visitor's key or session is over."""
        if visitor is None or visitor.anonymous:
            return send

        async def send_checked(message: Message) -> None:
            if message.get("more_body") and not await self._access.still(visitor):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                raise ClientDisconnect
            await send(message)

        return send_checked

    def _refusal(self, scope: Scope, headers: Headers, visitor: Visitor | None) -> Response | None:
        method, path = scope["method"], scope["path"]
        right = needed_right(method, path, open_cards=self._open_cards)
        if method not in SAFE and not self._may_change(scope, headers, visitor):
            return _refuse(403, "this came from a page elsewhere, not from a page of this backend")
        if right is None:
            return None
        if visitor is None:
            return _refuse(401, "missing or wrong API key")
        if visitor.anonymous and self._check_host and not host_is_this_machine(headers.get("host", "")):
            return _refuse(
                421, "without a key this backend answers to localhost only; set trusted_proxies or use a key"
            )
        wait_s = self._limits.take(visitor.bucket)
        if wait_s:
            return _refuse(429, "too many requests", wait_s)
        if right in visitor.rights:
            return None
        if "text/html" in headers.get("accept", ""):
            return _to_sign_in(scope, headers, right)
        if visitor.anonymous:
            return _refuse(401, "missing or wrong API key")
        return _refuse(403, f"the key {visitor.name} may not {_WORDS[right]}")

    def _may_change(self, scope: Scope, headers: Headers, visitor: Visitor | None) -> bool:
        if visitor is not None and not visitor.anonymous and not visitor.by_cookie:
            return True  # no page knows the key of a stranger
        return from_our_page(headers, scope["scheme"], with_cookie=visitor is not None and visitor.by_cookie)


def _refuse(status: int, detail: str, retry_after_s: int = 0) -> Response:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode({"detail": detail}), status, headers, media_type="application/json")


def _to_sign_in(scope: Scope, headers: Headers, right: Right) -> Response:
    """To the form, and from there back to where the visitor wanted to go."""
    query = scope["query_string"].decode("latin-1")
    wanted = scope["path"] + (f"?{query}" if query else "") if scope["method"] in SAFE else "/"
    return RedirectResponse(f"/sign-in?needs={right}&next={quote(wanted, safe='')}", 303)
