"""A policy as text."""

from forwarder.detection.policy import read_policy
from forwarder.detection.policy_text import WIDTH, Part, yaml_of
from forwarder.settings import parse_document

PARTS = [
    Part(comment="why " * 60, level="None", users=("system:apiserver", "yes", "1", "a'b"), urls=("*",)),
    Part(comment="bodies", level="RequestResponse", verbs=("get",) * 60, namespaces=("shop",), objects=(("", "pods/*"), ("apps", "deployments"), ("", "secrets"))),
]  # fmt: skip


def test_it_says_exactly_the_parts_and_fits_a_screen() -> None:
    """Whatever a YAML reader could take for something else is quoted."""
    text = yaml_of([PARTS[0], PARTS[1]], ["made by hand"])
    data = parse_document(text, "p").data
    assert data["rules"][0] == {
        "level": "None",
        "users": ["system:apiserver", "yes", "1", "a'b"],
        "nonResourceURLs": ["*"],
    }
    assert data["rules"][1]["resources"] == [
        {"group": "", "resources": ["pods/*", "secrets"]},
        {"group": "apps", "resources": ["deployments"]},
    ]
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("# made by hand\n")


def test_managed_fields_are_left_out_of_bodies_only() -> None:
    """Without bodies the key would say nothing."""
    assert "omitManagedFields: true" in yaml_of(PARTS[1:], [])
    plain = yaml_of([Part(comment="c", level="Metadata")], [])
    assert "omitManagedFields" not in plain
    assert read_policy(parse_document(plain, "p")).omit_stages == ("RequestReceived",)
