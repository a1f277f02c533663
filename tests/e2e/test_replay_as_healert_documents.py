"""`forwarder replay` with a Healert rules.yaml finds what Healert's documentation says, over 100,000 lines.

The oracle below is written from the comments of that file (tests/data/healert-rules.yaml) alone, on plain dicts, sharing
no code with the detector. Where the documentation is silent the product's own answers hold and are named: one event per
request and rule (not per stage), requests that failed or were denied are no bypass, the person behind an impersonation acts.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from forwarder.events.sample import SampleLog

pytestmark = pytest.mark.e2e

RULES = Path("tests/data/healert-rules.yaml")
SYSTEM = ("system:",)
PEOPLE = ("system:admin", "system:masters", "system:anonymous")


def as_documented(event: dict[str, Any], rules: dict[str, Any]) -> Iterator[str]:
    reference = event.get("objectRef") or {}
    user = event["user"]["username"]
    assumed = (event.get("impersonatedUser") or {}).get("username")
    machine = user.startswith(SYSTEM) and user not in PEOPLE
    if machine and assumed and not (assumed.startswith(SYSTEM) and assumed not in PEOPLE):
        machine = False
    if event["stage"] == "RequestReceived" or event.get("responseStatus", {}).get("code", 200) >= 400:
        return
    for rule in rules["rules"]:
        match = rule["match"]
        if rule.get("ignore_system") and machine:
            continue
        if reference.get("namespace") in rules["config"]["ignore_namespaces"]:
            continue
        if "resource" in match and reference.get("resource") != match["resource"]:
            continue
        if "resources" in match and reference.get("resource") not in match["resources"]:
            continue
        if "subresource" in match and reference.get("subresource") != match["subresource"]:
            continue
        if "verb" in match and event["verb"] != match["verb"]:
            continue
        if "verbs" in match and event["verb"] not in match["verbs"]:
            continue
        if "annotation" in match:
            key, _, value = match["annotation"].partition("=")
            bodies = [event.get("responseObject"), event.get("requestObject")]
            found = [event.get("annotations") or {}]
            found += [
                (body.get("metadata") or {}).get("annotations") or {} for body in bodies if isinstance(body, dict)
            ]
            if not any(annotations.get(key) == value for annotations in found):
                continue
        yield rule["name"]


def test_replay_finds_the_same_events(tmp_path: Path) -> None:
    """Every (request, rule) of the oracle, and no other."""
    log = tmp_path / "audit.log"
    lines = list(SampleLog(23, start_time=time.time() - 3600, friction_share=0.03).lines(100_000))
    log.write_bytes(b"\n".join(lines) + b"\n")
    rules = yaml.safe_load(RULES.read_text())
    expected = set()
    for line in lines:
        event = json.loads(line)
        expected |= {(event["auditID"], name) for name in as_documented(event, rules)}
    command = [sys.executable, "-m", "forwarder", "replay", str(log), "--rules", str(RULES), "--output", "ndjson"]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"NO_COLOR": "1"}
    )
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert {(event["audit_id"], event["type"]) for event in found} == expected
    assert len(found) == len(expected) > 1000
    assert {name for _, name in expected} == {rule["name"] for rule in rules["rules"]}
