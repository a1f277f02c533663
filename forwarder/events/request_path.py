"""What a request was about, from its URI alone: for lines that were cut before, or in, their objectRef.

The apiserver writes the URI in front of the user agent, and a client may send an agent of a megabyte: where lines are cut
at 16 KiB that would hide every request. The rules are those of k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.
"""

from urllib.parse import unquote

_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


def object_of(request_uri: str) -> dict[str, str] | None:
    """The objectRef, by its JSON names, that the apiserver derives from the path; None for a non-resource URL."""
    parts = unquote(request_uri.partition("?")[0], errors="replace").strip("/").split("/")
    group = ""
    if parts[0] == "api":
        parts = parts[1:]
    elif parts[0] == "apis":
        group, parts = "".join(parts[1:2]), parts[2:]
    else:
        return None
    version, parts = "".join(parts[:1]), parts[1:]
    if parts[:1] in (["watch"], ["proxy"]):
        parts = parts[1:]
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    if not parts or not parts[0]:
        return None
    resource, name, subresource = (*parts, "", "")[:3]
    return {
        "resource": resource, "namespace": namespace, "name": name, "apiGroup": group, "apiVersion": version,
        "subresource": subresource,
    }  # fmt: skip
