"""The table of Kubernetes' own objects."""

from forwarder.detection.api_objects import (
    CLUSTER_WIDE,
    GROUPS,
    NAMESPACED,
    SUBRESOURCES,
    ApiObject,
    subresources_of,
    verbs_of,
)
from forwarder.detection.loader import RESOURCES


def test_every_resource_that_rules_know_has_a_group_and_a_scope() -> None:
    """The loader's list and this table are about the same API."""
    assert RESOURCES - {"podtemplates"} <= set(GROUPS)
    assert set(GROUPS) == CLUSTER_WIDE | NAMESPACED
    assert not CLUSTER_WIDE & NAMESPACED
    assert GROUPS["events"] == ("", "events.k8s.io")


def test_subresources_are_of_resources_that_exist() -> None:
    """A typing error would make a rule look unfed."""
    assert set(SUBRESOURCES) - {"anything"} <= set(GROUPS)
    assert subresources_of("pods")[0] == ""
    assert subresources_of("secrets") == ("",)
    assert subresources_of("widgets") == ("", "scale", "status")


def test_verbs() -> None:
    """Of an object, of a session, and of a subresource that nobody knows."""
    assert "deletecollection" in verbs_of("")
    assert verbs_of("log") == ("get",)
    assert "patch" in verbs_of("unheard-of")


def test_an_object_as_policies_write_it() -> None:
    """In findings."""
    assert str(ApiObject("apps", "deployments", "scale")) == "deployments/scale"
    assert str(ApiObject("", "secrets", "", "db")) == "secrets db"
    assert str(ApiObject("apps", "anything")) == "any other resource of apps"
    assert str(ApiObject("any.example.com", "anything")) == "any other resource of any other group"
