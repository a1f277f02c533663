"""Rules files: what is read, and what is refused with which words."""

from pathlib import Path

import pytest

from forwarder.detection.loader import load_rules
from forwarder.errors import ConfigError

RULE = """
rules:
  - name: kubectl-exec
    description: "exec by {actor}"
    severity: high
    match:
      resource: pods
      subresource: exec
"""


def write(folder: Path, text: str, name: str = "rules.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_healert_file_loads_unmodified() -> None:
    """Its five active rules, and its list of ignored namespaces."""
    ruleset = load_rules(["tests/data/healert-rules.yaml"])
    assert [rule.name for rule in ruleset.rules] == [
        "kubectl-exec",
        "pipeline-skip",
        "config-drift",
        "port-forward",
        "emergency-access",
    ]
    assert "argocd" in ruleset.ignore_namespaces
    assert ruleset.warnings == ()
    assert [rule.points for rule in ruleset.rules] == [10, 10, 10, 6, 6]


def test_every_optional_rule_of_a_healert_file_loads_too(tmp_path: Path) -> None:
    """They stand there as comments; people uncomment them."""
    text = Path("tests/data/healert-rules.yaml").read_text()
    head, _, tail = text.partition("# OPTIONAL RULES")
    lines = []
    for line in tail.split("# RULE TEMPLATE")[0].splitlines():
        bare = line.removeprefix("  # ")
        if line.startswith("  # ") and (
            bare.startswith("- name:")
            or ((lines and bare.startswith("  ") and ":" in bare) or bare.strip().startswith("- "))
        ):
            lines.append("  " + bare)
    ruleset = load_rules([write(tmp_path, head + "\n" + "\n".join(lines))])
    assert len(ruleset.rules) == 16
    assert {"pod-log-access", "rbac-change", "pv-deletion", "configmap-drift"} <= {rule.name for rule in ruleset.rules}


def test_the_order_of_keys_and_yaml_style_do_not_matter(tmp_path: Path) -> None:
    """Inline lists, comments inside lists, single quotes, severity behind match: all of them are YAML."""
    ruleset = load_rules(
        [
            write(
                tmp_path,
                """
rules:
  - match:
      resources:
        - pods   # trailing comment

        # a comment line
        - 'deployments'
      verbs: [create, patch]
    severity: medium  # here too
    name: odd-order
    description: 'it works'
""",
            )
        ]
    )
    (rule,) = ruleset.rules
    assert rule.resources == {"pods", "deployments"}
    assert rule.verbs == {"create", "patch"}
    assert rule.severity == "medium"


def test_kubernetes_own_namespaces_are_ignored_and_those_that_files_add(tmp_path: Path) -> None:
    """Healert's built-in filter: kube-system and its like need no configuration; who wants to see them says so."""
    own = ("kube-system", "kube-public", "kube-node-lease")
    plain = write(tmp_path, RULE)
    said = write(
        tmp_path, "config: {ignore_namespaces: [vault]}\n" + RULE.replace("kubectl-exec", "exec-two"), "b.yaml"
    )
    text = "config: {watch_system_namespaces: true, ignore_namespaces: [kube-public]}\n"
    seen = write(tmp_path, text + RULE.replace("kubectl-exec", "exec-three"), "c.yaml")
    assert load_rules([plain]).ignore_namespaces == own
    assert load_rules([plain, said]).ignore_namespaces == (*own, "vault")
    assert load_rules([seen]).ignore_namespaces == ("kube-public",)
    assert load_rules([plain, said, seen]).ignore_namespaces == ("vault", "kube-public")


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (
            ("resource: pods", "resouce: pods"),
            7,
            "rule `kubectl-exec`: unknown key `match.resouce`; did you mean `resource`?",
        ),
        (
            ("severity: high", "severity: hihg"),
            5,
            "rule `kubectl-exec`: `severity`: 'hihg' is none of high, medium, low",
        ),
        (
            ("severity: high", "severity: high\n    severty: low"),
            6,
            "rule `kubectl-exec`: unknown key `severty`; did you mean `severity`?",
        ),
        (("    severity: high\n", ""), 3, "rule `kubectl-exec`: it lacks the key `severity`"),
        (("resource: pods", "resource: Pod"), 7, "`Pod` is no resource; the audit log says `pods`"),
        (("resource: pods", "resource: deploy"), 7, "the audit log says `deployments`"),
        (("resource: pods", "resource: pods/exec"), 7, "write `resource: pods` and `subresource: exec`"),
        (("resource: pods", "resource: [pods]"), 7, "expected text"),
        (("subresource: exec", "subresource: port-forward"), 8, "did you mean `portforward`?"),
        (("subresource: exec", "verb: connect"), 8, "admission"),
        (("subresource: exec", "verb: pathc"), 8, "`pathc` is no audit verb; did you mean `patch`?"),
        (("subresource: exec", "verbs: [get, creat]"), 8, "did you mean `create`?"),
        (("subresource: exec", "annotation: bypass"), 8, 'written "key=value"'),
        (("subresource: exec", "outcome: allow"), 8, "did you mean `allowed`?"),
        (("subresource: exec", "verb: get\n      verbs: [get]"), 9, "cannot both be set"),
        (("{actor}", "{actr}"), 4, "`{actr}` is no token; did you mean `actor`?"),
        (("name: kubectl-exec", "name: Kubectl_Exec"), 3, "3 to 50 of a-z"),
        (("severity: high", "severity: high\n    points: 500"), 6, "from 1 to 100"),
        (("resource: pods\n      subresource: exec", "outcome: denied"), 6, "matches every request"),
        (("resource: pods\n      subresource: exec", 'users: ["*"]'), 6, "`*` alone means any"),
        (("resource: pods\n      subresource: exec", 'users: ["**"]'), 6, "`*` alone means any"),
        (("resource: pods\n      subresource: exec", 'resource: "*"'), 6, "matches every request"),
        (("subresource: exec", 'ignore_users: ["*"]'), 6, "cannot match"),
        (("subresource: exec", "api_groups: [apps/v1]"), 8, "without its version: `apps`"),
        (("subresource: exec", "ignore_resources: [secret]"), 8, "the audit log says `secrets`"),
        (("    match:", "    unless: [kubectl-exec]\n    match:"), 3, "cannot yield to itself"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, change: tuple[str, str], line: int, words: str) -> None:
    """With file, line, the rule and the nearest valid word."""
    path = write(tmp_path, RULE.replace(*change))
    with pytest.raises(ConfigError) as caught:
        load_rules([path])
    assert str(caught.value).startswith(f"{path}:{line}:"), str(caught.value)
    assert words in str(caught.value)


def test_a_name_may_stand_once_over_all_files(tmp_path: Path) -> None:
    """The second place is refused, the first is named."""
    one, two = write(tmp_path, RULE), write(tmp_path, RULE, "two.yaml")
    with pytest.raises(
        ConfigError, match=rf"two.yaml:3: rule `kubectl-exec` stands here a second time; the first is {one}:3"
    ):
        load_rules([one, two])


def test_rules_that_yield_in_a_circle_are_refused(tmp_path: Path) -> None:
    """Neither could ever fire."""
    text = RULE.replace("    match:", "    unless: [other-rule]\n    match:")
    text += (
        RULE.replace("kubectl-exec", "other-rule")
        .replace("    match:", "    unless: [kubectl-exec]\n    match:")
        .replace("rules:", "")
    )
    with pytest.raises(ConfigError, match="circle: kubectl-exec → other-rule → kubectl-exec"):
        load_rules([write(tmp_path, text)])


def test_a_typing_error_in_unless_is_refused_an_unknown_rule_warned_of(tmp_path: Path) -> None:
    """The rule may stand in a file that is not loaded now."""
    text = RULE + RULE.replace("kubectl-exec", "other-rule").replace(
        "    match:", "    unless: [{}]\n    match:"
    ).replace("rules:", "")
    with pytest.raises(ConfigError, match="did you mean `kubectl-exec`"):
        load_rules([write(tmp_path, text.replace("{}", "kubectl-exce"))])
    ruleset = load_rules([write(tmp_path, text.replace("{}", "something-else"))])
    assert ["not loaded" in warning for warning in ruleset.warnings] == [True]


def test_an_odd_workflow_and_an_unknown_resource_are_warnings(tmp_path: Path) -> None:
    """Custom resources exist; a near miss of a known one is worth a word."""
    text = RULE.replace("severity: high", "severity: high\n    workflow: firefighting").replace(
        "resource: pods", "resource: deploymnets"
    )
    warnings = load_rules([write(tmp_path, text)]).warnings
    assert any("workflow `firefighting`" in warning for warning in warnings)
    assert any("did you mean `deployments`" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no rules file"),
        ("rules: []", "no rules in it"),
        ("rules: {a: b}", "needs a list"),
        ("- a", "no rules file"),
        ("a: [", "not valid YAML"),
        ('config: {ignore_namespaces: ["*"]}\nrules: []', "nothing can be found"),
    ],
)
def test_what_is_no_rules_file_is_said(tmp_path: Path, text: str, words: str) -> None:
    """An empty set would silently find nothing."""
    with pytest.raises(ConfigError, match=words):
        load_rules([write(tmp_path, text)])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the system's own word."""
    with pytest.raises(ConfigError, match=r"absent.yaml: cannot read it: No such file"):
        load_rules([tmp_path / "absent.yaml"])


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    """As a mounted ConfigMap is one."""
    write(tmp_path, RULE, "a.yaml")
    write(tmp_path, RULE.replace("kubectl-exec", "exec-two"), "b.yml")
    write(tmp_path, "nonsense", ".hidden.yaml")
    assert [rule.name for rule in load_rules([tmp_path]).rules] == ["kubectl-exec", "exec-two"]
