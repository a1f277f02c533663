"""What a body may say when it leaves: never a planted secret, always what was touched."""

import json
from typing import Any

import pytest

from forwarder.events.redact_body import MAX_DEPTH, MAX_TEXT_CHARS, body

PLANTED = "hunter2-Planted"


def left(value: Any, resource: str = "pods") -> Any:
    return json.loads(body(json.dumps(value).encode(), resource))


@pytest.mark.parametrize(
    ("value", "resource"),
    [
        pytest.param({"kind": "Secret", "data": {"password": PLANTED}}, "secrets", id="secret"),
        pytest.param({"data": {"password": PLANTED}}, "secrets", id="merge-patch-of-a-secret"),
        pytest.param({"stringData": {"x": PLANTED}}, "secrets", id="string-data"),
        pytest.param({"kind": "SecretList", "items": [{"data": {"x": PLANTED}}]}, "secrets", id="list-of-secrets"),
        pytest.param({"kind": "List", "items": [{"kind": "Secret", "data": {"x": PLANTED}}]}, "lists", id="secret-in-a-list"),
        pytest.param([{"op": "add", "path": "/data/x", "value": PLANTED}], "secrets", id="json-patch"),
        pytest.param([{"op": "replace", "path": "/data", "value": {"x": PLANTED}}], "secrets", id="json-patch-of-all-data"),
        pytest.param([{"op": "test", "path": "", "value": {"data": {"x": PLANTED}}}], "secrets", id="json-patch-of-the-object"),
        pytest.param({"kind": "ConfigMap", "data": {"app.conf": PLANTED}}, "configmaps", id="config-map"),
        pytest.param({"binaryData": {"blob": PLANTED}}, "configmaps", id="binary-data"),
        pytest.param({"kind": "TokenRequest", "status": {"token": PLANTED}}, "serviceaccounts", id="token-request"),
        pytest.param({"kind": "TokenReview", "spec": {"token": PLANTED}}, "tokenreviews", id="token-review"),
        pytest.param({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": PLANTED}}}, "deployments", id="last-applied"),
        pytest.param([{"op": "add", "path": "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration", "value": PLANTED}], "pods", id="last-applied-by-patch"),
        pytest.param({"spec": {"containers": [{"env": [{"name": "DB_PASSWORD", "value": PLANTED}]}]}}, "pods", id="variable"),
        pytest.param({"spec": {"containers": [{"args": ["mysql", "--password", PLANTED]}]}}, "pods", id="argument"),
        pytest.param({"spec": {"containers": [{"command": ["sh", "-c", f"curl -H 'Authorization: Bearer {PLANTED}' http://x"]}]}}, "pods", id="command"),
        pytest.param({"spec": {"url": f"postgres://app:{PLANTED}@db/shop"}}, "widgets", id="password-in-a-url"),
        pytest.param({"spec": {"clientSecret": PLANTED}}, "issuers", id="telling-name"),
        pytest.param({"spec": {"tokens": [PLANTED, "b"]}}, "issuers", id="list-under-a-telling-name"),
        pytest.param(f"password={PLANTED}", "pods", id="a-text-for-a-body"),
    ],
)  # fmt: skip
def test_a_planted_secret_does_not_leave(value: Any, resource: str) -> None:
    """Wherever Kubernetes lets people put one."""
    out = body(json.dumps(value).encode(), resource)
    assert PLANTED.encode() not in out
    json.loads(out)


def test_names_and_harmless_values_stay() -> None:
    """What was touched is what an audit log is for."""
    secret = {
        "kind": "Secret",
        "metadata": {"name": "db", "labels": {"app": "shop"}},
        "data": {"user": "x", "none": None},
    }
    assert left(secret, "secrets") == secret | {"data": {"user": "[redacted]", "none": None}}
    pod = {
        "kind": "Pod",
        "spec": {
            "automountServiceAccountToken": False,
            "imagePullSecrets": [{"name": "registry"}],
            "containers": [{"name": "web", "image": "nginx:1.27", "env": [{"name": "MODE", "value": "fast"}], "args": ["--port", "80"]}],
            "volumes": [{"secret": {"secretName": "tls"}}],
        },
    }  # fmt: skip
    assert left(pod) == pod
    assert left([{"op": "remove", "path": "/data/x"}], "secrets") == [{"op": "remove", "path": "/data/x"}]


def test_data_of_other_kinds_is_not_hidden() -> None:
    """A custom resource may have a field of that name."""
    assert left({"kind": "Widget", "data": {"size": "large"}}, "widgets") == {
        "kind": "Widget",
        "data": {"size": "large"},
    }


@pytest.mark.parametrize("text", [b"{", b"\xff", b"", b"[" * 5000 + b"]" * 5000])
def test_what_cannot_be_read_is_replaced(text: bytes) -> None:
    """Nothing is sent unseen."""
    assert json.loads(body(text, "pods")) == "[redacted]: cannot be read"


def test_depth_and_length_are_bounded() -> None:
    """What is not looked through does not leave."""
    deep: Any = PLANTED
    for _ in range(MAX_DEPTH + 50):
        deep = {"a": deep}
    assert PLANTED.encode() not in body(json.dumps(deep).encode(), "pods")
    assert left({"log": "x" * (MAX_TEXT_CHARS + 1)}) == {"log": f"[redacted]: {MAX_TEXT_CHARS + 1} characters"}


@pytest.mark.parametrize("kind", [{}, [], {"a": ["Secret"]}, 7, None])
def test_a_kind_that_is_no_text_is_nobodys(kind: object) -> None:
    """A custom resource may hold anything under that name; it must not stop the batch that it is in."""
    raw = json.dumps({"spec": {"kind": kind, "data": {"plain": "word"}, "password": "hunter2"}}).encode()
    found = json.loads(body(raw, "widgets"))
    assert found["spec"]["data"] == {"plain": "word"}
    assert found["spec"]["password"] == "[redacted]"
