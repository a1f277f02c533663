r"""AKS: diagnostic records as Azure Monitor writes them to Event Hubs.

    {"records": [{"time": …, "category": "kube-audit", "resourceId": "/SUBSCRIPTIONS/…/MANAGEDCLUSTERS/NAME",
                  "properties": {"log": "<audit event as text>\n", "stream": "stdout", "pod": "kube-apiserver-…"}}]}

A long event is cut at 16 KiB in the middle of the text; its time then comes from the record. Categories leak into each
other, so the text has the last word: an audit event counts wherever it stands, and klog text in an audit category does not.
With both audit categories on, each event comes twice and is recognised by its id.
"""

from forwarder.envelopes.contents import Contents, Fields, Found, fields_of, is_audit_text, line_of, text_of, time_of

AUDIT_CATEGORIES = ("kube-audit", "kube-audit-admin")


def is_record(fields: Fields) -> bool:
    """Whether an object is a diagnostic record."""
    return "properties" in fields and ("category" in fields or "resourceId" in fields)


def open_record(fields: Fields, contents: Contents) -> None:
    """One record into `contents`."""
    properties = fields["properties"]
    if properties.startswith(b'"'):  # some exports write the object as text
        properties = line_of(properties)
    log = fields_of(properties)[0].get("log", b"")
    category = text_of(fields.get("category"))
    if not log.startswith(b'"'):
        if log.startswith(b"{"):
            contents.lines.append(Found(log, time_of(fields.get("time")), cluster_of(fields)))
        else:
            contents.skip("other_category")
        return
    text = text_of(log)
    if category not in AUDIT_CATEGORIES and not is_audit_text(text):
        contents.skip("other_category")
        return
    line = text.encode("utf-8", "replace").strip()
    if not line.startswith(b"{"):
        contents.skip("no_audit_text")
        return
    contents.lines.append(Found(line, time_of(fields.get("time")), cluster_of(fields)))


def cluster_of(fields: Fields) -> str:
    """The cluster's name, in lower case (Azure writes it in capitals); "" where the record names none."""
    kind, _, name = text_of(fields.get("resourceId")).lower().rpartition("/managedclusters/")
    return name.partition("/")[0] if kind else ""
