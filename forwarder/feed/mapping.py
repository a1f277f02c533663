"""What a KubeArmor client is shown: friction events as alerts, audit events as logs, our own words as messages.

Fields that KubeArmor fills from the kernel (process ids, hashes) stay empty. `Operation` is a word of our own, because no
system call was seen; karmor's filters take any. What has no field there stands in `EventData`. All text that comes from
outside is redacted: friction events were when they were made, audit events are here, and their bodies are never shown.
"""

import datetime as dt
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from forwarder import __version__
from forwarder.events import redact
from forwarder.events.audit import AuditEvent, ObjectRef
from forwarder.events.friction import FrictionEvent
from forwarder.feed import schema

OPERATION: Final = "KubernetesAudit"
DROPPED_TYPE: Final = "SystemEvent"  # as KubeArmor announces that it leaves alerts out
DROPPED_OPERATION: Final = "AlertThreshold"
DROPPED: Final = "dropped"  # the key of EventData that says how many
ENFORCER: Final = "kube-apiserver"  # it is who refused, where somebody did
VERSION: Final = f"friction-forwarder/{__version__}"

SEVERITIES: Final = {"high": "10", "medium": "6", "low": "3"}  # KubeArmor's scale is "1" to "10"; these are our points

MAX_NAME_CHARS = 253  # a DNS subdomain, Kubernetes' longest names
MAX_TEXT_CHARS = 200
MAX_SOURCE_IPS = 8  # each proxy adds one; the first is the client's
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def alert(event: FrictionEvent) -> bytes:
    """One friction event as an Alert."""
    data = {
        "id": event.id, "revision": str(event.revision), "auditID": event.audit_id, "verb": event.verb,
        "stage": event.stage, "outcome": event.outcome, "responseCode": _number(event.response_code),
        "severity": event.severity, "points": str(event.points), "workflow": event.workflow,
        "resource": event.resource, "subresource": event.subresource, "name": event.name,
        "service": event.service, "command": event.command, "tty": _true(event.tty),
        "actingAs": event.acting_as, "via": event.via, "sourceIPs": ",".join(event.source_ips),
        "userAgent": event.user_agent, "partial": _true(event.partial), "test": _true(event.test),
        "durationSeconds": "" if event.duration_s is None else f"{event.duration_s:.3f}",
    }  # fmt: skip
    return _encoded(
        schema.Alert,
        Timestamp=_unix_seconds(event.timestamp),
        UpdatedTime=event.timestamp,
        ClusterName=event.cluster,
        HostName=event.node,
        NamespaceName=event.namespace,
        Owner={"Ref": event.entity_ref, "Name": event.service, "Namespace": event.namespace},
        PodName=event.name if event.resource == "pods" else "",
        ContainerName=event.container,
        PolicyName=event.type,
        Severity=SEVERITIES[event.severity],
        Tags=",".join(event.tags),
        ATags=list(event.tags),
        Message=event.description,
        Type="MatchedPolicy",
        Source=event.actor,
        Operation=OPERATION,
        Resource=_path(event.namespace, event.resource, event.name, event.subresource),
        Data=_data(event.verb, event.stage, event.response_code, event.command),
        EventData=_present(data),
        Enforcer=ENFORCER,
        Action="Block" if event.outcome == "denied" else "Audit",
        Result=_result(event.outcome == "denied", event.outcome == "failed", event.response_code),
        ProcessName=event.command,
        TTY=_true(event.tty),
        ExecEvent={"ExecutableName": _program(event.command)} if event.command else None,
        KubeArmorVersion=VERSION,
        UserName=event.actor,
    )


def log(event: AuditEvent, cluster: str) -> bytes:
    """One audit event, as it was received, as a Log. A few texts of it are shown, and each is redacted here; bodies never."""
    about = event.object_ref or ObjectRef()
    resource, subresource, name = (
        redact.name(value, MAX_NAME_CHARS) for value in (about.resource, about.subresource, about.name)
    )
    namespace, verb, stage = (
        redact.name(value, MAX_NAME_CHARS) for value in (about.namespace, event.verb, event.stage)
    )
    code = event.response_status.code if event.response_status else 0
    command, container, tty = "", "", False
    if subresource in ("exec", "attach"):
        command, container, tty = redact.command_from_uri(event.request_uri)
    time_text = _timestamp(event.request_received_timestamp or event.stage_timestamp)
    who = redact.name(event.user.username, MAX_TEXT_CHARS)
    impersonated = event.impersonated_user.username if event.impersonated_user else ""
    data = {
        "auditID": _audit_id(event.audit_id), "verb": verb, "stage": stage,
        "level": redact.name(event.level, MAX_NAME_CHARS), "responseCode": _number(code),
        "requestURI": redact.uri(event.request_uri), "resource": resource, "subresource": subresource, "name": name,
        "command": command, "tty": _true(tty), "actingAs": redact.name(impersonated, MAX_TEXT_CHARS),
        "sourceIPs": ",".join(redact.name(ip, 64) for ip in event.source_ips[:MAX_SOURCE_IPS]),
        "userAgent": redact.text(event.user_agent, MAX_TEXT_CHARS), "partial": _true(event.partial),
    }  # fmt: skip
    denied = code in (401, 403)
    return _encoded(
        schema.Log,
        Timestamp=_unix_seconds(time_text),
        UpdatedTime=time_text,
        ClusterName=redact.name(cluster, MAX_TEXT_CHARS),
        HostName=name if resource == "nodes" else "",
        NamespaceName=namespace,
        PodName=name if resource == "pods" else "",
        ContainerName=container,
        Type="ContainerLog" if resource == "pods" else "HostLog",
        Source=who,
        Operation=OPERATION,
        Resource=_path(namespace, resource, name, subresource) or redact.uri(event.request_uri),
        Data=_data(verb, stage, code, command),
        EventData=_present(data),
        Result=_result(denied, (code >= 400 and not denied) or stage == "Panic", code),
        ProcessName=command,
        TTY=_true(tty),
        ExecEvent={"ExecutableName": _program(command)} if command else None,
        UserName=who,
    )


def message(level: str, text: str, cluster: str, time_s: float) -> bytes:
    """A notice of ours as a Message. level: DEBUG, INFO, WARN or ERROR."""
    return _encoded(
        schema.Message,
        Timestamp=int(time_s),
        UpdatedTime=_stamp(time_s),
        ClusterName=redact.name(cluster, MAX_TEXT_CHARS),
        HostName=socket.gethostname(),
        Type="Message",
        Level=level,
        Message=redact.text(text, 4096),
    )


def dropped(stream: str, count: int, cluster: str) -> bytes:
    """What a client is told, in its own stream, in the place of what it was too slow for. stream: alerts, logs, messages."""
    now_s = time.time()
    words = f"{count} {stream} lost here: this client reads more slowly than they come"
    if stream == "messages":
        return message("WARN", words, cluster, now_s)
    common: dict[str, Any] = {
        "Timestamp": int(now_s), "UpdatedTime": _stamp(now_s), "ClusterName": redact.name(cluster, MAX_TEXT_CHARS),
        "Type": DROPPED_TYPE, "Operation": DROPPED_OPERATION, "Data": words, "EventData": {DROPPED: str(count)},
    }  # fmt: skip
    if stream == "logs":
        return _encoded(schema.Log, **common)
    return _encoded(schema.Alert, Message=words, Severity="1", Action="Audit", KubeArmorVersion=VERSION, **common)


# --- private ---------------------------------------------------------------------------------------------------------


def _audit_id(audit_id: str) -> str:
    """A client may send any text as its Audit-ID header; kube-apiserver itself makes UUIDs, which hide nothing."""
    return audit_id if _UUID.fullmatch(audit_id) else redact.text(audit_id, MAX_NAME_CHARS)


def _encoded(kind: Any, **fields: Any) -> bytes:
    encoded: bytes = kind(**fields).SerializeToString()
    return encoded


def _present(data: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in data.items() if value}


def _path(namespace: str, resource: str, name: str, subresource: str) -> str:
    """`namespaces/prod/pods/web-0/exec`, as the API has it behind its version; "" for a non-resource URL."""
    if not resource:
        return ""
    parts: Sequence[str] = ("namespaces", namespace) if namespace and resource != "namespaces" else ()
    return "/".join(part for part in (*parts, resource, name, subresource) if part)


def _data(verb: str, stage: str, code: int, command: str) -> str:
    words = [f"verb={verb}", f"stage={stage}"]
    if code:
        words.append(f"code={code}")
    if command:
        words.append(f"command={command}")
    return " ".join(words)


def _result(denied: bool, failed: bool, code: int) -> str:
    """KubeArmor's two words, and a third one for what neither passed nor was forbidden."""
    if denied:
        return "Permission denied"
    if failed:
        return f"Failed ({code})" if code else "Failed"
    return "Passed"


def _program(command: str) -> str:
    return command.partition(" ")[0]


def _true(value: bool) -> str:
    return "true" if value else ""


def _number(value: int) -> str:
    return str(value) if value else ""


def _stamp(time_s: float) -> str:
    return dt.datetime.fromtimestamp(time_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _timestamp(text: str) -> str:
    """As the audit log has it, where that is a time; else now, which is when it passed here."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return _stamp(time.time())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _unix_seconds(timestamp: str) -> int:
    return int(dt.datetime.fromisoformat(timestamp).timestamp())
