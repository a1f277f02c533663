"""The fast path: can any rule match this line? Answered in the receive buffer, without decoding or copying the line.

Invariant: it says no only when the full decode and the same rules would find nothing. Everything it is not sure of is
a yes, and costs a decode. Its traps, each with a test:

- A string that is skipped may hold escaped quotes. What stands in objectRef must be free of escapes altogether, or a name
  such as `n"}…` could end the object early and be remembered under another request's key.
- Key order: only kube-apiserver's own order is read here (k8s.io/apiserver/pkg/apis/audit/v1 types.go). Bodies of
  SubjectAccessReviews hold a `"verb"` of their own; nothing is ever searched for, the pattern is anchored.
- Impersonation changes who the actor is: such a line leaves the fast path, because the pattern demands sourceIPs right
  behind the user.
- No objectRef where it belongs means a non-resource URL only if none follows later in the line.
- The resource never comes from requestURI: percent-encoding would evade it.
"""

import re
from collections.abc import Callable

import msgspec

from forwarder.detection.actors import resolve
from forwarder.detection.matcher import MAX_REMEMBERED, Index, Static, static_of
from forwarder.errors import MalformedEvent
from forwarder.events.audit import decode

# A skipped string is [^"]*+ (a plain scan, three times as fast as a class of two characters) wherever the literal behind it
# holds `,"`: inside a string every quote follows a backslash, so such a literal can only stand between two fields, and a
# string with an escaped quote fails the match instead of fooling it. Right before a `}` only [^"\\]*+ will do.
_HEAD = re.compile(
    rb'\{"kind":"Event","apiVersion":"audit\.k8s\.io/v1","level":"[^"]*+","auditID":"[^"]++"'
    rb',"stage":"(?:(?P<received>RequestReceived)|[A-Za-z]++)","requestURI":"[^"]*+","verb":"(?P<verb>[a-z]++)"'
    rb',"user":\{"username":"(?P<user>[^"\\]*+)"(?:,"uid":"[^"]*+")?(?:,"groups":\[[^\]]*+\])?(?:,"extra":\{[^}]*+\})?'
    rb'\},"sourceIPs":\[[^\]]*+\](?:,"userAgent":"[^"]*+")?'
    rb',"(?:objectRef":\{"resource":"(?P<resource>[^"\\]*+)"(?:,"namespace":"(?P<namespace>[^"\\]*+)")?'
    rb'(?:,"name":"[^"\\]*+")?(?:,"uid":"[^"\\]*+")?(?:,"apiGroup":"[^"\\]*+")?(?:,"apiVersion":"[^"\\]*+")?'
    rb'(?:,"resourceVersion":"[^"\\]*+")?(?:,"subresource":"(?P<subresource>[^"\\]*+)")?\}'
    rb'|responseStatus":\{|requestReceivedTimestamp":")'
)
_KEYS = tuple(_HEAD.groupindex[name] for name in ("received", "verb", "user", "resource", "namespace", "subresource"))
_RESOURCE = _HEAD.groupindex["resource"]
_OBJECT_REF = re.compile(rb'"objectRef"')

Buffer = bytes | bytearray | memoryview


class ScreenCounts(msgspec.Struct):
    """fast: lines answered in place; fallback: lines that needed a full decode because they are not canonical."""

    fast: int = 0
    fallback: int = 0


class Screen:
    """Callable `(buffer, start, end) -> bool`; see contracts.Screen. Not for use by several threads at once."""

    def __init__(self, index: Index, is_machine: Callable[[str], bool]) -> None:
        self.counts = ScreenCounts()
        self._index = index
        self._is_machine = is_machine
        self._answers: dict[tuple[bytes | None, ...], bool] = {}

    def adopt(self, other: "Screen") -> None:
        """Answer as `other` does from now on: sources keep their screen while the rules change."""
        self._index, self._is_machine, self._answers = other._index, other._is_machine, other._answers

    def __call__(self, buffer: Buffer, start: int, end: int) -> bool:
        match = _HEAD.match(buffer, start, end)
        if match is None or (match.group(_RESOURCE) is None and _OBJECT_REF.search(buffer, match.end(), end)):
            self.counts.fallback += 1
            return self._decoded(bytes(buffer[start:end]))
        self.counts.fast += 1
        key = match.group(*_KEYS)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answer(key)
        return answer

    def _answer(self, key: tuple[bytes | None, ...]) -> bool:
        """Ask the rules about one kind of request, and remember what they say."""
        received, verb, user, resource, namespace, subresource = (
            bytes(part) if part is not None else None for part in key
        )
        try:
            actor = (user or b"").decode()
            static = Static(
                self._is_machine(actor),
                actor,
                (verb or b"").decode(),
                resource.decode() if resource is not None else None,
                (subresource or b"").decode(),
                (namespace or b"").decode(),
            )
        except UnicodeDecodeError:
            return True
        answer = received is None and bool(self._index.candidates(static))
        if len(self._answers) >= MAX_REMEMBERED:
            self._answers.clear()
        self._answers[(received, verb, user, resource, namespace, subresource)] = answer
        return answer

    def _decoded(self, line: bytes) -> bool:
        """The reference: what the full decode and the static conditions say; broken lines are for `detect` to report."""
        try:
            event = decode(line)
        except MalformedEvent:
            return True
        if event.partial or event.api_version != "audit.k8s.io/v1" or event.kind != "Event":
            return True
        if event.stage == "RequestReceived":
            return False
        return bool(self._index.candidates(static_of(event, resolve(event, self._is_machine))))
