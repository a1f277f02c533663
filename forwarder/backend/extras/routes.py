"""The list of rooms that the API has."""

from collections.abc import Callable

from fastapi import APIRouter

from forwarder.backend.extras import events, export, live, people, receivers, services, settings, triage
from forwarder.backend.extras.live import LiveFeed
from forwarder.backend.guard import Bodies
from forwarder.backend.store import Store


def routers(store: Store, now_us: Callable[[], int], bodies: Bodies, feed: LiveFeed) -> tuple[APIRouter, ...]:
    """Every router of the extras."""
    return (
        services.router(store, now_us),
        events.router(store, now_us),
        people.router(store, now_us),
        triage.router(store, now_us, bodies),
        settings.router(store, now_us, bodies),
        receivers.router(store, now_us, bodies),
        export.router(store),
        live.router(feed),
    )
