"""What goes wrong, as a page for people; programs keep the JSON, `{"detail": …}`, under the same status.

A browser says `Accept: text/html`; what stands under /api is for programs whoever asks.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from forwarder.backend.access.visitors import Visitor
from forwarder.backend.dashboard.desk import Desk

Handler = Callable[[Request, Exception], Awaitable[Response]]

# Status: title and, where the refusal itself says nothing to a person, a sentence.
WORDS = {
    400: ("That address is not valid", ""),
    404: ("No such page", "There is nothing at this address."),
    405: ("Not by this way", "This address is there, but not to be opened like this."),
    421: ("Not under this name", ""),
    422: ("That address is not valid", ""),
    429: ("Too many requests", "Wait a moment, then load the page again."),
    500: ("Something went wrong", "It is the backend's fault, and its log says where. Load the page again, or go on elsewhere."),
    503: ("Not available at the moment", "Wait a moment, then load the page again."),
}  # fmt: skip
KEPT_HEADERS = ("allow", "retry-after", "www-authenticate")


def wants_page(scope: Scope) -> bool:
    """Whether a person in a browser waits for the answer."""
    accept = b",".join(value for name, value in scope.get("headers", ()) if name == b"accept")
    path: str = scope.get("path", "")
    return b"text/html" in accept and not (path == "/api" or path.startswith("/api/"))


class Problems:
    """Turns refusals into pages. desk: makes them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def shown(self, scope: Scope, refusal: Response) -> Response:
        """`refusal`, or the page that says the same. Reads nothing from the store."""
        if not wants_page(scope) or refusal.media_type != "application/json":
            return refusal
        scope.setdefault("state", {}).setdefault("visitor", Visitor())
        title, sentence = WORDS.get(refusal.status_code, ("That did not work", ""))
        page = self._desk.page(
            Request(scope),
            "message.html",
            status=refusal.status_code,
            title=title,
            message=_sentence(bytes(refusal.body), refusal.status_code) or sentence,
        )
        for name in KEPT_HEADERS:
            if name in refusal.headers:
                page.headers[name] = refusal.headers[name]
        return page

    def handler(self, handle: Handler) -> Handler:
        """An exception handler that answers a browser with a page, everybody else as `handle` does."""

        async def shown(request: Request, error: Exception) -> Response:
            return self.shown(request.scope, await handle(request, error))

        return shown


def _sentence(body: bytes, status: int) -> str:
    """What a refusal says, as a sentence; "" where it is only the name of its status."""
    detail: Any = msgspec.json.decode(body).get("detail", "")
    if isinstance(detail, list):
        return "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in detail) + "."  # names are not capitalised
    if status == HTTPStatus.INTERNAL_SERVER_ERROR or detail.casefold() == HTTPStatus(status).phrase.casefold():
        return ""
    return f"{detail[:1].upper()}{detail[1:]}."
