"""Names, owners and annotations, out of every shape that a body has."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.events.bodies import BodyMetadata, OwnerReference, annotations_of, metadata_of

POD = {
    "kind": "Pod",
    "metadata": {
        "name": "web-1",
        "generateName": "web-",
        "namespace": "shop",
        "annotations": {"a": "1", "b": "2"},
        "ownerReferences": [
            {"kind": "ReplicaSet", "name": "web", "controller": True, "uid": "u"},
            {"kind": "Other", "name": "x"},
        ],
        "labels": {"app": "web"},
    },
    "spec": {"containers": [{"name": "c"}]},
}
METADATA = BodyMetadata(
    name="web-1",
    generate_name="web-",
    namespace="shop",
    annotations={"a": "1", "b": "2"},
    owner_references=(
        OwnerReference(kind="ReplicaSet", name="web", controller=True),
        OwnerReference(kind="Other", name="x"),
    ),
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())


def test_the_metadata_of_an_object() -> None:
    assert metadata_of(raw(POD)) == METADATA
    assert annotations_of(raw(POD)) == {"a": "1", "b": "2"}


def test_the_scanner_reads_what_the_decoder_refuses() -> None:
    """The same metadata when a byte is bad, when the object is cut behind it, and when it nests too deep."""
    text = json.dumps(POD).encode()
    assert metadata_of(raw(text.replace(b'"app": "web"', b'"app": "w\xff\0"'))) == METADATA
    assert metadata_of(raw(text[: text.index(b'"containers"')])) == METADATA
    deep = b"[" * 5000 + b"]" * 5000
    assert metadata_of(raw(b'{"x":' + deep + b"," + text[1:])) == METADATA
    assert metadata_of(raw(text.replace(b'{"app": "web"}', deep))) == METADATA


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'"skipped-too-big-size-object"',
        b"5",
        b"{}",
        b"[]",
        b'{"metadata":null}',
        b'{"metadata":"x"}',
        b"\xff",
        b"{",
    ],
)
def test_a_body_without_metadata_has_none(body: bytes) -> None:
    """Absent, null, text, or no JSON at all: an empty answer, no error."""
    assert metadata_of(raw(body)) == BodyMetadata()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"annotations": None, "name": "x"}, BodyMetadata(name="x")),
        ({"annotations": {"a": None, "b": 1, "c": "x"}}, BodyMetadata(annotations={"c": "x"})),
        ({"annotations": ["a"], "name": 5}, BodyMetadata()),
        ({"ownerReferences": "x", "namespace": "n"}, BodyMetadata(namespace="n")),
        (
            {"ownerReferences": [{"kind": 1, "controller": "yes"}, 7]},
            BodyMetadata(owner_references=(OwnerReference(),) * 2),
        ),
    ],
)
def test_odd_types_cost_only_themselves(metadata: Any, expected: BodyMetadata) -> None:
    """A merge patch removes with null; other odd values are skipped one by one."""
    assert metadata_of(raw({"metadata": metadata})) == expected


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        pytest.param(
            [{"op": "add", "path": "/metadata/annotations/policy.admission.k8s.io~1bypass", "value": "true"}],
            {"policy.admission.k8s.io/bypass": "true"},
            id="one annotation",
        ),
        pytest.param(
            [{"value": "v", "path": "/metadata/annotations/a~01b", "op": "replace"}], {"a~1b": "v"}, id="tilde"
        ),
        pytest.param(
            [{"op": "add", "path": "/metadata/annotations", "value": {"a": "1", "n": 2}}], {"a": "1"}, id="all"
        ),
        pytest.param(
            [{"op": "replace", "path": "/metadata", "value": {"annotations": {"a": "1"}}}], {"a": "1"}, id="metadata"
        ),
        pytest.param(
            [{"op": "replace", "path": "", "value": {"metadata": {"annotations": {"a": "1"}}}}], {"a": "1"}, id="object"
        ),
        pytest.param([{"op": "test", "path": "/metadata/annotations/a", "value": "1"}], {}, id="a test sets nothing"),
        pytest.param([{"op": "add", "path": "/metadata/labels/a", "value": "1"}], {}, id="labels"),
        pytest.param(
            [{"op": "add", "path": "/spec/template/metadata/annotations/a", "value": "1"}], {}, id="of a template"
        ),
        pytest.param([{"op": "add", "path": "/metadata/annotations/a", "value": {"x": 1}}], {"a": ""}, id="no text"),
        pytest.param(["x", None, {"op": 1, "path": []}, {"op": "add", "path": "", "value": 1}], {}, id="odd"),
        pytest.param(
            [
                {"op": "add", "path": "/metadata/annotations", "value": {"a": "1", "b": "2"}},
                {"op": "remove", "path": "/metadata/annotations/a"},
                {"op": "replace", "path": "/metadata/annotations/b", "value": "3"},
            ],
            {"b": "3"},
            id="in order",
        ),
    ],
)
def test_a_json_patch_sets_annotations(patch: Any, expected: dict[str, str]) -> None:
    """What a JSON Patch leaves set, as far as it says so itself."""
    assert annotations_of(raw(patch)) == expected


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80), cut=st.integers(0, 500), at=st.integers(0, 400))
def test_no_body_raises(data: bytes, cut: int, at: int) -> None:
    """Cut, mutated or random bytes give metadata or none."""
    text = json.dumps(POD).encode()
    for body in (data, text[:cut], text[:at] + data + text[at:], b"[" + data):
        assert isinstance(metadata_of(raw(body)), BodyMetadata)
