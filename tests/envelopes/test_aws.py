"""EKS audit events out of CloudWatch subscriptions, in each of their wrappings."""

import base64
import gzip
import json

import pytest

from forwarder.events.audit import decode


def test_a_subscription_message(message, opened, friction):
    """The cluster comes from the log group; a `[Truncated...]` event is used as far as it goes."""
    contents = opened(message("eks-subscription.json"))
    assert [found.cluster for found in contents.lines] == ["shop-eks"] * 2
    assert [found.time_s for found in contents.lines] == [1786699391.0, 1786699392.0]
    assert [decode(found.line).partial for found in contents.lines] == [False, True]
    assert {event.type for event in friction(contents)} == {"kubectl-exec"}


@pytest.mark.parametrize(("name", "reason"), [("eks-authenticator.json", "other_stream"), ("eks-control.json", "control_message")])  # fmt: skip
def test_what_is_no_audit_stream_is_passed_over(message, opened, name, reason):
    """The same log group has them, and a subscription begins with a control message."""
    contents = opened(message(name))
    assert (contents.lines, contents.bad, contents.skipped) == ([], [], {reason: 1})


def wrapped(data: bytes) -> dict[str, bytes]:
    packed = gzip.compress(data)
    text = base64.b64encode(packed).decode()
    return {
        "gzip": packed,
        "two gzip members": gzip.compress(data[:100]) + gzip.compress(data[100:]),
        "base64": text.encode(),
        "lambda": json.dumps({"awslogs": {"data": text}}).encode(),
        "firehose": json.dumps({"requestId": "r", "timestamp": 1, "records": [{"data": text}]}).encode(),
        "kinesis": json.dumps({"Records": [{"kinesis": {"data": text, "partitionKey": "p"}}]}).encode(),
        "sqs": json.dumps({"Records": [{"messageId": "m", "body": data.decode()}]}).encode(),
        "sns": json.dumps({"Records": [{"Sns": {"Message": data.decode()}}]}).encode(),
        "fluent bit": json.dumps({"@timestamp": 1.0, "log": data.decode()}).encode(),
        "concatenated": data + data[:0] + b"",
    }


@pytest.mark.parametrize("wrapping", sorted(wrapped(b"x")))
def test_every_wrapping_gives_the_same_lines(message, opened, wrapping):
    """Firehose, Kinesis, Lambda and queues each have their own."""
    data = message("eks-subscription.json")
    assert opened(wrapped(data)[wrapping]).lines == opened(data).lines


def test_firehose_puts_messages_in_a_row_without_anything_between(message, opened):
    """As it does where it decompresses them itself."""
    data = message("eks-subscription.json")
    contents = opened(data + message("eks-control.json") + data)
    assert len(contents.lines) == 4
    assert contents.skipped == {"control_message": 1}


def test_a_real_firehose_request(message, opened):
    """Three records: audit events, another stream, a control message."""
    contents = opened(message("eks-firehose.json"))
    assert len(contents.lines) == 2
    assert contents.skipped == {"other_stream": 1, "control_message": 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [({"data": "%%%"}, "bad_base64"), ({"data": base64.b64encode(b"\x1f\x8b\x08oops").decode()}, "bad_gzip"), ({"x": 1}, "unreadable_envelope")],
)  # fmt: skip
def test_a_bad_record_does_not_take_its_neighbours_along(message, opened, record, reason):
    """It is kept with its reason."""
    good = {"data": base64.b64encode(message("eks-subscription.json")).decode()}
    contents = opened(json.dumps({"records": [good, record, good]}).encode())
    assert len(contents.lines) == 4
    assert [bad.reason for bad in contents.bad] == [reason]
