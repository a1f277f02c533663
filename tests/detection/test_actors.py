"""People and machines."""

import sys

import pytest

from forwarder.detection.actors import globs, machine_test, resolve
from forwarder.events.audit import AuditEvent, User

MACHINE = machine_test()


@pytest.mark.parametrize(
    ("username", "machine"),
    [
        ("alice@corp.example", False),
        ("kubernetes-admin", False),
        ("masterclient", False),
        ("system:admin", False),
        ("system:masters", False),
        ("system:anonymous", False),
        ("system:node:node-1", True),
        ("system:serviceaccount:shop:deployer", True),
        ("system:kube-controller-manager", True),
        ("system:apiserver", True),
        ("eks:node-manager", True),
        ("aksService", True),
        ("service-1@container-engine-robot.iam.gserviceaccount.com", True),
        ("", False),
    ],
)
def test_who_is_a_machine(username: str, machine: bool) -> None:
    """`system:` with three exceptions, and the robots of clouds."""
    assert MACHINE(username) is machine


def test_the_list_of_robots_can_be_replaced() -> None:
    """An operator knows their own."""
    is_machine = machine_test(["ci-*"])
    assert is_machine("ci-deploy")
    assert not is_machine("eks:node-manager")


def event(user: str, assumed: str | None = None) -> AuditEvent:
    impersonated = User(username=assumed, groups=("b",)) if assumed is not None else None
    return AuditEvent(user=User(username=user, groups=("a",)), impersonated_user=impersonated)


def test_a_person_who_assumes_an_identity_stays_the_actor() -> None:
    """kubectl --as hides nobody."""
    actor = resolve(event("alice", "system:serviceaccount:shop:deployer"), MACHINE)
    assert (actor.name, actor.machine, actor.acting_as, actor.via, actor.groups) == (
        "alice", False, "system:serviceaccount:shop:deployer", "", ("a",),
    )  # fmt: skip


def test_a_machine_that_acts_for_a_person_names_the_person() -> None:
    """Rancher, Teleport and OIDC proxies impersonate whoever signed in to them."""
    actor = resolve(event("system:serviceaccount:cattle-system:rancher", "alice"), MACHINE)
    assert (actor.name, actor.machine, actor.acting_as, actor.via, actor.groups) == (
        "alice", False, "", "system:serviceaccount:cattle-system:rancher", ("b",),
    )  # fmt: skip


def test_a_machine_that_acts_for_a_machine_stays_a_machine() -> None:
    """Argo CD's own impersonation is no friction."""
    actor = resolve(event("system:serviceaccount:argocd:controller", "system:serviceaccount:shop:deployer"), MACHINE)
    assert actor.machine


@pytest.mark.parametrize(
    ("patterns", "name", "matches"),
    [([], "x", False), (["a", "b"], "b", True), (["a*"], "abc", True), (["a*"], "Abc", False), (["a.c"], "abc", False)],
)
def test_globs(patterns: list[str], name: str, matches: bool) -> None:
    """Shell patterns, whole names, case matters; a dot is a dot."""
    assert globs(patterns)(name) is matches


def test_a_made_up_name_of_a_megabyte_is_not_kept() -> None:
    """Whoever may impersonate chooses the name; sixteen thousand of them would fill the memory."""
    name = "system:" + "x" * 1_000_000
    before = sys.getrefcount(name)
    assert MACHINE(name)
    assert sys.getrefcount(name) == before
