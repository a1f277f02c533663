"""People and machines."""

import sys

import pytest

from forwarder.detection.actors import globs, machine_test, resolve, session_person
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


@pytest.mark.parametrize(
    ("names", "person"),
    [
        (["bob@corp.example"], "bob@corp.example"),
        ([""], ""),
        ([], ""),
        (["bob", "carol"], ""),
        (["i-0123456789abcdef0"], ""),
        (["botocore-session-1795660178"], ""),
        (["aws-go-sdk-1795660178000000000"], ""),
        (["EKSGetTokenAuth"], ""),
        (["i-am-bob"], "i-am-bob"),
    ],
)
def test_a_session_names_its_person(names: list[str], person: str) -> None:
    """Only where it is one name, and none that a machine made up."""
    user = User(username="kubernetes-admin", uid="aws-iam-authenticator:1:AROA", extra={"sessionName": names})
    assert session_person(user) == person


@pytest.mark.parametrize(
    ("username", "uid"),
    [
        ("kubernetes-admin", "1"),
        ("kubernetes-admin", ""),
        ("arn:aws:sts::1:assumed-role/Admin/bob@corp.example", "aws-iam-authenticator:1:AROA"),
        ("admin:bob-corp.example", "aws-iam-authenticator:1:AROA"),
    ],
)
def test_a_name_that_holds_the_session_stays(username: str, uid: str) -> None:
    """And so does that of another authenticator: it may mean anything by `sessionName`."""
    assert session_person(User(username=username, uid=uid, extra={"sessionName": ["bob@corp.example"]})) == ""
