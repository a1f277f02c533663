"""GKE: a Cloud Logging `LogEntry` made an audit event.

    {"logName": "projects/P/logs/cloudaudit.googleapis.com%2Factivity", "insertId": …, "timestamp": …,
     "resource": {"type": "k8s_cluster", "labels": {"cluster_name": …}},
     "protoPayload": {"serviceName": "k8s.io", "methodName": "io.k8s.core.v1.pods.exec.create",
                      "resourceName": "core/v1/namespaces/shop/pods/web-1/exec", "authenticationInfo": {"principalEmail": …},
                      "authorizationInfo": [{"granted": true}], "requestMetadata": {"callerIp": …}, "status": {"code": 7}}}

Google leaves out groups, uid and the arguments of an exec. How a request ended is not invented: `status.code` is a gRPC code
(7 is permission denied) and becomes the HTTP code that the API server gave; without one, an authorisation that was not
granted is a 403, and all else succeeded.
"""

import re
from typing import Any, Final
from urllib.parse import quote

import msgspec

from forwarder.envelopes.contents import Contents, Fields, Found, fields_of, items_of, text_of, time_of

SERVICE: Final = "k8s.io"
_VERSION = re.compile(r"v[0-9]+(?:(?:alpha|beta)[0-9]+)?")

# google.rpc.Code, as the API server's own codes map to it
HTTP_OF_GRPC: Final = {
    1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 15: 500,
    16: 401,
}  # fmt: skip
_SUCCESS: Final = {"create": 201}
_FORBIDDEN: Final = 403


def open_log_entry(fields: Fields, contents: Contents) -> None:
    """A LogEntry with a protoPayload into `contents`."""
    payload = fields_of(fields["protoPayload"])[0]
    if text_of(payload.get("serviceName")) != SERVICE:
        contents.skip("other_service")
        return
    event = _event(fields, payload)
    labels = fields_of(fields_of(fields.get("resource", b""))[0].get("labels", b""))[0]
    line = msgspec.json.encode(event)
    contents.lines.append(Found(line, time_of(fields.get("timestamp")), text_of(labels.get("cluster_name"))))


def _event(entry: Fields, payload: Fields) -> dict[str, Any]:
    method = text_of(payload.get("methodName")).split(".")
    reference, uri = _object(text_of(payload.get("resourceName")), method)
    time = text_of(entry.get("timestamp"))
    metadata = fields_of(payload.get("requestMetadata", b""))[0]
    verb = method[-1]
    event: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse" if "response" in payload else "Request" if "request" in payload else "Metadata",
        "auditID": text_of(entry.get("insertId")),
        "stage": _stage(entry),
        "requestURI": uri,
        "verb": verb,
        "user": {"username": _user(payload)},
        "sourceIPs": [ip] if (ip := text_of(metadata.get("callerIp"))) else [],
        "userAgent": text_of(metadata.get("callerSuppliedUserAgent")),
        "objectRef": reference,
        "responseStatus": {"metadata": {}, "code": _code(payload, verb)},
    }
    for name, body in (("requestObject", payload.get("request")), ("responseObject", payload.get("response"))):
        if body:
            event[name] = msgspec.Raw(body)
    labels = fields_of(entry.get("labels", b""))[0]
    return event | {
        "requestReceivedTimestamp": time,
        "stageTimestamp": time,
        "annotations": {key: text_of(value) for key, value in labels.items()},
    }


def _user(payload: Fields) -> str:
    info = fields_of(payload.get("authenticationInfo", b""))[0]
    return text_of(info.get("principalEmail")) or text_of(info.get("principalSubject")) or "system:anonymous"


def _stage(entry: Fields) -> str:
    """A long-running request has two entries, the first of which says `first` and not `last`."""
    operation = fields_of(entry.get("operation", b""))[0]
    opens = operation.get("first") == b"true" and operation.get("last") != b"true"
    return "ResponseStarted" if opens else "ResponseComplete"


def _code(payload: Fields, verb: str) -> int:
    status = fields_of(payload.get("status", b""))[0]
    code = status.get("code", b"0")
    if code.isdigit() and int(code[:4]):
        return HTTP_OF_GRPC.get(int(code[:4]), 500)
    if "message" in status and not code.isdigit():
        return 500
    granted = [fields_of(item)[0].get("granted") for item in items_of(payload.get("authorizationInfo", b""))]
    if granted and b"true" not in granted:  # protobuf's JSON leaves `false` out
        return _FORBIDDEN
    return _SUCCESS.get(verb, 200)


def _object(name: str, method: list[str]) -> tuple[dict[str, str], str]:
    """(objectRef, requestURI) of `core/v1/namespaces/shop/pods/web-1/exec` and the words of the method's name."""
    group, _, rest = name.partition("/")
    version, _, path = rest.partition("/")
    group = "" if group == "core" else group
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    parts = path.split("/") if path else []
    reference = {"apiGroup": group, "apiVersion": version}
    at = next((at for at, word in enumerate(method) if _VERSION.fullmatch(word)), -1)
    words = method[at + 1 : -1] if at >= 0 else []  # the resource, and its subresource
    if len(parts) >= 2 and parts[0] == "namespaces" and words[:1] != ["namespaces"] and len(parts) > 2:
        reference["namespace"] = parts[1]
        parts = parts[2:]
    elif parts[:1] == ["namespaces"] and len(parts) >= 2:
        reference["namespace"] = parts[1]  # as kube-apiserver has it for a namespace itself
    resource = words[0] if words else (parts[0] if parts else "")
    subresource = "/".join(words[1:]) or "/".join(parts[2:])
    reference |= {"resource": resource, "name": parts[1] if len(parts) > 1 else "", "subresource": subresource}
    return {key: value for key, value in reference.items() if value}, quote(f"{root}/{path}", safe="/:")
