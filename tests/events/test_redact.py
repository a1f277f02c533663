"""What leaves the house: printable, bounded, without credentials, and still worth reading."""

import base64
import hashlib
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from forwarder.events import redact
from forwarder.events.audit import decode
from forwarder.events.redact import command, command_from_uri, head, text, uri

LINES = (Path(__file__).parents[1] / "data/control-plane/audit.log").read_bytes().splitlines()

# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("kubectl/v1.32.4 (linux/amd64) kubernetes/4cb5f07", None),
        ("two\nlines\tand\r\na gap", "two lines and  a gap"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07x", "red x"),
        ("\x9b31mred\x85\x90", "red "),
        ("a\u202egpj.exe\u2066\u200b\ufeff", "agpj.exe"),
        ("line\u2028separator", "line separator"),
        ("nul\0lone\ud800", "nullone"),
        ("Zoë, 東京 🚀", None),
        ("x" * 101, "x" * 99 + "…"),
    ],
)
def test_text_is_one_printable_line(value: str, expected: str | None) -> None:
    """Nothing that a terminal or a log obeys is left; None: the text is untouched."""
    assert text(value, 100) == (value if expected is None else expected)


def test_what_a_real_log_says_stays_readable() -> None:
    """Names, agents, users, groups and URIs of a real log, some of them hostile, are not taken for credentials."""
    for line in LINES:
        event = decode(line)
        reference = event.object_ref
        values = [
            event.user_agent,
            event.user.username,
            *event.user.groups,
            *event.source_ips,
            *event.annotations.values(),
        ]
        values += [reference.name, reference.namespace] if reference else []
        values += [value for extra in event.user.extra.values() for value in extra]
        assert [text(value, 1000) for value in values] == values
        assert uri(event.request_uri) == event.request_uri


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_command_is_bounded() -> None:
    """In characters and in arguments, and both say that something is missing."""
    assert command(["echo", "x " * 10_000]).endswith("…")
    assert len(command(["echo", "x " * 10_000])) == redact.MAX_COMMAND_CHARS
    assert command(["x"] * 1000).endswith("x…")
    assert command(["x" * 1_000_000]) == "…"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("command=echo&command=a+b%26c%3Dd&container=app&stdin=true&tty=true", ("echo 'a b&c=d'", "app", True)),
        ("container=one&container=two&command=sh", ("sh", "one", False)),
        ("tty=1", ("", "", True)),
        ("tty=0&command=sh", ("sh", "", False)),
        ("tty=false&tty=true", ("", "", False)),
        ("tty", ("", "", True)),
        ("command=%FF%00&container=" + "c" * 100, ("'\ufffd'", "c" * 62 + "…", False)),
        ("command=mysql&command=-phunter2", ("mysql -p[redacted]", "", False)),
        ("", ("", "", False)),
    ],
)
def test_an_exec_is_rebuilt_from_its_uri(query: str, expected: tuple[str, str, bool]) -> None:
    """The whole command, the first container, and whether there is a terminal, read as the apiserver reads them."""
    assert command_from_uri("/api/v1/namespaces/shop/pods/x/exec?" + query) == expected


def test_a_uri_without_query_has_no_command() -> None:
    assert command_from_uri("/api/v1/pods") == ("", "", False)


def test_half_a_parameter_at_the_end_of_the_window_is_dropped() -> None:
    """A huge URI is cut; the parameter that the cut went through is not shown."""
    padding = "x" * (redact.MAX_INPUT_CHARS - 40)
    shown, _, _ = command_from_uri("/exec?command=ls&pad=" + padding + "&command=ghp_" + "a" * 40)
    assert shown == "ls"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "/api/v1/namespaces/shop/services/web/proxy/login?user=a&password=hunter2&x=1",
            "?user=a&password=[redacted]&x=1",
        ),
        ("/x?pass%77ord=hunter2", "?password=[redacted]"),
        ("/x?url=postgres%3A%2F%2Fu%3Ahunter2%40db", "?url=postgres://u:[redacted]@db"),
        ("/exec?command=mysql&command=-phunter2&command=a%20b", "?command=mysql&command=-p[redacted]&command=a%20b"),
        (
            "/x?fieldSelector=metadata.name%3Dcheckout-6fc96cb7fd-68vhg&watch",
            "?fieldSelector=metadata.name%3Dcheckout-6fc96cb7fd-68vhg&watch",
        ),
    ],
)
def test_a_uri_hides_telling_parameters(value: str, expected: str) -> None:
    """What holds no credential keeps its very bytes."""
    assert uri(value) == value.partition("?")[0] + expected


# --- heads of dead letters -------------------------------------------------------------------------------------------


def test_a_head_ends_where_bodies_begin() -> None:
    """No dead letter shows a request body, however the line is wrapped."""
    line = next(line for line in LINES if b'"requestObject"' in line)
    escaped = json.dumps({"records": [{"properties": {"log": line.decode()}}]}).encode()
    for data in (line, line[:-100], escaped):
        shown = head(data, 10_000)
        assert "RequestResponse" in shown
        assert "Object" not in shown.replace("objectRef", "")
        assert shown.endswith("…")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"verb":"get","user":"al', '{"verb":"get","user":"al'),
        (b'{"verb":"get","token":"hunter2","x":1}', '{"verb":"get","token":…'),
        (b'{"password": 12345, "x":1}', '{"password":…'),
        (b'{"kind":"Secret","data":{"a":"aHVudGVyMg=="}}', '{"kind":"Secret",…'),
        (b'{"stringData" : {"a":"hunter2"}}', "{…"),
        (b'{\\"clientSecret\\":\\"hunter2\\",\\"x\\":1}', '{\\"clientSecret\\":…'),
        (b'{"name":"DB_PASSWORD","value":"hunter2"}]', '{"name":"DB_PASSWORD","value":…'),
        (b'hunter2"}},"responseObject":{', "…"),
        (b'["sh","-c","echo hunter2"]', "…"),
        (b"no audit event", "no audit event"),
        (b"\x93\xa3tag\xce\0\x01\xff", "\ufffd\ufffdtag\ufffd\x01\ufffd".replace("\x01", "")),
        (b"\xef\xbb\xbfx", "x"),
        (b"", ""),
    ],
)
def test_a_head_is_printable_and_redacted(data: bytes, expected: str) -> None:
    assert head(data) == expected


PLANTED = "Winter2024"  # looks like a word, so only its place can tell
BODIES = (
    {"kind": "Secret", "data": {"a.json": "e30=", "plain": base64.b64encode(PLANTED.encode()).decode()}},
    {"kind": "Secret", "stringData": {"db": PLANTED}},
    {"kind": "TokenRequest", "status": {"token": PLANTED}},
    {"kind": "Deployment", "spec": {"containers": [{"name": "a", "env": [{"name": "DB_PASSWORD", "value": PLANTED}]}]}},
    {"kind": "ConfigMap", "data": {"application.properties": f"db.user=x\ndb.password={PLANTED}\n"}},
    {"metadata": {"annotations": {"last-applied-configuration": json.dumps({"stringData": {"x": PLANTED}})}}},
)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.get("kind", "annotation"))
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in an envelope"])
def test_a_piece_of_a_line_shows_no_payload(body: dict[str, object], wrapped: bool) -> None:
    """Wherever the piece begins and ends: a log that was truncated while it was read leaves such pieces."""
    fields = {"kind": "Event", "level": "RequestResponse", "verb": "create", "requestObject": body, "stage": "x"}
    line = json.dumps(fields, separators=(",", ":"))
    if wrapped:
        line = json.dumps({"records": [{"properties": {"log": line}}]})
    encoded = base64.b64encode(PLANTED.encode()).decode()
    for start in range(len(line)):
        for piece in (line[start:], line[start : start + 60], "x" + line[start:]):
            shown = head(piece.encode())
            assert PLANTED not in shown
            assert encoded not in shown


def test_a_head_is_short() -> None:
    """300 characters by default, whatever was sent."""
    assert len(head(b"x y " * 100_000)) == 300
    assert head(b"A1b2" * 100_000) == "…"  # one endless word may be a credential


# --- planted secrets -------------------------------------------------------------------------------------------------


def random_base64(seed: int) -> str:
    """44 characters that nobody made up."""
    return base64.b64encode(hashlib.sha256(str(seed).encode()).digest()).decode()


def random_hex(seed: int) -> str:
    return hashlib.sha256(str(seed).encode()).hexdigest()[:40]


TOKENS: dict[str, Callable[[int], str]] = {
    "jwt": lambda seed: (
        "eyJhbGciOiJSUzI1NiJ9."
        + random_base64(seed)[:40].replace("/", "_").replace("+", "-")
        + ".sig_"
        + random_hex(seed)
    ),
    "aws": lambda seed: "AKIA" + random_hex(seed)[:16].upper(),
    "github": lambda seed: "ghp_" + random_hex(seed)[:36],
    "slack": lambda seed: f"xoxb-{seed}-" + random_hex(seed)[:24],
    "gitlab": lambda seed: "glpat-" + random_hex(seed)[:20],
    "base64": random_base64,
    "hex": random_hex,
    "pem": lambda seed: "-----BEGIN RSA PRIVATE KEY-----\n" + random_base64(seed) + "\n-----END RSA PRIVATE KEY-----",
}
BETWEEN = st.sampled_from(["", " ", "\n", "\t", "x ", "'", '"', ",", ":", "(", "; ", " = ", "\x1b[1m", "é "])


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(TOKENS)),
    seed=st.integers(0, 10**6),
    before=BETWEEN,
    behind=BETWEEN,
    limit=st.integers(1, 400),
)
def test_a_token_never_survives(kind: str, seed: int, before: str, behind: str, limit: int) -> None:
    """Tokens of known form and random strings are hidden wherever they stand, in every exit."""
    token = TOKENS[kind](seed)
    value = f"see{before}{token}{behind}end"
    body = token.split("\n")[1] if kind == "pem" else token
    exits = (
        text(value, limit),
        command(["echo", value]),
        command(["sh", "-c", f"echo {value}"]),
        command([token]),
        uri("/x?q=" + quote_plus(value)),
        uri("/x/" + quote(value, safe="")),
        head(value.encode(), limit),
        *command_from_uri("/exec?command=echo&command=" + quote_plus(value) + "&container=" + quote_plus(value))[:2],
    )
    for shown in exits:
        assert body not in shown
        assert body[10:30] not in shown
        assert body[-20:] not in shown


def nested(argv: list[str], depth: int) -> list[str]:
    return nested(["sh", "-c", shlex.join(argv)], depth - 1) if depth else argv


NAMES = st.sampled_from(
    ["password", "DB_PASSWORD", "api-key", "clientSecret", "access_token", "MYSQL_ROOT_PASSWORD", "db_pass"]
)
SECRETS = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=30).map(
    lambda s: "q7" + s
)


@settings(max_examples=300, deadline=None)
@given(name=NAMES, secret=SECRETS, depth=st.integers(0, 3))
def test_a_named_secret_in_a_command_never_survives(name: str, secret: str, depth: int) -> None:
    """Any printable secret behind a telling flag, variable or program, bare or quoted inside `sh -c`, up to three deep."""
    assume(secret not in name)
    for argv in (
        ["app", f"--{name}={secret}", "x"],
        ["app", f"--{name}", secret, "x"],
        ["env", f"{name.replace('-', '_')}={secret}", "app"],
        ["mysql", f"-p{secret}"],
        ["redis-cli", "-a", secret],
        ["curl", "-u", f"bob:{secret}"],
        ["curl", "-H", f"Authorization: Bearer {secret}"],
        ["curl", "-H", f"X-{name.replace('_', '-')}: {secret}"],
    ):
        wrapped = nested(argv, depth)
        assert secret not in command(wrapped)
        assert secret not in uri("/exec?" + "&".join("command=" + quote_plus(word) for word in wrapped))


@settings(max_examples=200, deadline=None)
@given(name=NAMES, secret=SECRETS)
def test_a_named_secret_in_json_never_survives(name: str, secret: str) -> None:
    """In the head of a dead letter, as JSON, as JSON inside JSON, and as a query."""
    inner = json.dumps({"x": 1, name: secret, "y": 2})
    for data in (inner, json.dumps({"log": inner}), f"/login?{name}={quote_plus(secret)}&x=1"):
        shown = head(data.encode())
        assert secret not in shown
        assert json.dumps(secret)[1:-1] not in shown
        assert quote_plus(secret) not in shown


# --- properties ------------------------------------------------------------------------------------------------------

ANY_TEXT = st.text(max_size=80) | st.text(alphabet="=:'\"\\ -pu{}[]()|&;$`\n\x1b%/@ays\u202e\ud800", max_size=60)


@settings(max_examples=300, deadline=None)
@given(value=ANY_TEXT, data=st.binary(max_size=60), limit=st.integers(0, 60))
def test_anything_goes_in_and_only_printable_text_comes_out(value: str, data: bytes, limit: int) -> None:
    """No text and no bytes raise; no control character and no more than the limit comes out."""
    words = value.split("s")
    assert len(text(value, limit)) <= limit
    assert len(head(data, limit)) <= limit
    shown = [text(value, limit), uri(value), command(words), *command_from_uri("?command=" + value)[:2]]
    shown += [command(["sh", "-c", value]), command(["mysql", *words]), command(["curl", *words]), head(data, limit)]
    for each in shown:
        assert each.isprintable()


@settings(max_examples=200, deadline=None)
@given(value=ANY_TEXT | st.sampled_from(sorted(TOKENS)).map(lambda kind: f"password={TOKENS[kind](1)} --token x"))
def test_redacting_twice_changes_nothing(value: str) -> None:
    """So a text that was built of redacted parts stays readable."""
    once = text(value, 1000)
    assert text(once, 1000) == once


HOSTILE = [
    *("a", "eyJ", "://", "://x:y", "=", "password=", '"', "'", "-----BEGIN A-----", "-", " ", "authorization: ", "aB1"),
    *(
        "a.",
        "\\",
        '\\"',
        "identified by '",
        "\x1b[",
        "\x1b]",
        "--password ",
        'sh -c "',
        "$(",
        "|",
        "base64 ",
        "secret={",
    ),
    *("\u202e", "\ud800", "%41", "&", "&command=-p", "a_key=", "bearer ", "sudo  -aaaaaaa", "basic", "é"),
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_megabyte_takes_no_long_time(unit: str) -> None:
    """Every exit is linear, and reads only as much as it may show."""
    value = unit * ((1 << 20) // len(unit))
    began = time.process_time()
    text(value, 300)
    uri("/x?command=" + value)
    command([value])
    command(["sh", "-c", value[:30_000]])
    command(["mysql", *[value[:200]] * 300])
    command_from_uri("/x?" + value)
    head(value.encode("utf-8", "replace"))
    assert time.process_time() - began < 5
