"""The test event of `doctor --send` through the webhook door, as kube-apiserver would post it."""

import base64
import time
from typing import Any

from forwarder.cli.hops import START_IT, Hop, connect
from forwarder.cli.probe_event import ACK_DEADLINE_S, ClientCertificate, with_tls
from forwarder.errors import ForwardProtocolError
from forwarder.settings import parse_address

TITLE = "send"
MAX_ANSWER_BYTES = 4096  # ours has a few hundred


def post(door: Any, line: bytes, certificate: ClientCertificate | None = None) -> Hop:
    """door: a webhook source's settings. Good once the answer is 200: then the event is on disk."""
    address = parse_address(door.listen, default_port=9765)
    path = door.paths[0]
    head = f"POST {path} HTTP/1.1\r\nHost: forwarder-doctor\r\nConnection: close\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(line)}\r\n{_credentials(door)}\r\n"
    try:
        connection = connect(address)
    except OSError as error:
        return Hop(TITLE, good=False, text=f"{address}: {error.strerror or 'no answer'}", advice=START_IT)
    began = time.monotonic()
    with connection:
        connection.settimeout(ACK_DEADLINE_S)
        try:
            if door.tls:
                connection = with_tls(connection, door.tls, certificate)
            connection.sendall(head.encode("latin-1", "replace") + line)
            answer = b""
            while (
                b"\r\n" not in answer and len(answer) < MAX_ANSWER_BYTES and (data := connection.recv(MAX_ANSWER_BYTES))
            ):
                answer += data
        except ForwardProtocolError as error:
            return Hop(TITLE, good=False, text=f"{address}: {error}", advice="see docs/webhook.md")
        except OSError as error:
            advice = "see the receiver's log: it says why it closed the connection"
            return Hop(TITLE, good=False, text=f"{address}: {error.strerror or 'closed, or no answer'}", advice=advice)
    status = answer.split(b" ")[1:2]
    if status != [b"200"]:
        words = answer.partition(b"\r\n")[0].decode("latin-1")[:100] or "closed without an answer"
        advice = "is the token here the one that the receiver was started with? a 503: outbox, or a sink that blocks, is behind"
        return Hop(TITLE, good=False, text=f"{address}{path}: {words}", advice=advice)
    took_ms = (time.monotonic() - began) * 1000
    return Hop(
        TITLE, good=True, text=f"accepted by {address}{path} in {took_ms:.0f} ms{' over TLS' if door.tls else ''}"
    )


def _credentials(door: Any) -> str:
    """The header that the door wants to see, or none."""
    token = door.token or next(iter(door.cluster_tokens.values()), "")
    if token:
        return f"Authorization: Bearer {token}\r\n"
    for user, password in door.users.items():
        return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}\r\n"
    return ""
