"""The fast path: can any rule match this line? Answered in the receive buffer, without decoding or copying the line.

Invariant: it says no only when the full decode and the same rules would find nothing. Everything it is not sure of is
a yes, and costs a decode. (Not looked for are a second user or an impersonatedUser that stand behind the objectRef: no
client can make kube-apiserver write them, and whoever writes the log can leave a line out.) Its traps, each with a test:

- A string that is skipped may hold escaped quotes. What stands in objectRef must be free of escapes altogether, or a name
  such as `n"}…` could end the object early and be remembered under another request's key.
- Key order: only kube-apiserver's own order is read here (k8s.io/apiserver/pkg/apis/audit/v1 types.go). Bodies of
  SubjectAccessReviews hold a `"verb"` of their own; nothing is ever searched for, the pattern is anchored.
- Impersonation changes who the actor is: such a line leaves the fast path, because the pattern demands sourceIPs right
  behind the user.
- No objectRef where it belongs means a non-resource URL only if none follows later in the line, and the URL is none of
  an object: from that the full decode reads what a cut line has lost.
- The resource never comes from requestURI: percent-encoding would evade it.
"""

import re
from collections.abc import Callable

import msgspec

from forwarder.detection.actors import resolve
from forwarder.detection.matcher import MAX_REMEMBERED, MAX_REMEMBERED_CHARACTERS, Index, Static, static_of
from forwarder.errors import MalformedEvent
from forwarder.events.audit import decode

# A skipped string is [^"]*+ (a plain scan, three times as fast as a class of two characters) wherever the literal behind it
# holds `,"`: inside a string every quote follows a backslash, so such a literal can only stand between two fields, and a
# string with an escaped quote fails the match instead of fooling it. Right before a `}` only [^"\\]*+ will do.
_WHO = re.compile(
    rb'\{"kind":"Event","apiVersion":"audit\.k8s\.io/v1","level":"[^"]*+","auditID":"[^"]++"'
    rb',"stage":"(?:(RequestReceived)|[A-Za-z]++)","requestURI":"[^"]*+","verb":"([a-z]++)"'
    rb',"user":\{"username":"([^"\\]*+)"(?:,"uid":"[^"]*+")?(?:,"groups":\[[^\]]*+\])?(?:,"extra":\{[^}]*+\})?'
    rb'\},"sourceIPs":\['
)
_WHAT = re.compile(
    rb'[^\]]*+\](?:,"userAgent":"[^"]*+")?'
    rb',"(?:objectRef":\{"resource":"([^"\\]*+)"(?:,"namespace":"([^"\\]*+)")?'
    rb'(?:,"name":"[^"\\]*+")?(?:,"uid":"[^"\\]*+")?(?:,"apiGroup":"[^"\\]*+")?(?:,"apiVersion":"[^"\\]*+")?'
    rb'(?:,"resourceVersion":"[^"\\]*+")?(?:,"subresource":"([^"\\]*+)")?\}'
    rb'|responseStatus":\{|requestReceivedTimestamp":")'
)
_OBJECT_REF = re.compile(rb'"objectRef"')
_OBJECT_URL = re.compile(rb'"requestURI":"/apis?/')

Buffer = bytes | bytearray | memoryview


class ScreenCounts(msgspec.Struct):
    """fallback: lines that needed a full decode because they are not canonical."""

    fallback: int = 0


class Screen:
    """Callable `(buffer, start, end) -> bool`; see contracts.Screen. Not for use by several threads at once.

    Most lines are a machine's, and most rules ignore machines: who asks with which verb is looked at first, and where no
    rule could match whatever the object, the rest of the line is not read. Both answers are remembered.
    """

    def __init__(self, index: Index, is_machine: Callable[[str], bool]) -> None:
        self.counts = ScreenCounts()
        self.everything = False  # while somebody wants the audit events themselves, every line passes
        self._index = index
        self._is_machine = is_machine
        # (RequestReceived or None, verb, user) -> None: nothing can match; else (resource, namespace, subresource) -> answer
        self._remembered: dict[tuple[bytes | None, ...], dict[tuple[bytes | None, ...], bool] | None] = {}
        self._room = MAX_REMEMBERED

    def adopt(self, other: "Screen") -> None:
        """Answer as `other` does from now on: sources keep their screen while the rules change."""
        self._index, self._is_machine = other._index, other._is_machine
        self._remembered, self._room = other._remembered, other._room

    def __call__(self, buffer: Buffer, start: int, end: int) -> bool:
        if self.everything:
            return True
        who = _WHO.match(buffer, start, end)
        if who is not None:
            asker = who.group(1, 2, 3)
            try:
                answers = self._remembered[asker]
            except KeyError:
                answers = self._asker(asker)
            if answers is None:
                return False
            what = _WHAT.match(buffer, who.end(), end)
            if what is not None:
                asked = what.group(1, 2, 3)
                answer = answers.get(asked)
                if answer is None:
                    answer = self._asked(asker, asked, answers)
                if asked[0] is not None or _about_no_object(buffer, start, what.end(), end):
                    return answer
        self.counts.fallback += 1
        return self._decoded(bytes(buffer[start:end]))

    def _asker(self, asker: tuple[bytes | None, ...]) -> dict[tuple[bytes | None, ...], bool] | None:
        """What is remembered about a verb and a user from now on."""
        received, verb, user = asker
        answers: dict[tuple[bytes | None, ...], bool] | None = {}
        try:
            actor = (user or b"").decode()
            if received is not None or not self._index.possible(self._is_machine(actor), actor, (verb or b"").decode()):
                answers = None
        except UnicodeDecodeError:
            pass  # not ours to judge: `_asked` says yes
        if _short(asker):
            self._make_room()
            self._remembered[asker] = answers
        return answers

    def _asked(
        self,
        asker: tuple[bytes | None, ...],
        asked: tuple[bytes | None, ...],
        answers: dict[tuple[bytes | None, ...], bool],
    ) -> bool:
        """Ask the rules about one kind of request, and remember what they say."""
        try:
            _, verb, actor = ((part or b"").decode() for part in asker)
            resource, namespace, subresource = (part.decode() if part is not None else None for part in asked)
        except UnicodeDecodeError:
            return True
        static = Static(self._is_machine(actor), actor, verb, resource, subresource or "", namespace or "")
        answer = bool(self._index.candidates(static))
        if _short(asked):
            self._make_room()
            answers[asked] = answer
        return answer

    def _make_room(self) -> None:
        """An attacker may invent as many names as there are requests; what they cost is a look-up, never memory."""
        self._room -= 1
        if self._room < 0:
            self._remembered.clear()
            self._room = MAX_REMEMBERED

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


def _about_no_object(buffer: Buffer, start: int, at: int, end: int) -> bool:
    """Whether a line without an objectRef up to `at` is about a non-resource URL."""
    return _OBJECT_REF.search(buffer, at, end) is None and _OBJECT_URL.search(buffer, start, at) is None


def _short(names: tuple[bytes | None, ...]) -> bool:
    return sum(len(name) for name in names if name is not None) <= MAX_REMEMBERED_CHARACTERS
