"""KubeArmor's feeder protocol: its messages, built at run time from the table of their fields.

Names and numbers are the wire format (KubeArmor's protobuf/kubearmor.proto), the rest is made here: no generated code, so
no second tool to run and no version of protobuf that it was generated for. A field is `number name`, a string unless the
line says otherwise.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "feeder"
SERVICE: Final = "feeder.LogService"
FILE: Final = "kubearmor.proto"

_FIELDS: Final[dict[str, str]] = {
    "NonceMessage": "1 nonce int32",
    "ReplyMessage": "1 Retval int32",
    "RequestMessage": "1 Filter",
    "Message": """
        1 Timestamp int64, 2 UpdatedTime, 3 ClusterName, 4 HostName, 5 HostIP, 6 Type, 7 Level, 8 Message
        """,
    "Podowner": "1 Ref, 2 Name, 3 Namespace",
    "ExecEvent": "1 ExecID, 2 ExecutableName",
    "Alert": """
        1 Timestamp int64, 2 UpdatedTime, 3 ClusterName, 4 HostName, 5 NamespaceName, 6 PodName, 7 ContainerID,
        8 ContainerName, 9 HostPID int32, 10 PPID int32, 11 PID int32, 12 UID int32, 13 PolicyName, 14 Severity, 15 Tags,
        16 Message, 17 Type, 18 Source, 19 Operation, 20 Resource, 21 Data, 22 Action, 23 Result, 24 ContainerImage,
        25 ParentProcessName, 26 ProcessName, 27 HostPPID int32, 28 Enforcer, 29 Labels, 30 ATags repeated,
        31 Owner Podowner, 32 Cwd, 33 TTY, 34 MaxAlertsPerSec int32, 35 DroppingAlertsInterval int32,
        36 ExecEvent ExecEvent, 37 KubeArmorVersion, 38 NodeID, 39 ProcessHash, 40 ParentHash, 41 ResourceHash,
        42 HashAlgo, 43 EventData map, 44 UserName
        """,
    "Log": """
        1 Timestamp int64, 2 UpdatedTime, 3 ClusterName, 4 HostName, 5 NamespaceName, 6 PodName, 7 ContainerID,
        8 ContainerName, 9 HostPID int32, 10 PPID int32, 11 PID int32, 12 UID int32, 13 Type, 14 Source, 15 Operation,
        16 Resource, 17 Data, 18 Result, 19 ContainerImage, 20 ParentProcessName, 21 ProcessName, 22 HostPPID int32,
        23 Labels, 24 Owner Podowner, 25 Cwd, 26 TTY, 27 ExecEvent ExecEvent, 28 NodeID, 29 ProcessHash, 30 ParentHash,
        31 ResourceHash, 32 HashAlgo, 33 EventData map, 34 UserName
        """,
}

# method -> (request, response, whether the response is a stream)
_METHODS: Final = {
    "HealthCheck": ("NonceMessage", "ReplyMessage", False),
    "WatchMessages": ("RequestMessage", "Message", True),
    "WatchAlerts": ("RequestMessage", "Alert", True),
    "WatchLogs": ("RequestMessage", "Log", True),
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {"": _Field.TYPE_STRING, "int32": _Field.TYPE_INT32, "int64": _Field.TYPE_INT64}


def file_descriptor() -> Any:
    """The whole protocol as a FileDescriptorProto, which reflection shows."""
    file = descriptor_pb2.FileDescriptorProto(name=FILE, package=PACKAGE, syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field in fields.split(","):
            number, field_name, *kind = field.split()
            _add_field(message, int(number), field_name, kind[0] if kind else "")
    service = file.service.add(name=SERVICE.removeprefix(f"{PACKAGE}."))
    for name, (request, response, stream) in _METHODS.items():
        service.method.add(
            name=name,
            input_type=f".{PACKAGE}.{request}",
            output_type=f".{PACKAGE}.{response}",
            server_streaming=stream,
        )
    return file


def _add_field(message: Any, number: int, name: str, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind == "repeated":
        field.type, field.label = _Field.TYPE_STRING, _Field.LABEL_REPEATED
    elif kind == "map":  # string to string; on the wire a repeated message of key and value
        entry = message.nested_type.add(name=f"{name}Entry")
        entry.options.map_entry = True
        _add_field(entry, 1, "key", "")
        _add_field(entry, 2, "value", "")
        field.type, field.label = _Field.TYPE_MESSAGE, _Field.LABEL_REPEATED
        field.type_name = f".{PACKAGE}.{message.name}.{entry.name}"
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


# A pool of its own: whoever loads KubeArmor's generated code into the same process gets no clash of names.
POOL: Final = descriptor_pool.DescriptorPool()
POOL.Add(file_descriptor())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


Nonce: Final = _message("NonceMessage")
Reply: Final = _message("ReplyMessage")
Request: Final = _message("RequestMessage")
Message: Final = _message("Message")
Alert: Final = _message("Alert")
Log: Final = _message("Log")
