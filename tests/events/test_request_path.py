"""What the apiserver makes of a path, from its own unit tests (k8s.io/apiserver/pkg/endpoints/request/requestinfo_test.go)."""

import json
from pathlib import Path

import pytest

from forwarder.events.request_path import object_of

LINES = (Path(__file__).parents[1] / "data/control-plane/audit.log").read_bytes().splitlines()


def words(uri: str) -> tuple[str, ...] | None:
    found = object_of(uri)
    keys = ("apiGroup", "apiVersion", "namespace", "resource", "name", "subresource")
    return tuple(found[key] for key in keys) if found else None


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/api/v1/namespaces", ("", "v1", "", "namespaces", "", "")),
        ("/api/v1/namespaces/other", ("", "v1", "other", "namespaces", "other", "")),
        ("/api/v1/namespaces/other/finalize", ("", "v1", "other", "namespaces", "other", "finalize")),
        ("/api/v1/namespaces/other/pods/foo/exec?command=a/b", ("", "v1", "other", "pods", "foo", "exec")),
        ("/api/v1/watch/namespaces/other/pods", ("", "v1", "other", "pods", "", "")),
        ("/api/v1/proxy/namespaces/other/pods/foo", ("", "v1", "other", "pods", "foo", "")),
        ("/api/v1/nodes/n1/proxy/exec/a/b/c", ("", "v1", "", "nodes", "n1", "proxy")),
        (
            "/apis/apps/v1/namespaces/other/deployments/foo/scale",
            ("apps", "v1", "other", "deployments", "foo", "scale"),
        ),
        ("/api/v1/namespaces/other/%73ecrets/db", ("", "v1", "other", "secrets", "db", "")),
        ("/api/v1/namespaces/other/pods/", ("", "v1", "other", "pods", "", "")),
        ("/api/v1", None),
        ("/apis/apps", None),
        ("/apis/apps/v1", None),
        ("/api", None),
        ("/apis", None),
        ("/healthz", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_path_is_read_as_the_apiserver_reads_it(uri: str, expected: tuple[str, ...] | None) -> None:
    """Namespaces, special verbs, subresources, escapes; and what is no resource."""
    assert words(uri) == expected


def test_it_agrees_with_a_real_apiserver() -> None:
    """But for the name of a created object, which stands in its body, and of a list by name, which stands in its query."""
    for line in LINES:
        event = json.loads(line)
        reference, found = event.get("objectRef"), object_of(event["requestURI"])
        if reference is None:
            assert found is None
            continue
        assert found is not None
        for key in ("resource", "namespace", "apiGroup", "apiVersion", "subresource"):
            if key == "namespace" and reference["resource"] == "namespaces":
                continue
            assert found[key] == reference.get(key, ""), event["requestURI"]
        assert found["name"] in ("", reference.get("name", ""))
