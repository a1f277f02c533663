"""The settings of score and retention by call. They hold at once; a new half-life as soon as the buckets are made for it."""

from collections.abc import Callable
from typing import Annotated, Literal

import anyio.to_thread
import msgspec
from fastapi import APIRouter, Request, Response

from forwarder.backend.extras.answers import answer, author_of, gives, read_body, refuse, takes, told
from forwarder.backend.guard import Bodies
from forwarder.backend.intake import refusal
from forwarder.backend.scoring import MAX_DAYS
from forwarder.backend.store import Store
from forwarder.backend.store.settings import NAMES, PRESETS, Setting

Days = Annotated[int, msgspec.Meta(ge=1, le=MAX_DAYS)]


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to set; the rest stays. preset: threshold and half-life at once, single values win over it.

    author: only where no key is in force; else it is the name of the key. reset: first of all back to what the backend was
    started with.
    """

    author: Annotated[str, msgspec.Meta(max_length=200)] = ""
    reset: bool = False
    preset: Literal["strict", "default", "lenient"] | None = None
    threshold: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    half_life_days: Annotated[float, msgspec.Meta(ge=0.01, le=MAX_DAYS)] | None = None
    score_retention_days: Days | None = None
    retention_days: Days | None = None


def router(store: Store, now_us: Callable[[], int], bodies: Bodies) -> APIRouter:
    """/api/v1/settings."""
    routes = APIRouter(prefix="/api/v1/settings", tags=["settings"])

    @routes.get("", **gives(Setting, many=True))
    def settings() -> Response:
        """Every setting, and where it comes from."""
        return answer(told(store.settings.all()))

    @routes.put("", **gives(Setting, many=True, also=(408, 413)), openapi_extra=takes(Change))
    async def change(request: Request) -> Response:
        """Change some of them, for all stored events, until they are reset. A shorter retention_days deletes older events."""
        wanted = await read_body(request, bodies, Change)
        author = author_of(request, wanted.author, needed=False)
        return answer(told(await anyio.to_thread.run_sync(_change, store, wanted, author, now_us())))

    return routes


def _change(store: Store, wanted: Change, author: str, now_us: int) -> list[Setting]:
    changes: dict[str, float] = {}
    if wanted.preset:
        changes["threshold"], changes["half_life_days"] = PRESETS[wanted.preset]
    changes |= {name: value for name in NAMES if (value := getattr(wanted, name)) is not None}
    if not changes and not wanted.reset:
        refuse("", "nothing to change; name a setting, a preset, or reset", place="body")
    if wanted.reset:
        store.settings.reset(now_us=now_us)
    if changes:
        try:
            store.settings.change(changes, author=author, now_us=now_us)
        except msgspec.ValidationError as error:
            found = refusal(str(error))
            refuse(found.field, found.message, place="body")
    return store.settings.all()
