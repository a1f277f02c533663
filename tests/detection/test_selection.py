"""Which audit events a stream takes."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from forwarder.detection.actors import ROBOTS
from forwarder.detection.loader import load_selection
from forwarder.detection.selection import selection
from forwarder.errors import ConfigError
from forwarder.events.audit import decode
from forwarder.settings import parse_document


def selected(
    event: dict[str, Any], select: Sequence[Any] = (), stages: tuple[str, ...] = (), *, ignore_system: bool = False
) -> bool:
    document = parse_document(json.dumps({"select": list(select)}), "f.yaml")
    wants = selection(load_selection(document, ("select",)), stages, ignore_system=ignore_system, robots=ROBOTS)
    line = {
        "kind": "Event", "auditID": "a", "stage": "ResponseComplete", "verb": "get", "user": {"username": "jane"},
        "objectRef": {"resource": "pods", "namespace": "kube-system", "name": "web", "subresource": "exec"},
        "responseStatus": {"code": 403},
    }  # fmt: skip
    return wants(decode(json.dumps(line | event).encode()))


def test_without_any_condition_everything_is_taken() -> None:
    """Machines, denied requests and system namespaces too."""
    assert selected({"user": {"username": "system:kube-scheduler"}})


@pytest.mark.parametrize(
    ("select", "taken"),
    [
        ([{"resource": "pods", "subresource": "exec"}], True),
        ([{"resource": "pods", "subresource": "exec", "outcome": "allowed"}], False),
        ([{"resource": "secrets"}, {"users": ["ja*"]}], True),
        ([{"resource": "pods", "subresource": "none"}], False),
        ([{"names": ["web"], "namespaces": ["kube-*"]}], True),
        ([{"verb": "delete"}], False),
    ],
)
def test_one_item_that_fits_is_enough(select: list[Any], taken: bool) -> None:
    """All conditions of an item hold; an item without an outcome takes denied requests too."""
    assert selected({}, select) is taken


def test_stages_and_machines_are_left_out_on_request() -> None:
    """Most destinations want each request once, and people only."""
    assert not selected({"stage": "RequestReceived"}, stages=("ResponseComplete",))
    assert selected({}, stages=("ResponseComplete",))
    assert not selected({"user": {"username": "system:kube-scheduler"}}, ignore_system=True)
    assert selected({}, ignore_system=True)
    assert not selected({}, [{"verb": "delete"}], ignore_system=True)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"resouce": "pods"}, "did you mean `resource`?"),
        ({"verb": "exec"}, "`select.0`: `exec` is no audit verb"),
        ({}, "matches every request"),
        ("pods", "a mapping"),
    ],
)
def test_what_cannot_be_meant_is_refused(item: Any, words: str) -> None:
    """With the place where it stands."""
    with pytest.raises(ConfigError) as caught:
        selected({}, [item])
    assert words in str(caught.value)
    assert str(caught.value).startswith("f.yaml")
