"""What every page needs: the store, who asks, the templates and their words, and the frame around the content."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request

from forwarder import __version__
from forwarder.backend.access.visitors import Access, visitor
from forwarder.backend.dashboard import links, words
from forwarder.backend.dashboard.drawing import gauge, sparkline
from forwarder.backend.dashboard.rulebook import RuleBook
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store, StoredEvent
from forwarder.backend.store.events import OPEN_SESSION_US
from forwarder.backend.store.views import DAY_US

STATIC = Path(__file__).parent / "static"
FRESH_S = 3.0  # new clusters and teams are rare; three queries less for most pages
PAGE_EVENTS = 50  # a screen or three
LATEST_EVENTS = 20  # below other things
PLACES = (
    ("/", "home", "Services"),
    ("/search", "search", "Events"),
    ("/actors", "actors", "Actors"),
    ("/rules", "rules", "Rules"),
    ("/triage", "triage", "Triage"),
    ("/status", "status", "Status"),
)

# The Host header is the visitor's own, but the command on the page is meant to be pasted into a shell.
_PLAIN_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?")


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Every cluster, namespace and team that an event came from, by name."""

    clusters: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()


class Desk:
    """Makes pages. clock: Unix seconds. rules: what is known of rules."""

    def __init__(
        self, store: Store, settings: BackendSettings, access: Access, rules: RuleBook, clock: Callable[[], float]
    ) -> None:
        self.store = store
        self.settings = settings
        self.access = access
        self.rules = rules
        self._clock = clock
        self._templates = _environment()
        self._lock = threading.Lock()
        self._places = (float("-inf"), Places())

    def places(self) -> Places:
        """What lists can be filtered by, as of FRESH_S ago at most."""
        with self._lock:
            read_at, known = self._places
            if time.monotonic() - read_at >= FRESH_S:
                people = self.store.people
                clusters = tuple(name for name in people.clusters() if name)
                known = Places(clusters=clusters, namespaces=tuple(people.namespaces()), teams=tuple(people.teams()))
                self._places = (time.monotonic(), known)
            return known

    def now_us(self) -> int:
        """Unix microseconds."""
        return int(self._clock() * 1_000_000)

    def page(
        self, request: Request, template: str, *, status: int = 200, here: str = "", **values: Any
    ) -> HTMLResponse:
        """A whole page. here: its place in the navigation. values: what the template shows."""
        now_us = self.now_us()
        text = self._templates.get_template(template).render(
            here=here,
            places=PLACES,
            visitor=visitor(request),
            offers_sign_in=self.access.keys_in_force,
            may_change="change" in visitor(request).rights,
            version=__version__,
            now_us=now_us,
            earliest_open_us=now_us - OPEN_SESSION_US,
            **values,
        )
        return HTMLResponse(text, status)


class Loose(dict[str, Any]):
    """A mapping for templates in which a field that is not there is empty: events carry what they have."""

    def __missing__(self, key: str) -> str:
        return ""


def plain_host(request: Request) -> str:
    """The host by which this backend was reached, where it is one that a shell takes as a word."""
    host = request.headers.get("host", "")
    return host if _PLAIN_HOST.fullmatch(host) else "localhost:8000"


def by_day(events: list[StoredEvent]) -> list[tuple[str, list[StoredEvent]]]:
    """Neighbours of one day (UTC) together, under its name."""
    days = groupby(events, lambda event: event.occurred_us // DAY_US)
    return [(words.day(number * DAY_US), list(group)) for number, group in days]


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # every file, whatever its name ends in
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Callable[..., Any]] = {
        "ago": words.ago,
        "moment": words.moment,
        "clock": words.clock,
        "iso": words.iso,
        "duration": words.duration,
        "plural": words.plural,
        "address": words.address,
        "split_ref": words.split_ref,
        "by_day": by_day,
        "loose": Loose,
        "with_field": lambda where, name, value: {**where, name: value},
    }
    made.filters.update(filters)
    made.globals.update(gauge=gauge.gauge, sparkline=sparkline.sparkline, bars=sparkline.bars)
    for piece in (links.service_link, links.actor_link, links.rule_tag, links.time_ago, links.count_link):
        made.globals[piece.__name__] = piece
    return made
