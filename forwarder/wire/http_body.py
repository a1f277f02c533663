"""The body of a request, read with a cap and inflated where it is gzip. Sans-IO.

    reader = BodyReader(max_bytes=32 << 20, gzip=True)
    while ...: reader.feed(data); while reader.work(): ...        # each step inflates PIECE_BYTES at most
    body = reader.finish()

What is beyond the cap is counted and hashed, not kept, so that the part before it can still be used. A body of more than
MAX_READ_BYTES is not read to its end: feed raises `TooLong`.
"""

import hashlib

import msgspec

from forwarder.errors import ForwardProtocolError
from forwarder.wire.forward_inflate import FEED_BYTES, Inflater, for_blob

MAX_READ_BYTES = 256 << 20  # inflated; 400 audit events, the most that kube-apiserver sends at once, of 650 kB each


class TooLong(Exception):
    """More than MAX_READ_BYTES."""


class Body(msgspec.Struct, frozen=True):
    """data: the body, or its first `max_bytes`, or what a damaged gzip stream gave. fault: why it is not the whole, or "".

    rest_bytes, rest_sha256 (hex): of what is missing; of a damaged stream the whole of it, as it came.
    """

    data: bytes
    fault: str = ""
    rest_bytes: int = 0
    rest_sha256: str = ""


class BodyReader:
    """One body. held_bytes: what it keeps."""

    def __init__(self, *, max_bytes: int, gzip: bool) -> None:
        self._max_bytes = max_bytes
        self._gzip = gzip
        self._pieces: list[bytes] = []
        self._size = self._rest_bytes = 0
        self._digest = hashlib.sha256()
        self._whole, self._whole_bytes = hashlib.sha256(), 0  # as it came
        self._fault = ""
        self._inflater: Inflater | None = None
        self._waiting = bytearray()

    @property
    def held_bytes(self) -> int:
        inflater = self._inflater.held_bytes if self._inflater else 0
        return self._size + len(self._waiting) + inflater

    def feed(self, data: bytes) -> None:
        """The next bytes; with gzip, `work` until it says no before the next ones. Raises TooLong."""
        if self._gzip:
            self._whole.update(data)
            self._whole_bytes += len(data)
        if self._gzip and not self._fault:
            self._waiting += data
        elif self._fault != "bad_gzip":
            self._keep(bytes(data))

    def work(self) -> bool:
        """Inflate a piece; whether there may be more to do. Raises TooLong."""
        if not self._gzip or self._fault:
            return False
        try:
            if self._inflater is None:
                if len(self._waiting) < 4:
                    return False
                self._inflater = for_blob(bytes(self._waiting[:3]))
                if self._inflater is None:
                    raise ForwardProtocolError("no gzip")
            piece = self._inflater.read()
            if piece:
                self._keep(piece)
                return True
            if not self._waiting:
                return False
            self._inflater.feed(bytes(self._waiting[:FEED_BYTES]))
            del self._waiting[:FEED_BYTES]
            return True
        except ForwardProtocolError:
            self._damaged()
            return False

    def finish(self) -> Body:
        """At the end of the body."""
        if self._gzip and not self._fault:
            try:
                if self._inflater is not None:
                    self._inflater.finish()
                elif self._waiting:
                    raise ForwardProtocolError("no gzip")
            except ForwardProtocolError:
                self._damaged()
        data = b"".join(self._pieces)
        self._pieces = []
        if not self._fault:
            return Body(data)
        if self._fault == "bad_gzip":
            return Body(data, self._fault, self._whole_bytes, self._whole.hexdigest())
        return Body(data, self._fault, self._rest_bytes, self._digest.hexdigest())

    def _damaged(self) -> None:
        self._fault, self._inflater, self._waiting = "bad_gzip", None, bytearray()

    def _keep(self, data: bytes) -> None:
        room = self._max_bytes - self._size if not self._fault else 0
        kept = data if len(data) <= room else data[:room]
        if kept:
            self._pieces.append(kept)
            self._size += len(kept)
        if len(kept) < len(data):
            self._rest(data[len(kept) :])
        if self._rest_bytes and not self._fault:
            # nothing is inflated any more: what the sender compressed is hashed as it is
            self._fault, self._inflater = "body_too_large", None
            waiting, self._waiting = bytes(self._waiting), bytearray()
            self._rest(waiting)

    def _rest(self, data: bytes) -> None:
        self._digest.update(data)
        self._rest_bytes += len(data)
        if self._size + self._rest_bytes > MAX_READ_BYTES:
            raise TooLong
