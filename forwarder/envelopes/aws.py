"""EKS: CloudWatch Logs subscriptions, as they come through Firehose, Kinesis or a Lambda function.

    {"messageType": "DATA_MESSAGE", "logGroup": "/aws/eks/NAME/cluster", "logStream": "kube-apiserver-audit-…",
     "logEvents": [{"id": …, "timestamp": 1700000000000, "message": "<audit event as text>"}]}

That form is mostly gzipped, and then in base64: `{"records": [{"data": …}]}` (Firehose), `{"Records": [{"kinesis":
{"data": …}}]}` (Kinesis), `{"awslogs": {"data": …}}` (Lambda). The same log group has the streams of scheduler, authenticator
and others; they are passed over. A long event ends in `[Truncated...]`, which salvage knows.
"""

import re

from forwarder.envelopes.contents import (
    Contents,
    Fields,
    Found,
    fields_of,
    from_base64,
    is_audit_text,
    items_of,
    text_of,
    time_of,
)  # fmt: skip

AUDIT_STREAM = "kube-apiserver-audit"
_GROUP = re.compile(r"/aws/eks/([^/]+)/cluster")


def open_log_events(fields: Fields, contents: Contents) -> None:
    """A CloudWatch subscription message into `contents`."""
    if text_of(fields.get("messageType")) == "CONTROL_MESSAGE":
        contents.skip("control_message")
        return
    group = _GROUP.fullmatch(text_of(fields.get("logGroup")))
    stream = text_of(fields.get("logStream"))
    for item in items_of(fields["logEvents"]):
        event = fields_of(item)[0]
        text = text_of(event.get("message"))
        if stream and not stream.startswith(AUDIT_STREAM) and not is_audit_text(text):
            contents.skip("other_stream")
        elif not text.lstrip().startswith("{"):
            contents.skip("no_audit_text")
        else:
            line = text.encode("utf-8", "replace").strip()
            contents.lines.append(Found(line, time_of(event.get("timestamp")), group.group(1) if group else ""))


def data_of(fields: Fields) -> bytes | None:
    """What one item of `records` or `Records` carries; None where it is no such item. Raises Unreadable."""
    if "data" in fields:  # Firehose
        return from_base64(fields["data"])
    if "kinesis" in fields:
        return from_base64(fields_of(fields["kinesis"])[0].get("data"))
    if "body" in fields:  # SQS
        return text_of(fields["body"]).encode("utf-8", "replace")
    if "Sns" in fields:
        return text_of(fields_of(fields["Sns"])[0].get("Message")).encode("utf-8", "replace")
    return None
