"""The fast path: can any rule match this line? Answered in the receive buffer, without decoding or copying the line.

Invariant: it says no only when the full decode and the same rules would find nothing. Everything it is not sure of is
a yes, and costs a decode. (Not looked for is what stands a second time, or out of kube-apiserver's order, behind what
was read: no client can make kube-apiserver write it, and whoever writes the log can leave a line out.) Its traps, each
with a test:

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
from collections.abc import Callable, Sequence

import msgspec

from forwarder.detection.actors import resolve
from forwarder.detection.matcher import Index, Opening, Static, static_of
from forwarder.errors import MalformedEvent
from forwarder.events.audit import asked, decode

MAX_REMEMBERED = 65_536  # about 20 MB in an honest cluster; when full all is forgotten, which costs a look-up each
MAX_REMEMBERED_CHARACTERS = 512  # of one key. No real name is longer; a request line may name a namespace of 1 MiB

# A string is read by [^"]*+ (a plain scan, three times as fast as a class of two characters) wherever the literal behind it
# holds `,"`: inside a string every quote follows a backslash, so such a literal can only stand between two fields, and a
# string with an escaped quote fails the match instead of fooling it. Right before a `}` only [^"\\]*+ will do.
_HEAD = rb'\{"kind":"Event","apiVersion":"audit\.k8s\.io/v1","level":"[^"]*+","auditID":"[^"]++","stage":"'
_BETWEEN = b'","user":{"username":"'
_WHO = re.compile(
    _HEAD + rb'[A-Za-z]++","requestURI":"[^"]*+","verb":"([a-z]++' + re.escape(_BETWEEN) + rb'[^"]*+)"'
    rb'(?:,"uid":"[^"]*+")?(?:,"groups":\[[^\]]*+\])?(?:,"extra":\{[^}]*+\})?\},"sourceIPs":\['
)
_REQUEST_RECEIVED = re.compile(_HEAD + b'RequestReceived"')
# From the user's closing quote on all is read as it must be, strings with their escapes: where the full decode would find
# the line broken, it reads the object from the URI instead. What is captured is free of escapes.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS = rb"(?:" + _STRING + rb"(?:," + _STRING + rb")*+)?"
_EXTRA = _STRING + rb":\[" + _STRINGS + rb"\]"
_WHAT = re.compile(
    rb'"(?:,"uid":' + _STRING + rb')?(?:,"groups":\[' + _STRINGS + rb"\])?"
    rb'(?:,"extra":\{(?:' + _EXTRA + rb"(?:," + _EXTRA + rb")*+)?\})?"
    rb'\},"sourceIPs":\[' + _STRINGS + rb'\](?:,"userAgent":' + _STRING + rb")?"
    rb',"(?:objectRef":\{"resource":"([^"\\]*+)"(?:,"namespace":"([^"\\]*+)")?'
    rb'(?:,"name":"[^"\\]*+")?(?:,"uid":"[^"\\]*+")?(?:,"apiGroup":"[^"\\]*+")?(?:,"apiVersion":"[^"\\]*+")?'
    rb'(?:,"resourceVersion":"[^"\\]*+")?(?:,"subresource":"([^"\\]*+)")?'
    rb'\},"(?:responseStatus|requestObject|responseObject|requestReceivedTimestamp)":'
    rb'|responseStatus":\{|requestReceivedTimestamp":")'
)
_OBJECT_REF = re.compile(rb'"objectRef"')
_OBJECT_URL = re.compile(rb'"requestURI":"/apis?/')

_text = msgspec.json.Decoder(str).decode  # its errors are ValueErrors

Buffer = bytes | bytearray | memoryview
Span = tuple[int, int]
_Asked = tuple[bytes | None, ...]
"""Resource (None: a non-resource URL), namespace, subresource, as they stand in the line."""


class ScreenCounts(msgspec.Struct):
    """fallback: lines that needed a full decode because they are not canonical."""

    fallback: int = 0


class _Asker:
    """A user and a verb that some rule may match. answers: to what was asked for, as far as it is remembered."""

    __slots__ = ("actor", "answers", "machine", "opening", "verb")

    def __init__(self, machine: bool, actor: str, verb: str, opening: Opening) -> None:
        self.machine, self.actor, self.verb, self.opening = machine, actor, verb, opening
        self.answers: dict[_Asked, bool] = {}


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
        # By the span of a line that holds verb and user, or by the two. All that is remembered is bounded together.
        self._silent: set[bytes | tuple[str, str]] = set()  # no rule can match what they do, whatever the object
        self._askers: dict[bytes, _Asker] = {}
        self._room = MAX_REMEMBERED

    def adopt(self, other: "Screen") -> None:
        """Answer as `other` does from now on: sources keep their screen while the rules change."""
        self._index, self._is_machine = other._index, other._is_machine
        self._silent, self._askers, self._room = other._silent, other._askers, other._room

    def candidates(self, buffer: Buffer, spans: Sequence[Span]) -> list[int]:
        """The positions in `spans` of the lines that a rule may match: as asking one by one, and faster."""
        if self.everything:
            return list(range(len(spans)))
        match, silent, found = _WHO.match, self._silent, []
        for position, (start, end) in enumerate(spans):
            who = match(buffer, start, end)
            if (who is None or who[1] not in silent) and self._judge(who, buffer, start, end):
                found.append(position)
        return found

    def __call__(self, buffer: Buffer, start: int, end: int) -> bool:
        return self.everything or self._judge(_WHO.match(buffer, start, end), buffer, start, end)

    def request(self, stage: str, verb: str, user: str, resource: str | None, subresource: str, namespace: str) -> bool:
        """The same for an event that came decoded and names nobody who was impersonated; the words as it has them."""
        if self.everything:
            return True
        if stage == "RequestReceived":
            return False
        asker = (verb, user)
        if asker in self._silent:
            return False
        machine = self._is_machine(user)
        opening = self._index.opening(machine, verb)
        if not opening.possible(Static(machine, user, verb, None, "", "")):
            if len(verb) + len(user) <= MAX_REMEMBERED_CHARACTERS:
                self._make_room()
                self._silent.add(asker)
            return False
        return bool(opening.candidates(Static(machine, user, verb, resource, subresource, namespace)))

    def _judge(self, who: "re.Match[bytes] | None", buffer: Buffer, start: int, end: int) -> bool:
        if who is not None:
            key = who[1]
            if key in self._silent:
                return False
            asker = self._askers.get(key)
            if asker is None:
                try:
                    asker = self._asker(key)
                except ValueError:
                    return True  # a name that nobody can read
                if asker is None:
                    return False
            if _REQUEST_RECEIVED.match(buffer, start, end) is not None:
                return False
            what = _WHAT.match(buffer, who.end(1), end)
            if what is not None:
                wanted = what.group(1, 2, 3)
                answer = asker.answers.get(wanted)
                if answer is None:
                    answer = self._ask(asker, wanted)
                if wanted[0] is not None or _about_no_object(buffer, start, what.end(), end):
                    return answer
        self.counts.fallback += 1
        with memoryview(buffer) as whole, whole[start:end] as line:
            told = asked(line)
            return self.request(*told) if told is not None else self._decoded(bytes(line))

    def _asker(self, key: bytes) -> _Asker | None:
        """Who it is; None where no rule can match what they do, whatever the object. Raises ValueError."""
        verb, actor = _verb_and_actor(key)
        machine = self._is_machine(actor)
        opening = self._index.opening(machine, verb)
        silent = not opening.possible(Static(machine, actor, verb, None, "", ""))
        asker = None if silent else _Asker(machine, actor, verb, opening)
        if len(key) <= MAX_REMEMBERED_CHARACTERS:
            self._make_room()
            if asker is None:
                self._silent.add(key)
            else:
                self._askers[key] = asker
        return asker

    def _ask(self, asker: _Asker, wanted: _Asked) -> bool:
        """Ask the rules about one kind of request, and remember what they say."""
        resource, namespace, subresource = wanted[0], wanted[1] or b"", wanted[2] or b""
        try:
            named = None if resource is None else resource.decode()
            static = Static(asker.machine, asker.actor, asker.verb, named, subresource.decode(), namespace.decode())
        except ValueError:
            return True
        answer = bool(asker.opening.candidates(static))
        if len(resource or b"") + len(namespace) + len(subresource) <= MAX_REMEMBERED_CHARACTERS:
            self._make_room()
            asker.answers[wanted] = answer
        return answer

    def _make_room(self) -> None:
        """An attacker may invent as many names as there are requests; what they cost is a look-up, never memory."""
        self._room -= 1
        if self._room < 0:
            self._silent.clear()
            self._askers.clear()
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


def _verb_and_actor(asker: bytes) -> tuple[str, str]:
    """The two as the full decode would give them; ValueError where that is not certain (escapes cut in two, no UTF-8)."""
    verb, _, actor = asker.partition(_BETWEEN)
    if b"\\" in actor:
        return verb.decode(), _text(b'"' + actor + b'"')
    return verb.decode(), actor.decode()
