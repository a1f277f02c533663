"""HELO, PING, PONG: who knows the secrets gets in, everybody else is told in a few words and learns nothing."""

import hashlib

import msgpack
import pytest

from forwarder.errors import ForwardProtocolError
from forwarder.wire.forward_handshake import SERVER_NAME, ClientHandshake, ServerHandshake


def _meet(server, client):
    """The server's verdict on a client, and the client's on the server (None is trust)."""
    verdict = server.judge(client.answer(server.hello()))
    try:
        client.check(verdict.reply)
    except ForwardProtocolError as error:
        return verdict, str(error)
    return verdict, None


def test_the_same_key_is_enough_where_there_are_no_users():
    """Both sides have proved it."""
    verdict, doubt = _meet(ServerHandshake("key", {}), ClientHandshake("key", user="anyone", password="anything"))
    assert (verdict.ok, verdict.user, doubt) == (True, "", None)


def test_user_and_password_are_asked_for_on_top():
    """And the name that was proved comes out."""
    verdict, doubt = _meet(
        ServerHandshake("key", {"node": "pass"}), ClientHandshake("key", user="node", password="pass")
    )
    assert (verdict.ok, verdict.user, doubt) == (True, "node", None)


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (ClientHandshake("wrong", user="node", password="pass"), "the shared key is wrong"),
        (ClientHandshake("key", user="node", password="wrong"), "user name or password is wrong"),
        (ClientHandshake("key", user="other", password="pass"), "user name or password is wrong"),
        (ClientHandshake("key", user="other"), "user name or password is wrong"),
        (ClientHandshake("key"), "user name or password is wrong"),
    ],
    ids=["key", "password", "unknown user", "unknown user without password", "no user"],
)
def test_a_wrong_secret_is_refused_in_words_that_fluent_bit_can_show(client, reason):
    """It shows the first 31 characters; the answer proves nothing about the key."""
    verdict, doubt = _meet(ServerHandshake("key", {"node": "pass"}), client)
    assert (verdict.ok, verdict.reason) == (False, reason)
    assert len(reason) < 32
    assert reason in doubt
    assert msgpack.unpackb(verdict.reply) == ["PONG", False, reason, "", ""]


def test_hello_sends_its_random_numbers_as_bin_and_new_each_time():
    """The node client reads a str as UTF-8 and would change them; an `auth` of no bytes says that no user is asked for."""
    hello = msgpack.unpackb(ServerHandshake("key", {}).hello())
    other = msgpack.unpackb(ServerHandshake("key", {"a": "b"}).hello())
    assert hello[0] == "HELO"
    assert isinstance(hello[1]["nonce"], bytes)
    assert len(hello[1]["nonce"]) == 16
    assert hello[1]["nonce"] != other[1]["nonce"]
    assert (hello[1]["auth"], len(other[1]["auth"])) == (b"", 16)


def test_the_digests_are_those_of_the_specification():
    """SHA-512 over the plain concatenation, in lower-case hex."""
    server = ServerHandshake("key", {"u": "p"}, nonce=b"nonce", auth=b"auth")
    ping = msgpack.unpackb(
        ClientHandshake("key", user="u", password="p", host="me", salt=b"salt").answer(server.hello())
    )
    assert ping[3] == hashlib.sha512(b"salt" + b"me" + b"nonce" + b"key").hexdigest()
    assert ping[5] == hashlib.sha512(b"auth" + b"u" + b"p").hexdigest()
    pong = msgpack.unpackb(server.judge(msgpack.packb(ping)).reply)
    assert pong[:4] == ["PONG", True, "", SERVER_NAME]
    assert pong[4] == hashlib.sha512(b"salt" + SERVER_NAME.encode() + b"nonce" + b"key").hexdigest()


def test_an_answer_cannot_be_used_again():
    """Each connection has its own nonce."""
    client = ClientHandshake("key")
    ping = client.answer(ServerHandshake("key", {}).hello())
    assert not ServerHandshake("key", {}).judge(ping).ok


def test_a_server_that_does_not_know_the_key_is_not_trusted():
    """Saying yes is not enough."""
    client = ClientHandshake("key")
    client.answer(ServerHandshake("other", {}).hello())
    with pytest.raises(ForwardProtocolError, match="does not know"):
        client.check(msgpack.packb(["PONG", True, "", "impostor", "0" * 128]))


@pytest.mark.parametrize(
    "message",
    [
        ["PING", "h", "s", "d", "u"],
        ["PING", "h", "s", "d", "u", "p", "x"],
        ["PONG", "h", "s", "d", "u", "p"],
        ["PING", 1, 2, 3, 4, 5],
        [],
        {},
        5,
    ],
    ids=str,
)
def test_what_is_no_ping_is_an_error(message):
    """Six texts, no more and no fewer."""
    with pytest.raises(ForwardProtocolError):
        ServerHandshake("key", {}).judge(msgpack.packb(message))


@pytest.mark.parametrize("reply", [["PONG", True], ["PONG", True, "", 1, 2], ["HELO", {}], 5], ids=str)
def test_what_is_no_pong_is_an_error(reply):
    """A client must not go on after it."""
    client = ClientHandshake("key")
    client.answer(ServerHandshake("key", {}).hello())
    with pytest.raises(ForwardProtocolError):
        client.check(msgpack.packb(reply))


@pytest.mark.parametrize("hello", [["HELO"], ["PING", {}], ["HELO", {"nonce": 5}], 5], ids=str)
def test_what_is_no_helo_is_an_error(hello):
    """A server without a handshake would send nothing at all."""
    with pytest.raises(ForwardProtocolError):
        ClientHandshake("key").answer(msgpack.packb(hello))


def test_the_words_of_a_server_are_made_harmless():
    """They end up in a terminal."""
    client = ClientHandshake("key")
    client.answer(ServerHandshake("key", {}).hello())
    with pytest.raises(ForwardProtocolError, match=r"the server refused: no\[2Jx$"):
        client.check(msgpack.packb(["PONG", False, "no\x1b[2J\nx", "", ""]))
