"""From what was found in messages to batches: screened, counted, and what could not be read kept as dead letters.

    gathering = Gathering(screen, cluster="prod", cluster_from_envelope=False, keep_raw=False)
    await gathering.add(contents, origin="webhook 10.0.0.7")
    for batch in gathering.batches(): await submit(batch)

One batch for each origin and cluster. The screen is not for several threads, so this runs in the event loop, and gives others
a turn every SLICE_LINES.
"""

import asyncio
import hashlib
from collections.abc import Sequence

from forwarder.contracts import Batch, DeadLetter, Line, Screen
from forwarder.envelopes.contents import Bad, Contents
from forwarder.events import redact

SLICE_LINES = 256
LINE_OVERHEAD_BYTES = 120  # of a Line and its bytes object, beside the bytes


class Gathering:
    """Batches in the making. cluster: the source's; with `cluster_from_envelope` what an envelope names comes first."""

    def __init__(self, screen: Screen, *, cluster: str, cluster_from_envelope: bool, keep_raw: bool) -> None:
        self._screen = screen
        self._cluster = cluster
        self._from_envelope = cluster_from_envelope
        self._keep_raw = keep_raw
        self._parts: dict[tuple[str, str], _Part] = {}

    async def add(self, contents: Contents, *, origin: str, cluster: str = "", offset: int = -1) -> None:
        """cluster: of the authenticated sender; it wins over all others. offset: of the message, for dead letters."""
        screen = self._screen
        for position, found in enumerate(contents.lines):
            named = found.cluster if self._from_envelope else ""
            part = self._part(origin, cluster or named or self._cluster)
            part.received += 1
            if screen(found.line, 0, len(found.line)):
                part.lines.append(Line(found.line, found.time_s, offset))
            if position % SLICE_LINES == SLICE_LINES - 1:
                await asyncio.sleep(0)
        if contents.bad:
            part = self._part(origin, cluster or self._cluster)
            part.received += len(contents.bad)
            part.rejected += [self._letter(bad, origin, offset) for bad in contents.bad]

    def batches(self) -> Sequence[Batch]:
        """All that was added, once."""
        made = [
            Batch(origin=origin, cluster=cluster, received=part.received, lines=part.lines, rejected=part.rejected)
            for (origin, cluster), part in self._parts.items()
        ]
        self._parts = {}
        return made

    def _part(self, origin: str, cluster: str) -> "_Part":
        part = self._parts.get((origin, cluster))
        if part is None:
            part = self._parts[origin, cluster] = _Part()
        return part

    def _letter(self, bad: Bad, origin: str, offset: int) -> DeadLetter:
        return DeadLetter(
            reason=bad.reason,
            source=origin,
            size_bytes=len(bad.data),
            sha256=hashlib.sha256(bad.data).hexdigest(),
            offset=offset,
            head=redact.head(bad.data),
            payload=bad.data if self._keep_raw else None,
        )


class _Part:
    """What one origin and cluster gave."""

    def __init__(self) -> None:
        self.received = 0
        self.lines: list[Line] = []
        self.rejected: list[DeadLetter] = []
