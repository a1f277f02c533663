"""Rules as sentences."""

from pathlib import Path

import pytest

from forwarder.cli.rule_words import rule_words
from forwarder.detection.loader import load_rules
from forwarder.settings import shipped


@pytest.mark.parametrize(
    ("match", "more", "words"),
    [
        (
            "{resource: pods, subresource: exec}",
            "ignore_system: true",
            "Somebody who is no machine makes any request to pods (subresource exec), and it was allowed.",
        ),
        (
            "{resources: [secrets, configmaps], verbs: [get, list], namespace_contains: prod}",
            "",
            (
                "Somebody does get or list on configmaps or secrets, in a namespace whose name contains “prod”, "
                "and it was allowed."
            ),
        ),
        (
            "{verb: delete, subresource: none, resource: pods, outcome: [denied, failed], users: ['a*', b]}",
            "",
            "A* or b does delete on pods (the object itself, not a subresource), and it was denied or failed.",
        ),
        (
            "{annotation: 'k=v', impersonated: true, ignore_users: [ci], namespaces: [shop], ignore_namespaces: [shop-dev]}",
            "unless: ['*']",
            (
                "Somebody, except ci, acting as somebody else makes any request at all, in the namespace shop, not in the "
                "namespace shop-dev, with the annotation k=v, and it was allowed. Stays silent when any other rule fires."
            ),
        ),
    ],
)
def test_a_rule_in_words(tmp_path: Path, match: str, more: str, words: str) -> None:
    """Every condition of a rule is in its sentence."""
    path = tmp_path / "rules.yaml"
    path.write_text(f"rules:\n- name: abc\n  description: d\n  severity: low\n  match: {match}\n  {more}\n")
    (rule,) = load_rules([path]).rules
    assert rule_words(rule) == words


def test_every_shipped_rule_has_a_sentence() -> None:
    """No shipped rule makes an empty or doubled word."""
    for rule in load_rules([shipped("rules/friction.yaml"), shipped("rules/extended.yaml")]).rules:
        words = rule_words(rule)
        assert words.endswith(".")
        assert "  " not in words
        assert " ," not in words
