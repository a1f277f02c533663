"""Differential fuzz: the fast path against the full decode and the same rules, on lines that nobody should write.

FUZZ_LINES says how many, FUZZ_SEED from where on; `make fuzz` runs millions. Detectors are shared by all lines, so that
an answer remembered under the wrong key shows in a later one.
"""

import json
import os
import random
import re
from collections.abc import Iterable, Iterator

import msgpack
import pytest

from forwarder.detection import screen
from forwarder.detection.detector import Detector
from forwarder.detection.loader import load_rules
from forwarder.errors import MalformedEvent
from forwarder.wire import forward_records
from forwarder.wire.forward_entries import Other
from tests.detection.fuzz import lines

LINES = int(os.environ.get("FUZZ_LINES", "60000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
PLANTED_LINES = 40_000  # within which every planted bug has to show

# Every static condition, for machines too, so that most lines are read to the end.
EVERY_CONDITION = """
rules:
  - {name: by-user, description: x, severity: low, match: {verb: get, users: ["alice", "system:node:*"], resource: secrets}}
  - {name: not-by-user, description: x, severity: low, match: {verbs: [create, patch], ignore_users: ["bob*"], ignore_resources: [pods]}}
  - {name: by-namespace, description: x, severity: low, match: {namespaces: ["prod-*", team-1], resource: "*"}}
  - {name: by-part, description: x, severity: low, match: {namespace_contains: PROD, subresource: none}}
  - {name: any-exec, description: x, severity: low, match: {subresources: [exec, attach]}}
  - {name: by-escaped-user, description: x, severity: low, match: {users: ["a&b"], resource: "*"}}
  - {name: urls, description: x, severity: low, match: {verb: delete, ignore_resources: [things]}}
"""


@pytest.fixture
def detectors(tmp_path) -> list[Detector]:
    (tmp_path / "every.yaml").write_text(EVERY_CONDITION)
    sets = (["rules/friction.yaml", "rules/extended.yaml"], [str(tmp_path / "every.yaml")])
    return [Detector(load_rules(rules), own_namespace="team-1") for rules in sets]


def hidden(detectors: list[Detector], given: Iterable[bytes]) -> list[bytes]:
    """Lines that the screen drops although a rule fires on them."""
    return list(all_hidden(detectors, given))


def all_hidden(detectors: list[Detector], given: Iterable[bytes]) -> Iterator[bytes]:
    for line in given:
        for detector in detectors:
            if not detector.screen(line, 0, len(line)) and detector.examine(line).events:
                yield line


def test_the_fast_path_hides_nothing(detectors: list[Detector]) -> None:
    """Not one line in all that the full decode would find an event in; and most lines do test the fast path."""
    assert [line[:2000] for line in hidden(detectors, lines(random.Random(SEED), LINES))] == []
    fallback = sum(detector.screen.counts.fallback for detector in detectors)
    assert 0.5 * LINES < fallback < 1.6 * LINES  # of two looks at each line
    print(
        f"\n{LINES:,} lines from seed {SEED}, by two sets of rules: none hidden; {fallback:,} looks took the full decode"
    )


def test_many_at_once_are_judged_as_one_by_one(detectors: list[Detector]) -> None:
    """In one buffer, in the same order."""
    given = list(lines(random.Random(SEED + 1), 5000))
    buffer, spans = bytearray(), []
    for line in given:
        spans.append((len(buffer), len(buffer) + len(line)))
        buffer += line + b'","verb":"get"'
    for detector in detectors:
        alone = [position for position, (start, end) in enumerate(spans) if detector.screen(buffer, start, end)]
        assert detector.screen.candidates(buffer, spans) == alone


def test_parsed_events_hide_nothing_either(detectors: list[Detector]) -> None:
    """The same events as maps: what is asked without building them agrees with the line that they would become."""
    certain = 0
    decode = forward_records.decoder("log")
    assert decode
    for line in lines(random.Random(SEED + 2), LINES // 4):
        try:
            packed = msgpack.packb(json.loads(line), unicode_errors="surrogatepass")
        except (ValueError, RecursionError, OverflowError, UnicodeDecodeError):
            continue
        entry = Other(0, 0, len(packed))
        asked = forward_records.asked(memoryview(packed), entry, decode)
        if asked is None:
            continue
        certain += 1
        for detector in detectors:
            if not detector.screen.request(*asked):
                try:
                    assert not detector.examine(forward_records.to_line(packed, entry, "log")).events, line
                except MalformedEvent:
                    pass
    assert certain > LINES // 10
    print(f"\n{certain:,} maps that are judged without building them: none hidden")


_NEXT_KEY = rb"(?:responseStatus|requestObject|responseObject|requestReceivedTimestamp)"
PLANTED = {
    "an object ends at an escaped quote": ("_WHAT", [(rb'"name":"[^"\\]*+"', rb'"name":"[^"]*+"'), (rb'\},"' + _NEXT_KEY + b'":', rb"\}")]),
    "a subresource is overlooked": ("_WHAT", [(rb'(?:,"subresource":"([^"\\]*+)")?', rb'(?:,"subresource":"[^"\\]*+")?()')]),
    "keys may follow in any order": ("_WHAT", [(_NEXT_KEY, rb"[A-Za-z]+")]),
    "who is impersonated is overlooked": ("_WHO", [(rb'\},"sourceIPs":\[', rb'\},(?:"impersonatedUser":\{[^}]*+\},)?"sourceIPs":\[')]),
    "a verb is looked for": ("_WHO", [(rb'"requestURI":"[^"]*+","verb":"', rb'.*?"verb":"')]),
    "an escaped user is taken as it stands": ("_verb_and_actor", []),
}  # fmt: skip


@pytest.mark.parametrize("bug", PLANTED, ids=str)
def test_a_planted_bug_is_found(bug: str, detectors: list[Detector], monkeypatch: pytest.MonkeyPatch) -> None:
    """So silence above means something: each mistake that this fast path could be written with shows."""
    name, changes = PLANTED[bug]
    if not changes:
        monkeypatch.setattr(screen, name, lambda key: tuple(part.decode() for part in key.split(screen._BETWEEN, 1)))
    else:
        pattern = getattr(screen, name).pattern
        for right, wrong in changes:
            assert right in pattern
            pattern = pattern.replace(right, wrong)
        monkeypatch.setattr(screen, name, re.compile(pattern))
    assert next(all_hidden(detectors, lines(random.Random(SEED), PLANTED_LINES)), None) is not None
