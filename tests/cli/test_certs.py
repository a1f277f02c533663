"""`forwarder certs`: what is written, who may read it, and what stays."""

import stat
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from typer.testing import Result

from forwarder.errors import ConfigError

Run = Callable[..., Result]
FILES = ["ca.crt", "ca.key", "client.crt", "client.key", "server.crt", "server.key"]


def names(path: Path) -> list[str]:
    """The names in a certificate."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def test_three_pairs_for_their_owner_only(run: Run, tmp_path: Path) -> None:
    """0600 each, no key on the terminal, the Service's names in the server's."""
    result = run("certs", "--dir", tmp_path / "c")
    assert result.exit_code == 0, result.output
    written = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert written == FILES
    assert {stat.S_IMODE((tmp_path / "c" / name).stat().st_mode) for name in written} == {0o600}
    assert "PRIVATE" not in result.output
    assert "friction-forwarder.friction-forwarder.svc" in names(tmp_path / "c/server.crt")
    assert names(tmp_path / "c/client.crt") == ["fluent-bit"]


def test_own_names(run: Run, tmp_path: Path) -> None:
    """--server may be given again; addresses too."""
    run("certs", "--dir", tmp_path, "--server", "a.example", "--server", "10.0.0.7", "--client", "prod-eu-1")
    assert names(tmp_path / "server.crt") == ["a.example", "10.0.0.7"]
    assert names(tmp_path / "client.crt") == ["prod-eu-1"]


def test_nothing_is_replaced_without_force(run: Run, tmp_path: Path) -> None:
    """Exit 2 and the names of the files; not even what was missing is written."""
    (tmp_path / "client.key").write_text("mine")
    result = run("certs", "--dir", tmp_path)
    assert result.exit_code == 2
    assert "client.key" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["client.key"]


def test_renewal_keeps_the_authority(run: Run, tmp_path: Path) -> None:
    """--force replaces server and client; who trusts the authority trusts the new ones."""
    run("certs", "--dir", tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    result = run("certs", "--dir", tmp_path, "--force")
    assert "authority kept" in result.stdout
    changed = [name for name in FILES if (tmp_path / name).read_bytes() != before[name]]
    assert changed == ["client.crt", "client.key", "server.crt", "server.key"]


def test_half_an_authority_is_no_reason_to_make_a_new_one(run: Run, tmp_path: Path) -> None:
    """Agents trust the old one; its key is somewhere."""
    run("certs", "--dir", tmp_path)
    (tmp_path / "ca.key").unlink()
    error = run("certs", "--dir", tmp_path, "--force").exception
    assert isinstance(error, ConfigError)
    assert "ca.key: is missing" in str(error)
