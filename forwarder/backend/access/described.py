"""The gate in the API's own description: which right each call needs, and how the gate says no."""

from typing import Any

from fastapi import FastAPI

from forwarder.backend.access.gate import needed_right

SCHEME = "key"
_REFUSALS = {
    "401": "Missing or wrong key",
    "403": "The key has not the right, or the request came from a page elsewhere",
    "421": "Without a key this backend answers to names of its own machine only",
    "429": "Too many requests; come back after Retry-After",
    "503": "Come back after Retry-After",
}
_DETAIL = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
_METHODS = ("get", "put", "post", "delete", "patch")


def describe_access(app: FastAPI) -> None:
    """Put the right and the refusals of every call into the application's OpenAPI; call it last."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes[SCHEME] = {"type": "http", "scheme": "bearer", "description": "made by `forwarder keys create`"}
        for path, item in document["paths"].items():
            for method in _METHODS:
                if method in item:
                    _add(item[method], method.upper(), path)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add(operation: dict[str, Any], method: str, path: str) -> None:
    right = needed_right(method, path)
    if right is None:
        return
    operation["security"] = [{SCHEME: [right]}]
    content = {"application/json": {"schema": _DETAIL}}
    for status, words in _REFUSALS.items():
        operation["responses"].setdefault(status, {"description": words, "content": content})
