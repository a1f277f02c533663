"""A service's score for other people's pages: a card for a frame, a badge for a README. Nothing but the score."""

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from starlette.responses import Response

from forwarder.backend.dashboard.desk import Desk
from forwarder.backend.dashboard.drawing.badge import badge
from forwarder.backend.dashboard.drawing.sparkline import sparkline
from forwarder.backend.dashboard.service import HISTORY_DAYS, sentence
from forwarder.backend.dashboard.words import split_ref
from forwarder.backend.extras.answers import refusals
from forwarder.backend.guard import POLICY
from forwarder.backend.intake import valid_entity_ref

SUFFIX = ".svg"
BADGE_AGE_S = 300  # what caches on the way may keep: a README is read far more often than a score moves


def router(desk: Desk) -> APIRouter:
    """`GET /embed/{entity_ref}` and `GET /badge/{entity_ref}.svg`."""
    routes = APIRouter()
    policy = POLICY.format(frames=_frames(desk.settings.allowed_origins))

    @routes.get(
        "/embed/{entity_ref:path}",
        response_class=HTMLResponse,
        responses=refusals(400),
        tags=["cards"],
        summary="A service's score as a card",
    )
    @desk.store.database.one_moment()
    def embed(request: Request, entity_ref: str) -> HTMLResponse:
        _check(entity_ref)
        now_us = desk.now_us()
        card = desk.store.scores.card(entity_ref, now_us, days=HISTORY_DAYS)
        explanation = card.explanation
        answer = desk.page(
            request,
            "embed.html",
            ref=entity_ref,
            name=split_ref(entity_ref)[2],
            explanation=explanation,
            sentence=sentence(explanation, now_us),
            history=sparkline([point.score for point in card.history], explanation.severity, 240, 40),
        )
        answer.headers["Content-Security-Policy"] = policy
        return answer

    @routes.get(
        "/badge/{entity_ref:path}",
        response_class=Response,
        responses={200: {"description": "OK", "content": {"image/svg+xml": {}}}, **refusals(400)},
        tags=["cards"],
        summary="A service's score as a badge; `.svg` behind the reference",
    )
    def badge_of(entity_ref: str) -> Response:
        ref = entity_ref.removesuffix(SUFFIX)
        _check(ref)
        score = desk.store.scores.friction(ref, desk.now_us())
        headers = {"Cache-Control": f"max-age={BADGE_AGE_S}"}
        return Response(str(badge(score.score, score.severity)), headers=headers, media_type="image/svg+xml")

    return routes


def _check(entity_ref: str) -> None:
    if not valid_entity_ref(entity_ref):
        raise HTTPException(400, "not an entity reference; write kind:namespace/name")


def _frames(origins: tuple[str, ...]) -> str:
    """Whose pages may frame the card: those that may call the API. A comma or a semicolon would begin another directive."""
    plain = [origin for origin in origins if not any(char in origin for char in " ;,\r\n")]
    return " ".join(plain) or "'none'"
