"""A total deadline for calls into libraries that have none: each call runs in a thread of its own.

A call that hangs beyond its deadline is left alone, and until it has ended further calls fail at once: there is never more
than one, so nothing piles up behind a peer that drips or a name server that never answers.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

ABORT_GRACE_S = 0.5  # for a call to end once it was aborted


class Overdue(Exception):
    """No answer within the deadline; the message says so."""


class Deadline:
    """One call at a time. name: of the threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: threading.Thread | None = None

    def run(self, call: Callable[[], T], deadline_s: float, abort: Callable[[], None] | None = None) -> T:
        """What `call` returns; raises what it raises, and Overdue. Returns within `deadline_s` (and ABORT_GRACE_S).

        abort: makes a call that is overdue end, where that can be done.
        """
        if self._last is not None and self._last.is_alive():
            raise Overdue("the call before this one still hangs")
        held: _Held[T] = _Held(call)
        self._last = thread = threading.Thread(target=held.run, name=self._name, daemon=True)
        thread.start()
        thread.join(deadline_s)
        if thread.is_alive():
            if abort is not None:
                abort()
                thread.join(ABORT_GRACE_S)
            raise Overdue(f"no answer within {deadline_s:g} s")
        if held.error is not None:
            raise held.error
        return held.results[0]


class _Held(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.results: list[T] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.results.append(self._call())
        except Exception as error:  # noqa: BLE001 - it is raised again where somebody waits for it
            self.error = error
