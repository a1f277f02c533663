"""Opens a message, whatever form it has, and finds the audit lines in it. Sans-IO; raises nothing.

    contents = open_message(body, max_bytes=32 << 20)
    contents.lines      audit lines, in order
    contents.bad        what could not be read
    contents.skipped    how much of it is no audit event

Forms, recognised by what is in them and nested as they come: an audit event, an EventList, a JSON array, several documents
in a row (with or without newlines), a record of Fluent Bit, Vector or Logstash with the line under `log` or `message`, AKS
diagnostic records (azure.py), CloudWatch subscriptions (aws.py), Cloud Logging entries (google.py), Pub/Sub messages, and gzip
around any of them. An object that is none of these is taken for an audit line: detection says what is wrong with it.
"""

import re
from typing import Final

from forwarder.envelopes import aws, azure, google
from forwarder.envelopes.contents import (
    GZIP_MAGIC,
    Bad,
    Contents,
    Fields,
    Found,
    Unreadable,
    event_list_of,
    fields_of,
    from_base64,
    inflated,
    items_of,
    line_of,
    text_of,
    time_of,
)  # fmt: skip
from forwarder.events.salvage import BOM, PADDING
from forwarder.events.scan import Scanner

MAX_DEPTH: Final = 6  # Lambda event, Kinesis record, gzip, subscription, message: five
MAX_RECORDS: Final = 50_000  # in one message; the shortest audit events fill 20 MiB with so many
_EVENT: Final = b'{"kind":"Event",'
_ANOTHER: Final = b"}" + _EVENT  # inside a string the quotes would be escaped
_between = re.compile(rb"[ \t\r\n\0]*+")
_LIST: Final = b'{"kind":"EventList",'
_LIST_ITEM: Final = b'{"level":"'
_CANONICAL: Final = b'{"kind":"Event","apiVersion":"audit.k8s.io/v1",'


def open_message(data: bytes, *, max_bytes: int) -> Contents:
    """What is in one message. max_bytes: what all its compressed parts together may inflate to."""
    if _is_one_event(data):
        return Contents(lines=[Found(data)])
    opening = _Opening(max_bytes)
    opening.open(data, 0, 0.0)
    return opening.contents


def _is_one_event(data: bytes) -> bool:
    """Whether it is one event as kube-apiserver writes it, by its looks."""
    return data.startswith(_EVENT) and b"\n" not in data and _ANOTHER not in data


class _Opening:
    def __init__(self, max_bytes: int) -> None:
        self.contents = Contents()
        self._left_bytes = max_bytes

    def open(self, data: bytes, depth: int, time_s: float) -> None:
        """One value or several: what is in it goes into `contents`."""
        if _is_one_event(data):
            self._line(data, time_s)
            return
        if depth >= MAX_DEPTH:
            self._bad("too_deep", data)
            return
        if data.startswith(GZIP_MAGIC):
            self._compressed(data, depth, time_s)
            return
        data = data.strip(PADDING).removeprefix(BOM).strip(PADDING)
        if not data:
            return
        if data.startswith(_LIST) and (items := event_list_of(data)) is not None:
            self._list(items, time_s)
        elif data.startswith(b"["):
            self._each(items_of(data), depth, time_s)
        elif not data.startswith(b"{"):
            self._text(data, depth, time_s)
        else:
            fields, whole = fields_of(data)
            documents = [data] if whole else _documents(data)
            if len(documents) > 1:
                self._each(documents, depth, time_s)
            else:
                self._object(data, fields, depth, time_s)

    def _text(self, data: bytes, depth: int, time_s: float) -> None:
        """No JSON object or array: a JSON string of one, base64 of gzip, lines of which some are JSON, or nothing of ours."""
        if data.startswith(b'"{'):
            self.open(line_of(data), depth + 1, time_s)
        elif data.startswith(b"H4sI"):
            try:
                self.open(from_base64(b'"' + data + b'"'), depth + 1, time_s)
            except Unreadable as error:
                self._bad(error.reason, data)
        elif b"\n" in data:
            self._each(data.split(b"\n"), depth, time_s)
        else:
            self._line(data, time_s)

    def _object(self, data: bytes, fields: Fields, depth: int, time_s: float) -> None:
        if "auditID" in fields:
            self._line(data, time_s or time_of(fields.get("@timestamp")))
        elif "items" in fields and text_of(fields.get("kind")) in ("EventList", ""):
            self._list(items_of(fields["items"]), time_s)
        elif "records" in fields or "Records" in fields:
            self._records(items_of(fields.get("records") or fields["Records"]), depth)
        elif "logEvents" in fields:
            aws.open_log_events(fields, self.contents)
        elif "awslogs" in fields:
            self._encoded(fields_of(fields["awslogs"])[0].get("data"), depth, time_s)
        elif "protoPayload" in fields:
            google.open_log_entry(fields, self.contents)
        elif azure.is_record(fields):
            azure.open_record(fields, self.contents)
        elif "receivedMessages" in fields:
            self._each(items_of(fields["receivedMessages"]), depth, time_s)
        elif fields.get("message", b"").startswith(b"{"):
            message = fields_of(fields["message"])[0]
            self._encoded(message.get("data"), depth, time_of(message.get("publishTime")))
        else:
            self._shipped(data, fields, depth, time_s)
        self._trim()

    def _shipped(self, data: bytes, fields: Fields, depth: int, time_s: float) -> None:
        """A record of a log shipper: the line under a key of its own."""
        time_s = time_s or time_of(fields.get("@timestamp") or fields.get("date") or fields.get("timestamp"))
        for key in ("log", "message"):
            inner = line_of(fields.get(key, b""))
            if inner.lstrip().startswith(b"{"):
                self.open(inner, depth + 1, time_s)
                return
        if "log" in fields and not line_of(fields["log"]).strip():
            return  # Fluent Bit sends empty lines of a file as empty records
        self._line(data, time_s)

    def _records(self, items: list[bytes], depth: int) -> None:
        """AKS diagnostic records, or what carries CloudWatch messages."""
        for item in items:
            fields, _ = fields_of(item)
            if azure.is_record(fields):
                azure.open_record(fields, self.contents)
                continue
            try:
                data = aws.data_of(fields)
            except Unreadable as error:
                self._bad(error.reason, item)
                continue
            if data is None:
                self._bad("unreadable_envelope", item)
            else:
                self.open(data, depth + 1, 0.0)

    def _encoded(self, raw: bytes | None, depth: int, time_s: float) -> None:
        try:
            self.open(from_base64(raw), depth + 1, time_s)
        except Unreadable as error:
            self._bad(error.reason, raw or b"")

    def _compressed(self, data: bytes, depth: int, time_s: float) -> None:
        try:
            inner = inflated(data, self._left_bytes)
        except Unreadable as error:
            self._bad(error.reason, data)
            return
        self._left_bytes -= len(inner)
        self.open(inner, depth + 1, time_s)

    def _each(self, items: list[bytes], depth: int, time_s: float) -> None:
        for position, item in enumerate(items):
            if len(self.contents.lines) + len(self.contents.bad) >= MAX_RECORDS:
                self._bad("too_many_records", b"\n".join(items[position:]))
                return
            self.open(_canonical(item), depth + 1, time_s)

    def _list(self, items: list[bytes], time_s: float) -> None:
        self.contents.lines += [Found(_canonical(item), time_s) for item in items]
        self._trim()

    def _line(self, data: bytes, time_s: float) -> None:
        self.contents.lines.append(Found(data, time_s))

    def _bad(self, reason: str, data: bytes) -> None:
        self.contents.bad.append(Bad(reason, data))  # type: ignore[arg-type]

    def _trim(self) -> None:
        """No message makes more records than MAX_RECORDS; what is beyond becomes one that says so."""
        lines = self.contents.lines
        if len(lines) > MAX_RECORDS:
            rest = b"\n".join(found.line for found in lines[MAX_RECORDS:])
            del lines[MAX_RECORDS:]
            self._bad("too_many_records", rest)


def _canonical(item: bytes) -> bytes:
    """An item of an EventList as the line that kube-apiserver writes to a file: in a list it leaves kind and version out."""
    return _CANONICAL + item[1:] if item.startswith(_LIST_ITEM) else item


def _documents(data: bytes) -> list[bytes]:
    """The documents in a row of which `data` consists; [data] where it is one, though perhaps a broken one."""
    lines = [line for line in (line.strip(PADDING) for line in data.split(b"\n")) if line]
    if len(lines) > 1 and all(line.startswith((b"{", b"[")) for line in lines[1:]):
        return lines
    scanner = Scanner(data)
    found: list[bytes] = []
    at = 0
    while at < len(data):
        end = scanner.skip(at)
        if end < 0 or data[at : at + 1] != b"{":
            break
        found.append(data[at:end])
        at = _between.match(data, end).end()  # type: ignore[union-attr] # it matches nothing, too
    if not found:
        return [data]
    return [*found, data[at:]] if at < len(data) else found
