"""The friction event: one way around the platform, once.

Its first ten fields are what a Healert backend takes; backends that know fewer fields ignore the rest.
"""

import hashlib
import uuid
from typing import Literal

import msgspec

Severity = Literal["high", "medium", "low"]
EventOutcome = Literal["allowed", "denied", "failed"]

POINTS: dict[str, int] = {"high": 10, "medium": 6, "low": 3}

NAMESPACE = uuid.UUID("9c1b6f0e-52c4-5d0b-9a3e-2f6b8f6d7a41")
"""The UUIDv5 namespace of friction event ids. Changing it would count every stored event a second time."""


class FrictionEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One friction event; all text is redacted and free of control characters.

    entity_ref: `component:<namespace>/<workload>`. type: the rule's name. actor: who (the person, under impersonation).
    timestamp: when the request was received, RFC 3339 UTC with microseconds and `Z`.
    id: UUIDv5, the same for every revision and every re-read. revision: 0 session opened, 1 final.
    outcome: allowed | denied | failed. acting_as: the assumed identity; via: the machine that acted for the actor.
    duration_s: from request to final stage, only on revision 1 of a session. test: sent by `forwarder doctor`, never scored.
    partial: read from a cut line.
    """

    entity_ref: str
    type: str
    severity: Severity
    actor: str
    workflow: str
    description: str
    timestamp: str
    service: str = ""
    namespace: str = ""
    points: int

    id: str
    revision: int
    audit_id: str
    cluster: str = ""
    verb: str
    resource: str
    subresource: str = ""
    name: str = ""
    container: str = ""
    node: str = ""
    outcome: EventOutcome = "allowed"
    response_code: int = 0
    acting_as: str = ""
    via: str = ""
    source_ips: tuple[str, ...] = ()
    user_agent: str = ""
    command: str = ""
    tty: bool = False
    stage: str = ""
    duration_s: float | None = None
    tags: tuple[str, ...] = ()
    partial: bool = False
    test: bool = False


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(FrictionEvent).decode


def event_id(cluster: str, audit_id: str, received: str, rule: str) -> str:
    """The id of the friction event that `rule` makes of one request; each part is prefixed by its length in UTF-8 bytes.

    received: requestReceivedTimestamp as the line gives it, or the SHA-256 of a cut line's head. The audit id alone is
    not enough: a client may send its own Audit-ID header and would hide behind an old one.
    """
    parts = (cluster, audit_id, received, rule)
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]  # uuid.uuid5 would refuse lone surrogates
    name = b"".join(b"%d:%s" % (len(part), part) for part in encoded)
    digest = hashlib.sha1(NAMESPACE.bytes + name, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
