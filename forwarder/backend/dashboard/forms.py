"""Forms as browsers send them, read within bounds. Where they may come from is the gate's business."""

import asyncio
from collections.abc import Mapping
from urllib.parse import parse_qsl

from fastapi import HTTPException
from starlette.requests import Request

MAX_FORM_BYTES = 64 << 10  # the longest form has a reason of a few lines
MAX_FIELDS = 32
FORM_TIMEOUT_S = 30.0  # the sign-in page needs no key: who dribbles would hold a connection for ever
FORM = "application/x-www-form-urlencoded"


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of a form, the last of each name. Raises HTTPException 408, 413 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise HTTPException(415, f"send it as {FORM}")
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_FORM_BYTES:
                    raise HTTPException(413, f"a form of more than {MAX_FORM_BYTES >> 10} KiB")
    except TimeoutError:
        raise HTTPException(408, f"the form did not arrive within {FORM_TIMEOUT_S:.0f} s") from None
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise HTTPException(413, f"a form of more than {MAX_FIELDS} fields") from None


def own_path(text: str) -> str:
    """Where to go after a form: a path of ours, never another site; else the first page.

    A browser takes two slashes of either kind for another site, and passes over tabs and line ends in between.
    """
    plain = text.startswith("/") and text[1:2] not in ("/", "\\") and all(" " < char < "\x7f" for char in text)
    return text if plain else "/"
