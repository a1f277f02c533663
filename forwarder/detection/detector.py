"""Audit event to friction events: pure, stateless, no IO, no clock.

    detector = Detector(load_rules(["rules/friction.yaml"]), cluster="prod-eu-1")
    detector.screen(buffer, start, end)     can any rule match this line? in place
    detector.examine(line)                  the friction events of a line, and what in it could not be read

Stages: RequestReceived never fires. ResponseStarted exists for long-running requests only and gives revision 0; with a
code of 400 or more it opened nothing. The final stage (ResponseComplete, Panic) gives revision 1. Both have one id, so
the outbox and the backend keep one row.
"""

import datetime as dt
import re
from collections.abc import Iterable

import msgspec

from forwarder.detection.actors import ROBOTS, machine_test, resolve, session_person
from forwarder.detection.matcher import Index, Request, Static, long_running, static_of, yields_to
from forwarder.detection.rules import Rule, RuleSet
from forwarder.detection.screen import Screen
from forwarder.detection.workload import Workload, entity_ref, workload
from forwarder.errors import MalformedEvent
from forwarder.events import redact
from forwarder.events.audit import AuditEvent, decode, split
from forwarder.events.friction import EventOutcome, FrictionEvent, event_id
from forwarder.events.salvage import head_digest

TEST_API_VERSION = "forwarder.test/v1"
"""The apiVersion of the event that `forwarder doctor --send` makes. No client of an apiserver can set a top-level field
of an audit event, so nobody hides a real event behind it; only who may send us records could."""

TEST_RULE = "forwarder-doctor"

MAX_ACTOR_CHARACTERS = 200  # Healert's bounds
MAX_DESCRIPTION_CHARACTERS = 500
MAX_NAME_CHARACTERS = 253  # a DNS subdomain, Kubernetes' longest names
MAX_USER_AGENT_CHARACTERS = 200
MAX_COMMAND_CHARACTERS = 2_000
MAX_SESSION_S = 366 * 86_400.0  # a clock that jumped, or a made-up time: no apiserver runs that long
MAX_SOURCE_IPS = 8  # each proxy adds one; the first is the client's

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TOKEN = re.compile(r"\{([a-z_]+)\}")


class Malformed(msgspec.Struct, frozen=True):
    """One event that could not be read: why, in a word, and its bytes."""

    reason: str
    data: bytes


class Examined(msgspec.Struct, frozen=True):
    """events: in the order of the line, then of the rules. malformed: what was in the line but is no audit event.
    audit: each audit event with its own bytes, where they were asked for; test events are not among them.
    """

    events: list[FrictionEvent]
    malformed: list[Malformed]
    audit: list[tuple[AuditEvent, bytes]] = []


class RuleTrace(msgspec.Struct, frozen=True):
    """Whether a rule fired on an event, and why not."""

    rule: str
    fired: bool
    reason: str


class Detector:
    """A set of rules, compiled. Not for use by several threads at once."""

    def __init__(
        self,
        ruleset: RuleSet,
        *,
        cluster: str = "",
        entity_namespace: str = "default",
        own_namespace: str = "",
        robots: Iterable[str] = ROBOTS,
    ) -> None:
        """cluster: where a batch names none. entity_namespace: for cluster-scoped objects. own_namespace: always ignored.
        robots: globs of usernames that are machines though they lie outside `system:`.
        """
        self.ruleset = ruleset
        self.cluster = cluster
        self.entity_namespace = entity_namespace
        self.own_namespace = own_namespace
        self._is_machine = machine_test(robots)
        self._index = Index(ruleset, own_namespace)
        self.screen = Screen(self._index, self._is_machine)

    def examine(self, line: bytes, *, cluster: str = "", time_s: float = 0.0, keep: bool = False) -> Examined:
        """The friction events of one line, which may hold a list of audit events; with `keep` these too.

        time_s: Unix seconds for events that carry no time of their own (0: they get the epoch).
        """
        examined = Examined([], [], [])
        try:
            pieces = split(line)
        except MalformedEvent as error:
            return Examined([], [Malformed(error.reason, line)])
        for piece in pieces:
            try:
                event = decode(piece)
            except MalformedEvent as error:
                examined.malformed.append(Malformed(error.reason, piece))
                continue
            if keep and event.api_version != TEST_API_VERSION:
                examined.audit.append((event, piece))
            examined.events.extend(self._friction(event, piece, cluster or self.cluster, time_s))
        return examined

    def detect(self, line: bytes, *, cluster: str = "", time_s: float = 0.0) -> list[FrictionEvent]:
        """As examine, for callers with one event a line. Raises MalformedEvent."""
        examined = self.examine(line, cluster=cluster, time_s=time_s)
        if examined.malformed:
            raise MalformedEvent(examined.malformed[0].reason)
        return examined.events

    def explain(self, line: bytes) -> list[RuleTrace]:
        """For each rule, in the order of the files, whether it fires on the event and why not. Raises MalformedEvent."""
        event = decode(line)
        if _stage_is_silent(event) or _is_dry_run(event):
            reason = f"stage {event.stage} never fires" + (
                ", the request failed" if event.stage == "ResponseStarted" else ""
            )
            if _is_dry_run(event):
                reason = "a dry run changes nothing"
            return [RuleTrace(rule.name, False, reason) for rule in self.ruleset.rules]
        static, request, _ = self._facts(event)
        fired: list[Rule] = []
        traces: dict[str, RuleTrace] = {}
        for compiled in self._index.rules:
            name = compiled.rule.name
            why_not: str | None = compiled.static_reason(static) or compiled.dynamic_reason(request)
            if why_not is None:
                winner = yields_to(compiled.rule, fired)
                why_not = f"yields to {winner}" if winner else None
            if why_not is None:
                fired.append(compiled.rule)
            traces[name] = RuleTrace(name, why_not is None, why_not or "every condition holds")
        return [traces[rule.name] for rule in self.ruleset.rules]

    def _facts(self, event: AuditEvent) -> tuple[Static, Request, Workload]:
        actor = resolve(event, self._is_machine)
        target = workload(event, self.entity_namespace)
        return static_of(event, actor), Request(event, actor, outcome(event), target.name), target

    def _friction(self, event: AuditEvent, line: bytes, cluster: str, time_s: float) -> list[FrictionEvent]:
        if event.api_version == TEST_API_VERSION:
            return [self._test_event(event, cluster, time_s)]
        if _stage_is_silent(event) or _is_dry_run(event):
            return []
        actor = resolve(event, self._is_machine)
        if not self._index.candidates(static_of(event, actor)):
            return []
        static, request, target = self._facts(event)
        rules = self._index.fired(static, request)
        return [self._event(rule, request, target, line, cluster, time_s) for rule in rules]

    def _event(
        self, rule: Rule, request: Request, target: Workload, line: bytes, cluster: str, time_s: float
    ) -> FrictionEvent:
        event, actor = request.event, request.actor
        reference = event.object_ref
        resource = reference.resource if reference else ""
        subresource = reference.subresource if reference else ""
        namespace = reference.namespace if reference else ""
        command, container, tty = "", "", False
        if subresource in ("exec", "attach", "log", "proxy"):  # the kubelet's /exec behind nodes/proxy takes the same
            command, container, tty = redact.command_from_uri(event.request_uri)
            command = redact.name(command, MAX_COMMAND_CHARACTERS)  # it came redacted
        final = event.stage != "ResponseStarted"
        name = redact.name(target.name, MAX_NAME_CHARACTERS)
        # who somebody is comes from the authenticator and is no secret, though a subject of Dex looks like one
        person = "" if actor.machine or actor.via else session_person(event.user)
        who = redact.name(person or actor.name, MAX_ACTOR_CHARACTERS) or "unknown"
        acting_as = redact.name(actor.acting_as or (actor.name if person else ""), MAX_ACTOR_CHARACTERS)
        tokens = {
            "actor": who, "acting_as": acting_as, "resource": resource, "subresource": subresource,
            "namespace": namespace, "name": name, "verb": event.verb, "cluster": cluster, "command": command,
            "outcome": request.outcome,
        }  # fmt: skip
        description = _TOKEN.sub(lambda match: tokens.get(match.group(1), match.group(0)), rule.description)
        unique = event.request_received_timestamp or head_digest(line)
        return FrictionEvent(
            entity_ref=target.entity_ref,
            type=rule.name,
            severity=rule.severity,
            actor=who,
            workflow=rule.workflow,
            description=redact.name(description, MAX_DESCRIPTION_CHARACTERS),
            timestamp=_timestamp(event, time_s),
            service=redact.name(target.service, MAX_ACTOR_CHARACTERS),
            namespace=redact.name(namespace, MAX_ACTOR_CHARACTERS),
            points=rule.points,
            id=event_id(cluster, event.audit_id, unique, rule.name),
            revision=1 if final else 0,
            audit_id=_audit_id(event.audit_id),
            cluster=cluster,
            verb=redact.name(event.verb, 50),
            resource=redact.name(resource, MAX_NAME_CHARACTERS),
            subresource=redact.name(subresource, MAX_NAME_CHARACTERS),
            name=name,
            container=redact.name(container, MAX_NAME_CHARACTERS),
            node=name if resource == "nodes" else "",
            outcome=request.outcome,  # type: ignore[arg-type]
            response_code=event.response_status.code if event.response_status else 0,
            acting_as=acting_as,
            via=redact.name(actor.via, MAX_ACTOR_CHARACTERS),
            source_ips=tuple(redact.name(ip, 64) for ip in event.source_ips[:MAX_SOURCE_IPS]),
            user_agent=redact.text(event.user_agent, MAX_USER_AGENT_CHARACTERS),
            command=command,
            tty=tty,
            stage=redact.name(event.stage, 50),
            duration_s=_duration_s(event) if final and long_running(event) else None,
            tags=rule.tags,
            partial=event.partial,
        )

    def _test_event(self, event: AuditEvent, cluster: str, time_s: float) -> FrictionEvent:
        reference = event.object_ref
        namespace, name = (reference.namespace, reference.name) if reference else ("forwarder-test", "doctor")
        return FrictionEvent(
            entity_ref=entity_ref(namespace or self.entity_namespace, name or "doctor"),
            type=TEST_RULE,
            severity="low",
            actor=redact.text(event.user.username, MAX_ACTOR_CHARACTERS) or TEST_RULE,
            workflow="debug",
            description="A test event of `forwarder doctor`; it counts for nothing",
            timestamp=_timestamp(event, time_s),
            service=redact.name(name, MAX_ACTOR_CHARACTERS),
            namespace=redact.name(namespace, MAX_ACTOR_CHARACTERS),
            points=1,
            id=event_id(cluster, event.audit_id, event.request_received_timestamp, TEST_RULE),
            revision=1,
            audit_id=_audit_id(event.audit_id),
            cluster=cluster,
            verb=redact.name(event.verb, 50),
            resource=redact.name(reference.resource if reference else "", MAX_NAME_CHARACTERS),
            name=redact.name(name, MAX_NAME_CHARACTERS),
            stage=redact.name(event.stage, 50),
            test=True,
        )


def outcome(event: AuditEvent) -> EventOutcome:
    """allowed, denied (401, 403) or failed (another 4xx or 5xx, a panic).

    Without a status (a cut line) the authorizer's decision in the annotations tells.
    """
    if event.stage == "Panic":
        return "failed"
    code = event.response_status.code if event.response_status else 0
    if code in (401, 403):
        return "denied"
    if code >= 400:
        return "failed"
    if code == 0 and event.annotations.get("authorization.k8s.io/decision") == "forbid":
        return "denied"
    return "allowed"


def _audit_id(audit_id: str) -> str:
    """A client may send any text as its Audit-ID header; kube-apiserver itself makes UUIDs."""
    return audit_id if _UUID.fullmatch(audit_id) else redact.text(audit_id, MAX_NAME_CHARACTERS)


def _stage_is_silent(event: AuditEvent) -> bool:
    if event.stage == "RequestReceived":
        return True
    status = event.response_status
    return event.stage == "ResponseStarted" and status is not None and status.code >= 400


def _is_dry_run(event: AuditEvent) -> bool:
    """Whether the request changed nothing by its own wish: `kubectl diff`, `kubectl apply --dry-run=server`.

    Only writes whose options stand in the query alone: a delete obeys its body, and an exec runs whatever the query says.
    The answer to a dry run holds the object, so for a secret it is a way to read it.
    """
    reference = event.object_ref
    return (
        event.verb in ("create", "update", "patch")
        and reference is not None
        and reference.subresource in ("", "scale", "ephemeralcontainers", "resize")
        and reference.resource != "secrets"
        and "dryRun=All" in event.request_uri.partition("?")[2].split("&")
    )


def _parsed(text: str) -> dt.datetime | None:
    match = _TIME.fullmatch(text)
    if not match:
        return None
    seconds, fraction, zone = match.groups()
    try:
        moment = dt.datetime.fromisoformat(
            f"{seconds}.{(fraction or '0')[:6].ljust(6, '0')}{zone.replace('Z', '+00:00')}"
        )
        return moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def _timestamp(event: AuditEvent, time_s: float) -> str:
    """RFC 3339 UTC with microseconds: when the request came, else when its stage was, else the time given."""
    moment = _parsed(event.request_received_timestamp) or _parsed(event.stage_timestamp)
    if moment is None:
        moment = dt.datetime.fromtimestamp(min(max(time_s, 0.0), 4_102_444_800.0), dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _duration_s(event: AuditEvent) -> float | None:
    start, end = _parsed(event.request_received_timestamp), _parsed(event.stage_timestamp)
    if start is None or end is None or not 0 <= (end - start).total_seconds() <= MAX_SESSION_S:
        return None
    return round((end - start).total_seconds(), 6)
