"""`forwarder init --kubernetes`: the overlay, its keys, and what stays when it is written again."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwarder import __version__
from forwarder.cli.init_kubernetes import PARTS, read_image
from forwarder.errors import ConfigError
from forwarder.settings import read_document, shipped

Run = Callable[..., Result]
SECRETS = ["certs/ca.key", "certs/client.key", "certs/server.key", "secrets/api-key", "secrets/shared-key", "secrets/telemetry-token"]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """The keys of an overlay."""
    return {name: (folder / name).read_bytes() for name in SECRETS}


def test_keys_are_private_and_nowhere_else(run: Run, tmp_path: Path) -> None:
    """0600 in folders of 0700 that git ignores; never printed, never in a manifest; no newline that would become part of a key."""
    said = run("init", "--kubernetes", "--dir", tmp_path / "o").output
    folder = tmp_path / "o"
    for name in SECRETS:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / name).parent.stat().st_mode) == 0o700
    keys = {key.decode() for name, key in contents(folder).items() if name.startswith("secrets/")}
    assert len(keys) == 3
    assert all(len(key) >= 43 and key == key.strip() for key in keys)
    others = said + "".join(
        path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name not in ("secrets", "certs")
    )
    assert not any(key in others for key in keys)
    assert all("*" in (folder / name / ".gitignore").read_text().splitlines() for name in ("secrets", "certs"))


def test_the_base_is_what_is_shipped(run: Run, tmp_path: Path) -> None:
    """File by file, so that the overlay needs nothing from elsewhere."""
    run("init", "--kubernetes", "--dir", tmp_path)
    for part in PARTS:
        for source in (path for path in shipped(part).rglob("*") if path.is_file()):
            copy = tmp_path / "base" / part / source.relative_to(shipped(part))
            assert copy.read_bytes() == source.read_bytes()


def test_what_others_put_there_stays(run: Run, tmp_path: Path) -> None:
    """A folder `base` that somebody made is not touched without --force, and with it only our parts of it are."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "mine.yaml").write_text("mine")
    (tmp_path / ".gitignore").write_text("mine")
    result = run("init", "--kubernetes", "--dir", tmp_path)
    assert result.exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gitignore", "base"]
    assert run("init", "--kubernetes", "--dir", tmp_path, "--force").exit_code == 0
    assert (tmp_path / "base" / "mine.yaml").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_text() == "mine"


def test_again_with_force_keeps_keys(run: Run, tmp_path: Path) -> None:
    """Running agents know them; a key whose file was removed is made anew, its neighbours stay."""
    run("init", "--kubernetes", "--dir", tmp_path, "--cluster", "one")
    before = contents(tmp_path)
    refused = run("init", "--kubernetes", "--dir", tmp_path, "--cluster", "two")
    assert refused.exit_code == 2
    assert "FORWARDER_CLUSTER=one" in (tmp_path / "kustomization.yaml").read_text()
    (tmp_path / "secrets/api-key").unlink()
    (tmp_path / "base/deploy/changed.yaml").write_text("by hand")
    assert run("init", "--kubernetes", "--dir", tmp_path, "--cluster", "two", "--force").exit_code == 0
    assert "FORWARDER_CLUSTER=two" in (tmp_path / "kustomization.yaml").read_text()
    assert not (tmp_path / "base/deploy/changed.yaml").exists()
    after = contents(tmp_path)
    assert [name for name in SECRETS if before[name] != after[name]] == ["secrets/api-key"]


def test_the_authoritys_key_may_be_kept_elsewhere(run: Run, tmp_path: Path) -> None:
    """It is needed only where a certificate is missing."""
    run("init", "--kubernetes", "--dir", tmp_path)
    (tmp_path / "certs/ca.key").unlink()
    assert run("init", "--kubernetes", "--dir", tmp_path, "--force").exit_code == 0
    (tmp_path / "certs/server.crt").unlink()
    error = run("init", "--kubernetes", "--dir", tmp_path, "--force").exception
    assert "ca.key: is missing" in str(error)


def test_certificates_of_a_lost_authority_are_not_mixed_with_a_new_one(run: Run, tmp_path: Path) -> None:
    """The agents would trust neither."""
    run("init", "--kubernetes", "--dir", tmp_path)
    for name in ("ca.crt", "ca.key"):
        (tmp_path / "certs" / name).unlink()
    error = run("init", "--kubernetes", "--dir", tmp_path, "--force").exception
    assert "server, client are there" in str(error)


@pytest.mark.parametrize("distribution", ["kubeadm", "k3s", "rke2", "plain"])
def test_the_distribution_chooses_the_variant(run: Run, tmp_path: Path, distribution: str) -> None:
    """And the file is valid YAML with the image as asked for."""
    run("init", "--kubernetes", "--dir", tmp_path, "--distribution", distribution, "--image", "reg.example:5000/a/ff:7")
    data = read_document(tmp_path / "kustomization.yaml").data
    assert f"base/deploy/node/{distribution}" in data["resources"]
    assert all((tmp_path / resource / "kustomization.yaml").is_file() for resource in data["resources"])
    assert data["images"] == [{"name": "friction-forwarder", "newName": "reg.example:5000/a/ff", "newTag": "7"}]


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ff", ("ff", __version__, "")),
        ("ff:1.0", ("ff", "1.0", "")),
        ("reg:5000/ff", ("reg:5000/ff", __version__, "")),
        ("reg:5000/ff:x", ("reg:5000/ff", "x", "")),
        (f"ghcr.io/a/ff@{DIGEST}", ("ghcr.io/a/ff", "", DIGEST)),
        (f"ff:1@{DIGEST}", ("ff", "1", DIGEST)),
    ],
)
def test_images(text: str, parts: tuple[str, str, str]) -> None:
    """Name, tag and digest; the tag is this version where none is said."""
    assert read_image(text) == parts


@pytest.mark.parametrize("text", ["", "a b", "FF", "ff:", "ff:a:b", "ff@sha256:12", "ff/", "ff:1\nnewTag: 2", "ff:1\n"])
def test_no_image(text: str) -> None:
    """It goes into YAML, so it must be what it claims to be."""
    with pytest.raises(ConfigError, match="--image"):
        read_image(text)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--cluster", "a b"], "--cluster"),
        (["--audit-log", "/x"], "--audit-log"),
        (["--systemd", "--data-dir", "/d"], "--data-dir, --systemd"),
        (["--image", "a b"], "--image"),
    ],
)
def test_an_answer_that_cannot_be_is_named(run: Run, tmp_path: Path, arguments: list[str], named: str) -> None:
    """And nothing is written."""
    error = run("init", "--kubernetes", "--dir", tmp_path / "o", *arguments).exception
    assert isinstance(error, ConfigError)
    assert str(error).startswith(named)
    assert not (tmp_path / "o").exists()
