"""KubeArmor's feeder protocol once more, written apart from ours: as text, with only the fields that the tests read.

A client that reads it with other numbers, types or names than ours would find other values, or none.
"""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

_TEXT = """
name: "independent.proto" package: "feeder" syntax: "proto3"
message_type { name: "NonceMessage" field { name: "nonce" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL } }
message_type { name: "ReplyMessage" field { name: "Retval" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL } }
message_type { name: "RequestMessage" field { name: "Filter" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "Message"
  field { name: "Level" number: 7 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "Message" number: 8 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "Alert"
  field { name: "Timestamp" number: 1 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "NamespaceName" number: 5 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "PodName" number: 6 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "PolicyName" number: 13 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "Severity" number: 14 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "Message" number: 16 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "Type" number: 17 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "Action" number: 22 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "EventData" number: 43 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: ".feeder.Alert.EventDataEntry" }
  nested_type { name: "EventDataEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL } } }
message_type { name: "Log"
  field { name: "NamespaceName" number: 5 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "Type" number: 13 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "Source" number: 14 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "EventData" number: 33 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: ".feeder.Log.EventDataEntry" }
  nested_type { name: "EventDataEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL } } }
"""

_pool = descriptor_pool.DescriptorPool()
_pool.Add(text_format.Parse(_TEXT, descriptor_pb2.FileDescriptorProto()))


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"feeder.{name}"))


Nonce, Reply, Request = _class("NonceMessage"), _class("ReplyMessage"), _class("RequestMessage")
STREAMS = {"WatchAlerts": _class("Alert"), "WatchLogs": _class("Log"), "WatchMessages": _class("Message")}


class Client:
    """A client in the manner of `karmor`: health check first, then streams."""

    def __init__(self, address: str, credentials: Any = None, metadata: Any = ()) -> None:
        self.metadata = metadata
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
            (
                "grpc.http2.bdp_probe",
                0,
            ),  # a receive window of 64 KiB that stays so: what is not read soon blocks the sender
        ]
        if credentials:
            self.channel = grpc.secure_channel(address, credentials, options)
        else:
            self.channel = grpc.insecure_channel(address, options)

    def health_check(self, nonce: int) -> int:
        call = self.channel.unary_unary("/feeder.LogService/HealthCheck", Nonce.SerializeToString, Reply.FromString)
        return int(call(Nonce(nonce=nonce), timeout=20, metadata=self.metadata).Retval)

    def watch(self, method: str, word: str = "all") -> "Watching":
        call = self.channel.unary_stream(
            f"/feeder.LogService/{method}", Request.SerializeToString, STREAMS[method].FromString
        )
        return Watching(call(Request(Filter=word), metadata=self.metadata))

    def close(self) -> None:
        self.channel.close()


class Watching:
    """One open stream. `seen` fills only after `read_in_background`."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.seen: list[Any] = []
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.call)

    def opened(self) -> "Watching":
        """Wait until the server has opened it."""
        self.call.initial_metadata()
        return self

    def read_in_background(self) -> "Watching":
        self._thread = threading.Thread(target=self._read, name="reading")
        self._thread.start()
        return self

    def ended(self, deadline_s: float = 30.0) -> grpc.StatusCode:
        """How it ended; fails where it does not."""
        if self._thread:
            self._thread.join(deadline_s)
            assert not self._thread.is_alive(), "the stream did not end"
        return self.call.code()

    def _read(self) -> None:
        try:
            self.seen.extend(self.call)
        except grpc.RpcError:
            pass
