"""Forms within bounds, and a way back that never leaves this site."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import HTTPException
from starlette.requests import Request
from starlette.types import Message

from forwarder.backend.dashboard import forms
from forwarder.backend.dashboard.forms import FORM, own_path, read_form


def request(*chunks: bytes, kind: str = FORM) -> Request:
    async def messages() -> AsyncIterator[dict[str, object]]:
        for chunk in chunks:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    return Request({"type": "http", "headers": [(b"content-type", kind.encode())]}, messages().__anext__)


async def test_fields() -> None:
    """Names and values, whatever the pieces; the last of a name counts; bytes that are no text do not raise."""
    assert await read_form(request(b"a=1&b=", b"x+y%26&a=2&c=&d=%ff")) == {
        "a": "2",
        "b": "x y&",
        "c": "",
        "d": "\ufffd",
    }


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data; boundary=x", "application/json"])
async def test_other_kinds(kind: str) -> None:
    """What is no form is refused."""
    with pytest.raises(HTTPException) as caught:
        await read_form(request(b"a=1", kind=kind))
    assert caught.value.status_code == 415


@pytest.mark.parametrize("body", [b"a=" + b"x" * (65 << 10), b"&".join([b"a=1"] * 40)])
async def test_too_much(body: bytes) -> None:
    """A form has an end, in bytes and in fields."""
    with pytest.raises(HTTPException) as caught:
        await read_form(request(body))
    assert caught.value.status_code == 413


@pytest.mark.parametrize("path", ["/", "/service?ref=component:shop/cart", "/search?q=%2F%2Fx", "/triage#new"])
def test_own_path(path: str) -> None:
    """Our own pages."""
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path", ["", "https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "javascript:alert(1)",
             "evil.example", "/a\r\nset-cookie: x", "\\\\evil.example", "/\x00", "/ü"],
)  # fmt: skip
def test_other_sites(path: str) -> None:
    """Whatever a browser could take for another site leads to the first page."""
    assert own_path(path) == "/"


async def test_a_form_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds a form back is told so, instead of holding a connection for ever."""
    monkeypatch.setattr(forms, "FORM_TIMEOUT_S", 0.0)

    async def nothing() -> Message:
        return await asyncio.Future()

    headers = [(b"content-type", FORM.encode())]
    with pytest.raises(HTTPException) as refused:
        await read_form(Request({"type": "http", "method": "POST", "headers": headers}, nothing))
    assert refused.value.status_code == 408
