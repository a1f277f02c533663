"""The wire format: names, numbers and types of KubeArmor's feeder protocol."""

import pytest

from forwarder.feed import schema


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        pytest.param(schema.Nonce(nonce=5), "0805", id="nonce is an int32 at 1"),
        pytest.param(schema.Reply(Retval=-1), "08ffffffffffffffffff01", id="a negative number takes ten bytes"),
        pytest.param(schema.Request(Filter="all"), "0a03616c6c", id="filter is a string at 1"),
        pytest.param(schema.Alert(Timestamp=1 << 40), "0880808080" + "8020", id="timestamp is an int64 at 1"),
        pytest.param(schema.Alert(ATags=["a", "b"]), "f20101" + "61" + "f20101" + "62", id="ATags repeats at 30"),
        pytest.param(schema.Alert(Owner={"Name": "w"}), "fa0103" + "120177", id="Owner is a message at 31"),
        pytest.param(schema.Alert(EventData={"k": "v"}), "da0206" + "0a016b" + "120176", id="EventData is a map at 43"),
        pytest.param(schema.Alert(UserName="u"), "e2020175", id="UserName of an alert is at 44"),
        pytest.param(schema.Log(Owner={"Name": "w"}), "c20103" + "120177", id="Owner of a log is at 24"),
        pytest.param(
            schema.Log(EventData={"k": "v"}), "8a0206" + "0a016b" + "120176", id="EventData of a log is at 33"
        ),
        pytest.param(schema.Log(UserName="u"), "92020175", id="UserName of a log is at 34"),
        pytest.param(schema.Message(Message="m"), "42016d", id="Message is at 8"),
    ],
)
def test_bytes_are_those_of_the_protocol(message: object, encoded: str) -> None:
    """Worked out by hand from the protocol buffers encoding, not by the code that is tested."""
    assert message.SerializeToString().hex() == encoded  # type: ignore[attr-defined]


def test_every_field_has_a_number_of_its_own_and_none_is_left_out() -> None:
    """44 fields of an alert, 34 of a log, 8 of a message, without gaps."""
    for kind, count in ((schema.Alert, 44), (schema.Log, 34), (schema.Message, 8)):
        assert sorted(field.number for field in kind.DESCRIPTOR.fields) == list(range(1, count + 1))


def test_the_service_has_its_four_methods() -> None:
    """Three of them stream."""
    service = schema.POOL.FindServiceByName(schema.SERVICE)
    assert {method.name: method.output_type.name for method in service.methods} == {
        "HealthCheck": "ReplyMessage",
        "WatchMessages": "Message",
        "WatchAlerts": "Alert",
        "WatchLogs": "Log",
    }
    assert {method.name for method in service.methods if method.server_streaming} == {
        "WatchMessages",
        "WatchAlerts",
        "WatchLogs",
    }
