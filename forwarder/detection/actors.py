"""Who did it: people and machines, through impersonation.

`system:*` is a machine, except `system:admin` (k3s' admin kubeconfig), `system:masters` and `system:anonymous`. Robots
that clouds and GitOps tools run outside `system:` come as a list of globs that the operator may replace.
"""

import fnmatch
import functools
import re
from collections.abc import Callable, Iterable

import msgspec

from forwarder.events.audit import AuditEvent, User

PEOPLE_IN_SYSTEM = frozenset({"system:admin", "system:masters", "system:anonymous"})

ROBOTS: tuple[str, ...] = (
    "eks:*",  # EKS' own controllers: eks:node-manager, eks:addon-manager, …
    "aksService",  # AKS' control plane
    "*.gserviceaccount.com",  # GKE: Google service accounts, robots included
    "system:serviceaccount:argocd:*",
    "system:serviceaccount:flux-system:*",
)

MACHINE_CACHE_NAMES = (
    16_384  # a big cluster has a few thousand identities; a flood of made-up ones only costs the glob match
)
MAX_REMEMBERED_NAME = (
    512  # characters; longer ones are made up (`kubectl --as` takes a megabyte) and are judged each time
)

# Sessions that no person named: an instance's id, and what AWS' tools call a session when nobody says.
_NAMELESS_SESSION = re.compile(
    r"i-[0-9a-f]{8,17}|EKSGetTokenAuth|(?:botocore-session|aws-[a-z-]*sdk[a-z-]*)-\d+", re.ASCII
)


class Actor(msgspec.Struct, frozen=True, gc=False):
    """name: the person or machine that acted. acting_as: the identity a person assumed. via: the machine that acted for them."""

    name: str
    machine: bool
    groups: tuple[str, ...] = ()
    acting_as: str = ""
    via: str = ""


def globs(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name matches any of the globs (`*`, `?`, `[…]`; case matters)."""
    words = tuple(patterns)
    if not words:
        return lambda name: False
    plain = frozenset(word for word in words if not re.search(r"[*?\[]", word))
    if len(plain) == len(words):
        return plain.__contains__
    match = re.compile("|".join(fnmatch.translate(word) for word in words)).match
    return lambda name: match(name) is not None


def machine_test(robots: Iterable[str] = ROBOTS) -> Callable[[str], bool]:
    """Whether a username is a machine's; answers are remembered."""
    robot = globs(robots)

    def judged(username: str) -> bool:
        if username.startswith("system:"):
            return username not in PEOPLE_IN_SYSTEM
        return robot(username)

    remembered = functools.lru_cache(maxsize=MACHINE_CACHE_NAMES)(judged)
    return lambda username: (remembered if len(username) <= MAX_REMEMBERED_NAME else judged)(username)


def resolve(event: AuditEvent, is_machine: Callable[[str], bool]) -> Actor:
    """The actor of a request.

    Under impersonation the authenticated user acts as the assumed one; but where a machine assumes a person (Rancher,
    Teleport, an OIDC proxy), the person acts, via the machine.
    """
    user = event.user
    assumed = event.impersonated_user
    machine = is_machine(user.username)
    if assumed is None or not assumed.username:
        return Actor(user.username, machine, user.groups)
    if machine and not is_machine(assumed.username):
        return Actor(assumed.username, False, assumed.groups, via=user.username)
    return Actor(user.username, machine, user.groups, acting_as=assumed.username)


def session_person(user: User) -> str:
    """Who is behind a role that many assume: on EKS the name of the session, often an e-mail address; "" where it says nothing.

    Whoever assumes the role may choose that name (unless it comes from single sign-on). So it says who is told of, and is no
    ground for a rule to fire or not: conditions on users look at `username`.
    """
    names = user.extra.get("sessionName", ()) if user.uid.startswith("aws-iam-authenticator:") else ()
    if len(names) != 1 or not names[0] or _NAMELESS_SESSION.fullmatch(names[0]):
        return ""
    name = names[0]
    told = user.username.endswith((name, name.replace("@", "-")))  # as {{SessionName}} of aws-auth writes it
    return "" if told else name
