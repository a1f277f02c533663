"""A JSON scanner that never recurses and never gives up early: for text that is cut off, broken, or nested too deep.

    scanner = Scanner(b'{"verb":"get","user":{"username":"ali')
    for key, (start, end, complete) in scanner.members(0): ...

It finds where values begin and end, and reads strings; what lies inside a skipped value is not validated. It stops at the
first thing that cannot be JSON and sets `lost`. Linear in time; raises nothing.
"""

import json
import re
from collections.abc import Iterator
from typing import Final

import msgspec

Span = tuple[int, int, bool]
"""Where a value begins and ends, and whether it is complete; one that is not reaches to the end of the text."""

MAX_TOKENS: Final = 2_000_000
"""Runs of brackets that one scanner skips. Honest bodies have one in 20 to 40 bytes, so 400,000 in 8 MiB; the worst body that
the apiserver takes (3 MiB of `[[]],`) has 1.3 million. What is beyond counts as cut: less than two seconds are spent."""

# Possessive throughout: nothing is ever tried twice, whatever an attacker writes.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_PLAIN = rb'[^"\[\]{}]++'
_FLAT = rb"(?:" + _PLAIN + rb"|" + _STRING + rb")*+"

_space = re.compile(rb"[ \t\r\n]*+")
_string = re.compile(_STRING, re.DOTALL)
_scalar = re.compile(rb"(?:-?[0-9][0-9.eE+-]*+|true|false|null)(?=[ \t\r\n,\]}]|\Z)")
_key = re.compile(rb"[ \t\r\n]*+(" + _STRING + rb")[ \t\r\n]*+:[ \t\r\n]*+", re.DOTALL)
_inside = re.compile(
    rb"(?:" + _PLAIN + rb"|" + _STRING + rb"|\[" + _FLAT + rb"\]|\{" + _FLAT + rb"\})*+(?:([\[{]++)|([\]}]++))?",
    re.DOTALL,
)
_STEP_TOKENS: Final = 4  # what one member or item costs; it takes as long as four skipped runs
_decode_text = msgspec.json.Decoder(str).decode


class Scanner:
    """Reads one buffer. `lost` becomes true when something was cut, broken or beyond the budget."""

    def __init__(self, buffer: bytes) -> None:
        self.buffer = buffer
        self.lost = False
        self._tokens = MAX_TOKENS

    def skip(self, at: int) -> int:
        """Where the value that begins at `at` ends, or -1 when it is cut or broken."""
        self._tokens -= _STEP_TOKENS
        if self._tokens <= 0:
            return -1
        first = self.buffer[at : at + 1]
        if first not in (b"{", b"["):
            match = _string.match(self.buffer, at) if first == b'"' else _scalar.match(self.buffer, at)
            return match.end() if match else -1
        depth, at = 1, at + 1
        while self._tokens > 0:
            self._tokens -= 1
            match = _inside.match(self.buffer, at)
            if match is None or match.lastindex is None:
                return -1  # the end of the text, or a string without an end
            at = match.end()
            if match.lastindex == 1:
                depth += at - match.start(1)
                continue
            closed = at - match.start(2)
            if closed >= depth:
                return match.start(2) + depth
            depth -= closed
        return -1

    def members(self, at: int) -> Iterator[tuple[str, Span]]:
        """(key, span) of each member of the object at `at`, in order; nothing where there is no object."""
        if self.buffer[at : at + 1] != b"{":
            return
        at += 1
        while match := _key.match(self.buffer, at):
            key = self.text(match.start(1), match.end(1))
            start = match.end()
            end = self.skip(start)
            if end < 0 or (end == len(self.buffer) and self.buffer[-1:] not in (b'"', b"}", b"]")):  # half a number
                self.lost = True
                if start < len(self.buffer):
                    yield key, (start, len(self.buffer), False)
                return
            yield key, (start, end, True)
            at = self._after(end)
            if self.buffer[at : at + 1] != b",":
                break
            at += 1
        self._close(at, b"}")

    def items(self, at: int) -> Iterator[Span]:
        """The span of each item of the array at `at`, in order; nothing where there is no array."""
        if self.buffer[at : at + 1] != b"[":
            return
        at = self._after(at + 1)
        while at < len(self.buffer) and self.buffer[at : at + 1] != b"]":
            end = self.skip(at)
            if end < 0:
                self.lost = True
                yield at, len(self.buffer), False
                return
            yield at, end, True
            at = self._after(end)
            if self.buffer[at : at + 1] != b",":
                break
            at = self._after(at + 1)
        self._close(at, b"]")
        if self.lost and at < len(self.buffer) and self.buffer[at : at + 1] != b"]":
            yield at, len(self.buffer), False  # no comma, no bracket: nobody knows what it is, but it was there

    def text(self, start: int, end: int) -> str:
        """The string at [start, end), "" for any other value; what cannot be decoded in it is replaced."""
        token = self.buffer[start:end]
        if not token.startswith(b'"'):
            return ""
        try:
            return _decode_text(token)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        text = token.decode("utf-8", "replace")
        try:
            text = json.loads(text, strict=False)
        except ValueError:
            text = text[1:-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # lone surrogates could not be stored

    def _after(self, at: int) -> int:
        match = _space.match(self.buffer, at)
        return match.end() if match else at

    def _close(self, at: int, bracket: bytes) -> None:
        at = self._after(at)
        if self.buffer[at : at + 1] != bracket:
            self.lost = True
