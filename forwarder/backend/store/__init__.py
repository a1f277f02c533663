"""Friction events on disk, and every question that is asked about them."""

from forwarder.backend.store.events import StoredEvent
from forwarder.backend.store.store import Store
from forwarder.backend.store.writing import Result

__all__ = ["Result", "Store", "StoredEvent"]
