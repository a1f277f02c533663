"""Exports: everything, in two formats, and nothing that a spreadsheet would run."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from forwarder.backend.extras.export import cell

Payload = Callable[..., dict[str, Any]]


def test_everything(client: TestClient, payload: Payload) -> None:
    """More than one part's worth, each event once, in both formats; the filter holds."""
    client.post("/events", json=[payload(id=f"{n}", actor="jane") for n in range(700)] + [payload(actor="joe")])
    lines = client.get("/api/v1/export?actor=jane").text.splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(f"{n}" for n in range(700))
    answer = client.get("/api/v1/export?actor=jane&format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert sorted(row["id"] for row in rows) == sorted(f"{n}" for n in range(700))
    assert 'filename="friction-events.csv"' in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@x", "'@x"),
        (" =1", "' =1"),
        ("\t=1", "'\t=1"),
        ("jane", "jane"),
        (["10.0.0.1", "::1"], "10.0.0.1 ::1"),
        (None, ""),
        (7, "7"),
    ],
)
def test_no_formula(value: Any, text: str) -> None:
    """What a spreadsheet would take for a formula is text in it."""
    assert cell(value) == text
