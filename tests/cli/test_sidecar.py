"""`forwarder sidecar`: its options are the settings, and --dry-run shows what would run."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from forwarder.cli import app
from forwarder.cli import sidecar as command
from forwarder.sidecar.settings import OPTIONS


def test_every_setting_is_an_option() -> None:
    """And nothing else is, but the file and the dry run."""
    parameters = set(inspect.signature(command.sidecar).parameters)
    assert parameters - {"config", "dry_run"} == {option.name.replace("-", "_") for option in OPTIONS}


def test_every_setting_stands_in_its_page() -> None:
    """With its variable's name, its default and its meaning."""
    text = Path("docs/sidecar.md").read_text("utf-8")
    for option in OPTIONS:
        row = next((line for line in text.splitlines() if line.startswith(f"| `{option.name}` ")), "")
        assert option.meaning in row, option.name
        assert f"`{option.default}`" in row or option.default == "", option.name


def test_a_dry_run_prints_all_and_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also where the folders do not exist and the cluster is far away."""
    monkeypatch.setenv("AUDIT_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("AUDIT_KONNECTIVITY_UDS_SOCKET", "/konnectivity.sock")
    command.sidecar(dry_run=True, namespace="audit")
    out = capsys.readouterr().out
    assert f"# run: fluent-bit -c {tmp_path}/run/fluent-bit.yaml" in out
    assert "# watch: Service audit/kubernetes-audit-tailer" in out
    assert "by HTTP CONNECT over /konnectivity.sock" in out
    assert "storage.pause_on_chunks_overlimit: on" in out
    assert list(tmp_path.iterdir()) == []


def test_only_the_sidecar_loads_the_kubernetes_client() -> None:
    """It is an extra, and slow to import."""
    program = "import sys, forwarder.cli; assert not {'kubernetes', 'cryptography'} & set(sys.modules), 'loaded'"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_short_flags_of_audit_forwarder_work() -> None:
    """`-k` is the kubeconfig, `-c` the settings file."""
    parameters = get_command(app).commands["sidecar"].params  # type: ignore[attr-defined]
    options = {name: parameter.name for parameter in parameters for name in parameter.opts}
    assert (options["-k"], options["-c"]) == ("kubecfg", "config")
