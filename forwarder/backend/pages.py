"""The one page of the backend: services by score, made on the server, without script.

Everything shown is escaped by the template engine; the style sheet comes from this package.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from forwarder import __version__
from forwarder.backend.intake import format_timestamp
from forwarder.backend.store.scores import EntityScore

STATIC = Path(__file__).parent / "static"

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)
_templates.filters["moment"] = lambda time_us: format_timestamp(time_us)[:19].replace("T", " ")

# The Host header is the visitor's own, but the command on the page is meant to be pasted into a shell.
_PLAIN_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?")


def home(entities: Sequence[EntityScore], total: int, host: str, *, window_days: int, needs_key: bool) -> str:
    """HTML of the list of services. total: how many there are, of which `entities` are the first."""
    template = _templates.get_template("home.html")
    return template.render(
        entities=entities,
        total=total,
        host=host if _PLAIN_HOST.fullmatch(host) else "localhost:8000",
        window_days=window_days,
        needs_key=needs_key,
        version=__version__,
    )
