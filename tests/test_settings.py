"""YAML with line numbers, variables, secrets, sizes and addresses."""

import re
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.errors import ConfigError
from forwarder.settings import (
    Address,
    convert,
    expand,
    parse_address,
    parse_bytes,
    parse_document,
    read_document,
    read_secret,
    shipped,
)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    token: str | None = None
    port: int = 80
    mode: Literal["slow", "fast"] = "slow"


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    words: list[str] = []
    named: dict[str, Inner] = {}


def outer(text: str, environ: dict[str, str] | None = None) -> Outer:
    return convert(expand(parse_document(text, "f.yaml"), environ or {}), Outer)


def test_values_are_what_they_seem() -> None:
    """YAML 1.1 would read no, on and dates as something else; a number may stand for text."""
    assert outer("inner: {url: no, token: 0123}\nwords: [on, 2026-01-01, 1.5, ~, y]".replace("~, ", "")) == Outer(
        Inner("no", "123"), ["on", "2026-01-01", "1.5", "y"]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {url: a}\nwrods: []", "f.yaml:2: unknown key `wrods`; did you mean `words`?"),
        ("inner:\n  url: a\n  tokn: b", "f.yaml:3: unknown key `inner.tokn`; did you mean `token`?"),
        ("inner:\n  url: a\n  port: many", "f.yaml:3: `inner.port`: expected a whole number, got text"),
        ("inner:\n  port: 1", "f.yaml:1: `inner`: it lacks the key `url`"),
        ("inner:\n  url: a\n  mode: fsat", "f.yaml:3: `inner.mode`: 'fsat' is none of slow, fast"),
        (
            "named:\n  x:\n    url: a\n    prt: 1\ninner: {url: a}",
            "f.yaml:4: unknown key `named.x.prt`; did you mean `port`?",
        ),
        ("inner: {url: a}\ninner: {url: b}", "f.yaml:2: `inner` stands here a second time; the first is on line 1"),
        ("- a", "f.yaml:1: expected a mapping, got a list"),
        ("inner: {url: a]", "f.yaml:1: not valid YAML"),
        (
            "inner: {url: a, token_file: /nowhere}",
            "f.yaml:1: cannot read the secret file /nowhere: No such file or directory",
        ),
        ("inner: {url: a, token: x, token_file: /nowhere}", "f.yaml:1: `token` and `token_file` cannot both be set"),
        ("inner: {url: '${A}'}", "f.yaml:1: the environment variable A is not set; set it or write ${A:-default}"),
        ("inner: !!python/object:os.system {url: a}", "f.yaml:1"),
        ("[" * 200 + "]" * 200, "f.yaml"),
    ],
)
def test_an_error_names_file_line_key_and_the_nearest_valid_one(text: str, message: str) -> None:
    """So that nobody has to search."""
    with pytest.raises(ConfigError) as caught:
        outer(text)
    assert str(caught.value).startswith(message)


def test_variables() -> None:
    """Defaults, `$$`, numbers; never expanded twice, so a secret may hold dollars."""
    text = "inner: {url: 'http://${HOST:-localhost}/$$x', token: '${T}', port: '${PORT:-8080}'}"
    assert outer(text, {"T": "a${HOST}$b", "HOST": "h"}) == Outer(Inner("http://h/$x", "a${HOST}$b", 8080))
    assert outer(text, {"T": "x", "HOST": ""}).inner.url == "http://localhost/$x"


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("inner: {token: ${T}, url: a}", "x y"),
        ("inner: {url: a, token: ${T}}", "x y"),
        ("inner: {url: a, token: '${T}'}", "x y"),
        ("inner: {url: a, token: ${U:-d-e}}", "d-e"),
        ("inner: {url: a, token: b${U:-}${T}c}", "bx yc"),
        ("inner: {url: a, token: '$${T}'}", "${T}"),
        ("inner:\n  url: a\n  token: ${T}", "x y"),
    ],
)
def test_a_variable_needs_no_quotes_between_braces(text: str, token: str) -> None:
    """As the documentation writes it: YAML does not take the variable's braces for its own."""
    assert outer(text, {"T": "x y"}).inner.token == token


def test_every_example_of_the_documentation_can_be_read() -> None:
    """Each block of YAML, its variables set."""
    folder = Path(__file__).parents[1] / "docs"
    blocks = [
        block
        for file in sorted(folder.glob("*.md"))
        for block in re.findall(r"```yaml\n(.*?)```", file.read_text(), re.DOTALL)
    ]
    assert len(blocks) >= 3
    for block in blocks:
        environ = dict.fromkeys(re.findall(r"\$\{(\w+)", block), "0123456789abcdef")
        expand(parse_document(block, "docs"), environ)


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    """`<name>_file`; its last newline is not part of it."""
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    assert outer(f"inner: {{url: a, token_file: {path}}}").inner.token == "s3cret"
    path.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        read_secret(str(path))


def test_a_small_file_cannot_become_a_big_one() -> None:
    """Aliases of aliases (the billion laughs) are bounded."""
    text = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
    )
    with pytest.raises(ConfigError, match="repeated too often"):
        parse_document(text, "f.yaml")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """In the system's words."""
    with pytest.raises(ConfigError, match=r"nothing.yaml: cannot read it: No such file or directory"):
        read_document(tmp_path / "nothing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 3"):
        read_document(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GiB", 1 << 30),
        ("200M", 200 << 20),
        ("10MB", 10_000_000),
        ("1.5 KiB", 1536),
        ("7", 7),
        (9, 9),
        ("512mib", 512 << 20),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    """Binary with an i or alone, decimal with a B alone."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "many", "-1", "1 XB", "1e9"])
def test_what_is_no_size(text: str) -> None:
    """An example is given."""
    with pytest.raises(ConfigError, match="write for example 512MiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "address", "local"),
    [
        ("127.0.0.1:24224", Address(host="127.0.0.1", port=24224), True),
        ("localhost:1", Address(host="localhost", port=1), True),
        ("[::1]:1", Address(host="::1", port=1), True),
        (":24224", Address(host="0.0.0.0", port=24224), False),
        ("0.0.0.0:24224", Address(host="0.0.0.0", port=24224), False),
        ("10.0.0.1:0", Address(host="10.0.0.1", port=0), False),
        ("unix:/run/f.sock", Address(path="/run/f.sock"), True),
        ("unix:///run/f.sock", Address(path="/run/f.sock"), True),
    ],
)
def test_addresses(text: str, address: Address, local: bool) -> None:
    """And whether only this machine can reach them."""
    assert parse_address(text) == address
    assert address.local is local
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["a: " + "[" * 100_000, "- " * 100_000, "{a: " * 50_000, "a: " + "9" * 5000])
def test_what_no_person_writes_is_refused(text: str) -> None:
    """A file that was damaged or made up ends with a message: not the process, and not a receiver that reloads it."""
    with pytest.raises(ConfigError, match=r"f\.yaml:\d+: (?:nested too deeply|a number this long)"):
        parse_document(text, "f.yaml")


@pytest.mark.parametrize("text", ["", "host", "host:port", "host:70000", "unix:relative", "a b:1", "::1:1", "24224"])
def test_what_is_no_address(text: str) -> None:
    """The forms are given."""
    with pytest.raises(ConfigError):
        parse_address(text)


@given(st.text())
def test_any_text_is_a_document_or_a_config_error(text: str) -> None:
    """Never anything else."""
    try:
        parse_document(text, "f.yaml")
    except ConfigError:
        pass


def test_shipped_files_are_found() -> None:
    """From a checkout and from a wheel."""
    assert shipped("rules/friction.yaml").is_file()
    with pytest.raises(ConfigError, match="install it again"):
        shipped("rules/nothing.yaml")
