"""`forwarder init --webhook`: a kubeconfig that fits the settings beside it."""

import base64
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from forwarder.cli.configuration import read_config
from forwarder.cli.init_webhook import read_url
from forwarder.cli.keys import read_env_file
from forwarder.errors import ConfigError
from forwarder.sources.webhook import PATHS

Run = Callable[..., Result]


def test_the_kubeconfig_fits_the_settings(run: Run, tmp_path: Path) -> None:
    """Over https: the token, the authority, and a certificate for the host in the URL."""
    url = "https://10.0.0.5:9765/audit"
    result = run("init", "--dir", tmp_path, "--yes", "--webhook", "--webhook-url", url, "--forward-listen", "none")
    assert result.exit_code == 0, result.output
    path = tmp_path / "audit-webhook.kubeconfig"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kubeconfig = yaml.safe_load(path.read_text())
    settings = read_config(tmp_path / "forwarder.yaml").sources["webhook"][1]
    assert (
        kubeconfig["users"][0]["user"]["token"] == settings.token == read_env_file(tmp_path / ".env")["WEBHOOK_TOKEN"]
    )
    cluster = kubeconfig["clusters"][0]["cluster"]
    assert cluster["server"] == url
    assert base64.b64decode(cluster["certificate-authority-data"]) == (tmp_path / "certs/ca.crt").read_bytes()
    assert (settings.listen, settings.paths) == ("0.0.0.0:9765", ["/audit", "/k8s-audit", "/auditLogs"])
    assert settings.tls.cert_file == str(tmp_path / "certs/server.crt")
    assert settings.token not in result.output


def test_a_path_of_its_own_is_served(run: Run, tmp_path: Path) -> None:
    """And only that; one of the known paths leaves the door with all of them, for configurations that are there already."""
    for url, paths in (("http://127.0.0.1:9765/ours", ["/ours"]), ("http://127.0.0.1:9765/k8s-audit", list(PATHS))):
        assert run("init", "--dir", tmp_path, "--yes", "--force", "--webhook", "--webhook-url", url).exit_code == 0
        assert read_config(tmp_path / "forwarder.yaml").sources["webhook"][1].paths == paths


def test_on_one_machine_it_needs_no_certificates(run: Run, tmp_path: Path) -> None:
    """The default URL is loopback."""
    assert run("init", "--dir", tmp_path, "--yes", "--webhook").exit_code == 0
    settings = read_config(tmp_path / "forwarder.yaml").sources["webhook"][1]
    assert (settings.listen, settings.tls) == ("127.0.0.1:9765", None)
    assert settings.token
    assert not (tmp_path / "certs").exists()


def test_written_again_it_keeps_token_and_authority(run: Run, tmp_path: Path) -> None:
    """What was copied to the API server's machine goes on working."""
    arguments = ("init", "--dir", tmp_path, "--yes", "--webhook", "--webhook-url", "https://receiver.example")
    assert run(*arguments).exit_code == 0
    before = (tmp_path / "audit-webhook.kubeconfig").read_text()
    assert run(*arguments).exit_code == 2
    assert run(*arguments, "--force").exit_code == 0
    assert (tmp_path / "audit-webhook.kubeconfig").read_text() == before


@pytest.mark.parametrize(
    "url",
    ["10.0.0.5:9765", "ftp://a/audit", "https://", "https://a:b@c/audit", "https://a/audit?x=1", "https://a:99999/", "http://10.0.0.5/audit", 'https://a"b/'],
)  # fmt: skip
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    """Also one that would show the token to the network."""
    with pytest.raises(ConfigError):
        read_url(url)


def test_a_url_without_the_flag_is_refused(run: Run, tmp_path: Path) -> None:
    """It would be passed over."""
    error = run("init", "--dir", tmp_path, "--yes", "--webhook-url", "https://a").exception
    assert isinstance(error, ConfigError)
