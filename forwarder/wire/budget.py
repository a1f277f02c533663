"""One budget of bytes for the whole process: receive buffers, lines that wait for their message's end, inflation.

    share = budget.share(on_change=connection.update)   # called whenever `budget.spent` has changed
    share.resize(bytes_held_now)
    if budget.spent: do not read the socket
    share.close()

Holders say what they hold after the fact, so the budget is exceeded by at most what one of them holds at once. That
those who hold something and wait cannot block each other for good is their part: they close what waits too long.
"""

from collections.abc import Callable

DEFAULT_BUDGET_BYTES = 128 << 20  # a few entries of the largest size; a receiver at full load holds below 20 MiB


class ByteBudget:
    """How many bytes all shares together may hold. For one thread (the event loop's).

    spent: whether nobody should read more. It ends only at three quarters of the limit, so that readers do not flutter.
    """

    def __init__(self, limit_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.spent = False
        self._shares: set[Share] = set()

    def share(self, on_change: Callable[[], None]) -> "Share":
        """A new holder of nothing."""
        share = Share(self, on_change)
        self._shares.add(share)
        return share

    def _changed(self, difference: int) -> None:
        self.used_bytes += difference
        limit = self.limit_bytes * 3 // 4 if self.spent else self.limit_bytes
        spent = self.used_bytes > limit
        if spent != self.spent:
            self.spent = spent
            for share in tuple(self._shares):
                share.on_change()


class Share:
    """What one holder holds."""

    __slots__ = ("_budget", "bytes", "on_change")

    def __init__(self, budget: ByteBudget, on_change: Callable[[], None]) -> None:
        self._budget = budget
        self.on_change = on_change
        self.bytes = 0

    def resize(self, size: int) -> None:
        """Say that `size` bytes are held now."""
        difference, self.bytes = size - self.bytes, size
        if difference:
            self._budget._changed(difference)

    def close(self) -> None:
        """Hold nothing, and hear nothing more."""
        self._budget._shares.discard(self)
        self.resize(0)
