"""Certificates: whole, checked, private, atomic, and only written when changed."""

import base64
import os
import time
from pathlib import Path

import pytest
import trustme

from forwarder.errors import ConfigError
from forwarder.sidecar.certificates import CURRENT, Certificates, Folder, Names, from_secret

NAMES = Names("ca.crt", "client.crt", "client.key")
AUTHORITY = trustme.CA()


def issue() -> tuple[bytes, bytes]:
    issued = AUTHORITY.issue_cert("client")
    return issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()


def certificates(**changes: bytes | float) -> Certificates:
    crt, key = issue()
    whole = {"ca": AUTHORITY.cert_pem.bytes(), "crt": crt, "key": key, "expires": 2e9, **changes}
    return Certificates(**whole)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "ssl", NAMES)
    made.prepare()
    return made


def secret(**changes: str) -> dict[str, str]:
    crt, key = issue()
    whole = {"ca.crt": AUTHORITY.cert_pem.bytes(), "client.crt": crt, "client.key": key}
    return {name: base64.b64encode(part).decode() for name, part in whole.items()} | changes


def test_a_secret_is_read_with_its_date() -> None:
    """The expiry is that of the client certificate."""
    found = from_secret(secret(), NAMES, "Secret a/b")
    assert found.crt.startswith(b"-----BEGIN CERTIFICATE")
    assert found.expires > time.time()
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"client.key": ""}, r"Secret a/b: it has no key `client.key` \(it has: .*\); add it, or set --tls-key-file"),
        ({"client.crt": "%%%"}, "its key `client.crt` is no base64"),
        ({"client.crt": "eA=="}, "Secret a/b, key `client.crt`: no PEM certificate in it"),
    ],
    ids=["missing", "base64", "pem"],
)
def test_a_secret_that_cannot_be_used_says_which_key(changes: dict[str, str], said: str) -> None:
    """And never quotes what is in it."""
    with pytest.raises(ConfigError, match=said):
        from_secret(secret(**changes), NAMES, "Secret a/b")


def test_files_are_private_and_written_only_when_changed(folder: Folder) -> None:
    """0600 in 0700; the second write of the same does nothing; names are links that change together."""
    first, second = certificates(), certificates()
    assert folder.write(first, 0.0)
    assert not folder.write(first, 0.0)
    assert folder.complete()
    assert (folder.path / "client.key").read_bytes() == first.key
    assert (folder.path / "client.key").stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.write(second, 0.0)
    assert [(folder.path / name).read_bytes() for name in ("ca.crt", "client.crt", "client.key")] == [
        second.ca, second.crt, second.key,
    ]  # fmt: skip
    assert folder.current() == second.digest


def test_old_keys_do_not_stay(folder: Folder) -> None:
    """One generation, the link to it, and three names: nothing else is left in the folder."""
    for _ in range(3):
        newest = certificates()
        folder.write(newest, 0.0)
    assert sorted(os.listdir(folder.path)) == sorted(
        [f"..{newest.digest}", CURRENT, "ca.crt", "client.crt", "client.key"]
    )


def test_plain_files_of_before_are_replaced(folder: Folder) -> None:
    """What somebody put there by hand."""
    for name in ("ca.crt", "client.crt", "client.key"):
        (folder.path / name).write_text("old")
    whole = certificates()
    assert folder.write(whole, 0.0)
    assert (folder.path / "client.crt").read_bytes() == whole.crt


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": issue()[1]}, "client.key: it does not belong to the certificate `client.crt`"),
        ({"key": b"nothing"}, "client.key: it is no PEM key"),
        ({"ca": b"nothing"}, "ca.crt: no PEM certificate"),
        ({"expires": 1_000_000_000.0}, "expired at 2001-09-09 01:46 UTC; renew it in the Secret"),
    ],
    ids=["pair", "key", "ca", "expired"],
)
def test_what_does_not_fit_is_refused_and_what_is_in_place_stays(
    folder: Folder, changes: dict[str, bytes | float], said: str
) -> None:
    """Fluent Bit would not start with it, or the receiver refuse it."""
    good = certificates()
    folder.write(good, 0.0)
    with pytest.raises(ConfigError, match=said):
        folder.write(certificates(**changes), 1_500_000_000.0)
    assert folder.current() == good.digest
    assert (folder.path / "client.key").read_bytes() == good.key
    assert len(os.listdir(folder.path)) == 5


def test_a_folder_that_cannot_be_written_says_what_to_mount(tmp_path: Path) -> None:
    """At the start, not at the first rotation."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"tls-basedir: cannot write to .*mount a writable folder"):
        Folder(tmp_path / "file" / "ssl", NAMES).prepare()
