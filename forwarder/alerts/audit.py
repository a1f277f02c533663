"""Audit events for people: each as an event of the outbox for one sink, in the form that messages are made of.

A stream of messages to people needs what the outbox gives (nothing twice, nothing lost, repeats and nights held on disk),
and is thin, or nobody would read it. So these audit events do not go the way of the audit streams; they are committed
with the friction events of their batch, for their sink alone, before it is acknowledged.
"""

from forwarder.contracts import Stream
from forwarder.events import redact
from forwarder.events.audit import AuditEvent
from forwarder.events.friction import EventOutcome, FrictionEvent, event_id
from forwarder.events.outgoing import OutgoingEvent

PREFIX = "audit: "
"""What `type` begins with; no rule's name can: it has a space in it."""

MAX_NAME_CHARS = 253  # a DNS name
MAX_TEXT_CHARS = 500


def wants(event: FrictionEvent, stream: Stream) -> bool:
    """Whether the event is of the kind that the sink was made for: friction, or the audit events chosen for it."""
    return event.type.startswith(PREFIX) is (stream == "audit")


def as_event(outgoing: OutgoingEvent, sink: str) -> FrictionEvent:
    """An audit event as one for `sink`; without points, because nothing of it is scored. A denied one is medium, else low.

    The id is the same for the same stage of the same request, however often it is read, and another one for each sink.
    """
    event = outgoing.event
    reference, status = event.object_ref, event.response_status
    resource = redact.name(reference.resource if reference else "", MAX_NAME_CHARS) or "request"
    subresource = redact.name(reference.subresource if reference else "", MAX_NAME_CHARS)
    namespace = redact.name(reference.namespace if reference else "", MAX_NAME_CHARS)
    name = redact.name(reference.name if reference else "", MAX_NAME_CHARS)
    verb = redact.name(event.verb, MAX_NAME_CHARS)
    what = f"{verb} {resource}/{subresource}" if subresource else f"{verb} {resource}"
    command, container, tty = redact.command_from_uri(event.request_uri)
    outcome = _outcome(event)
    return FrictionEvent(
        entity_ref="audit:" + "/".join(part for part in (namespace, resource, name) if part),
        type=PREFIX + what,
        severity="medium" if outcome == "denied" else "low",
        actor=redact.text(event.user.username, MAX_NAME_CHARS) or "unknown",
        workflow="",
        description=f"{verb} {redact.text(redact.uri(event.request_uri), MAX_TEXT_CHARS)}",
        timestamp=redact.name(event.stage_timestamp or event.request_received_timestamp, 40),
        namespace=namespace,
        points=0,
        id=event_id(outgoing.cluster, event.audit_id, event.request_received_timestamp, f"{sink}/{event.stage}"),
        revision=0,
        audit_id=redact.text(event.audit_id, MAX_NAME_CHARS),
        cluster=outgoing.cluster,
        verb=verb,
        resource=resource,
        subresource=subresource,
        name=name,
        container=container,
        outcome=outcome,
        response_code=status.code if status else 0,
        acting_as=redact.text(event.impersonated_user.username, MAX_NAME_CHARS) if event.impersonated_user else "",
        source_ips=tuple(redact.name(address, 45) for address in event.source_ips[:8]),
        user_agent=redact.text(event.user_agent, MAX_NAME_CHARS),
        command=command,
        tty=tty,
        stage=redact.name(event.stage, 40),
        partial=event.partial,
        test=event.is_test,
    )


def _outcome(event: AuditEvent) -> EventOutcome:
    code = event.response_status.code if event.response_status else 0
    if code in (401, 403):
        return "denied"
    return "failed" if code >= 400 or event.stage == "Panic" else "allowed"
