"""How the API says things: moments as RFC 3339, refusals with the field they are about, and both described truthfully.

Inside, moments are whole microseconds in fields that end in `_us`; outside, the field has no ending and holds
`2026-01-31T12:00:00.000000Z`, or null for never. One rule turns answers and their JSON schemas alike.
"""

from typing import Any, NoReturn

import msgspec
from fastapi import FastAPI, HTTPException, Request, Response

from forwarder.backend.access.visitors import visitor
from forwarder.backend.guard import Bodies
from forwarder.backend.intake import Refusal, clean, format_timestamp, parse_body, parse_timestamp, refusal
from forwarder.backend.store.triage import FOREVER_US

REF = "#/components/schemas/{name}"

_described: dict[str, type] = {}


def told(value: Any) -> Any:
    """A struct, or a list of them, as the API tells it."""
    return _told(msgspec.to_builtins(value))


def answer(value: Any, status_code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` (built-in types) as JSON."""
    return Response(msgspec.json.encode(value), status_code, headers, media_type="application/json")


def refuse(field: str, message: str, *, place: str = "query") -> NoReturn:
    """End the request with a 422 that names the field."""
    raise HTTPException(422, [{"loc": [place, field] if field else [place], "msg": message, "type": "invalid"}])


def moment(field: str, text: str | None) -> int | None:
    """A parameter that is a moment, Unix microseconds. Refuses what is none."""
    if not text:
        return None
    found = parse_timestamp(text) if len(text) <= 40 else None
    if found is None:
        refuse(field, "must be an ISO 8601 time of at most 40 characters, such as 2026-01-31T12:00:00Z")
    return found


async def read_body(request: Request, bodies: Bodies, kind: type[Any]) -> Any:
    """The request's JSON object as a struct of that kind. Refuses what does not fit, by field."""
    # A page on another site may send text/plain without asking first (CORS); JSON it may not.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        refuse("", "send it as Content-Type: application/json", place="body")
    async with bodies.read(request) as body:
        data = parse_body(body)
    if not isinstance(data, dict):
        refuse("", data.message if isinstance(data, Refusal) else "the body must be an object", place="body")
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        found = refusal(str(error))
        refuse(found.field, found.message, place="body")


def author_of(request: Request, claimed: str, *, needed: bool = True) -> str:
    """Who changes something: the name of the key that was shown. Only where no key is in force, what the body says.

    needed: refuse a body that says nothing there.
    """
    found = visitor(request)
    if not found.anonymous:
        return found.name
    name = str(clean(claimed)).strip()
    if needed and not name:
        refuse("author", "say who does this; no key says it", place="body")
    return name


# --- what OpenAPI says -----------------------------------------------------------------------------------------------


def gives(kind: Any, *, many: bool = False, also: tuple[int, ...] = ()) -> dict[str, Any]:
    """Arguments of a route that answers with `kind` (a struct), or a list of them; `also`: refusals beside 422."""
    _described[kind.__name__] = kind
    schema: dict[str, Any] = {"$ref": REF.format(name=kind.__name__)}
    if many:
        schema = {"type": "array", "items": schema}
    responses: dict[int | str, Any] = {200: {"description": "OK", "content": {"application/json": {"schema": schema}}}}
    return {"response_class": Response, "responses": responses | refusals(422, *also)}


def takes(kind: Any) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads a struct with `read_body`."""
    _described[kind.__name__] = kind
    content = {"application/json": {"schema": {"$ref": REF.format(name=kind.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


def refusals(*statuses: int) -> dict[int | str, Any]:
    """How a route says no."""
    return {
        status: {"description": _WHY[status], "content": {"application/json": {"schema": _DETAIL}}}
        for status in statuses
    }


def describe(app: FastAPI) -> None:
    """Put the schemas of everything that `gives` and `takes` into the application's OpenAPI."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        _, components = msgspec.json.schema_components(_described.values(), ref_template=REF)
        schemas.update({name: _renamed(schema) for name, schema in components.items()})
        return document

    app.openapi = openapi  # type: ignore[method-assign]


_DETAIL = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                            "msg": {"type": "string"},
                            "type": {"type": "string"},
                        },
                    },
                },
            ]
        }
    },
}
_WHY = {
    400: "Not an entity reference",
    401: "Missing or wrong key",
    404: "Not there; also for a name with a line break, which fits no path",
    408: "The body did not arrive in time",
    409: "Not in force any more, or marked already",
    413: "The body is too large",
    422: "A parameter or field is not valid; which one, and why",
    503: "Come back after Retry-After",
}


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key.removesuffix("_us"): _moment(item) if key.endswith("_us") else _told(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_told(item) for item in value]
    return value


def _moment(time_us: int | None) -> str | None:
    return None if not time_us or time_us >= FOREVER_US else format_timestamp(time_us)


def _renamed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a struct as `told` gives it."""
    properties = schema.get("properties", {})
    named: dict[str, Any] = {}
    for name, described in properties.items():
        if name.endswith("_us"):
            named[name[:-3]] = {"type": ["string", "null"], "format": "date-time"}
        else:
            named[name] = described
    found = {**schema, "properties": named}
    if "required" in schema:
        found["required"] = [name.removesuffix("_us") for name in schema["required"]]
    return found
