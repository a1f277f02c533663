"""Fluent Bit's configuration: blanks filled in, nothing sent in the clear, secrets in files of ours only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forwarder.errors import ConfigError
from forwarder.settings import parse_document
from forwarder.sidecar.configuration import OUTPUT, Configuration, State
from forwarder.sidecar.settings import SidecarSettings

Make = Callable[..., SidecarSettings]


def state(*, certificates: bool = True) -> State:
    return State(relay_port=1111, http_port=2222, certificates=certificates)


def output(configuration: Configuration, **options: Any) -> dict[str, Any]:
    text = configuration.render(state(**options))[OUTPUT]
    made: dict[str, Any] = parse_document(text, OUTPUT).data["pipeline"]["outputs"][0]
    return made


def test_every_blank_is_filled_in(settings: Make) -> None:
    """Fluent Bit would take one for a variable of its environment, and an empty value."""
    for text in Configuration(settings()).render(state()).values():
        assert not any("${SIDECAR_" in line for line in text.splitlines() if not line.startswith("#"))
    whole = parse_document(Configuration(settings()).render(state())["fluent-bit.yaml"], "x").data
    assert whole["service"]["http_port"] == 2222
    assert whole["service"]["storage.max_chunks_up"] == 102
    assert whole["pipeline"]["inputs"][0]["storage.pause_on_chunks_overlimit"] == "on"


def test_before_there_are_certificates_tls_is_on_all_the_same(settings: Make) -> None:
    """Nothing ever leaves in the clear because a file is missing."""
    made = output(Configuration(settings()), certificates=False)
    assert (made["tls"], made["tls.verify"], made["tls.verify_hostname"]) == ("on", "on", "on")
    assert "tls.ca_file" not in made
    made = output(Configuration(settings()))
    assert made["tls.key_file"].endswith("/audittailer-client.key")
    assert made["tls.vhost"] == "kubernetes-audit-tailer"
    assert (made["host"], made["port"]) == ("127.0.0.1", 1111)


def test_without_a_secret_there_is_no_tls(settings: Make) -> None:
    """Chosen by the operator, by an empty name."""
    made = output(Configuration(settings(secret_name="")))
    assert made["tls"] == "off"
    assert "tls.ca_file" not in made


def test_the_shared_key_stands_in_a_private_file_and_is_never_shown(settings: Make, tmp_path: Path) -> None:
    """As text, whatever characters it has; `--dry-run` prints it as one dot."""
    (tmp_path / "key").write_text('a "key": # \\ \n')
    configuration = Configuration(settings(shared_key_file=str(tmp_path / "key")))
    assert output(configuration)["shared_key"] == 'a "key": # \\ '
    shown = configuration.render(state(), show_secrets=False)[OUTPUT]
    assert "shared_key" in shown
    assert "key\\" not in shown
    Path(configuration.main).parent.mkdir()
    configuration.write(state())
    assert (configuration.main.with_name(OUTPUT).stat().st_mode & 0o777) == 0o600


def test_a_shared_key_that_fluent_bit_would_expand_is_refused(settings: Make, tmp_path: Path) -> None:
    """`${X}` in it would become something else there, and no handshake would succeed."""
    (tmp_path / "key").write_text("a${HOME}b")
    with pytest.raises(ConfigError, match="variable"):
        Configuration(settings(shared_key_file=str(tmp_path / "key"))).render(state())


def test_further_outputs_are_included_with_their_whole_paths(settings: Make, tmp_path: Path) -> None:
    """In order of their names; a reload looks for relative ones elsewhere."""
    folder = tmp_path / "additional_dir"
    configuration = Configuration(settings())
    assert "includes" not in configuration.render(state())[OUTPUT]
    folder.mkdir()
    before = configuration.fingerprint()
    for name in ("b.yaml", "a.yml", "notes.txt"):
        (folder / name).write_text("pipeline: {}")
    assert "includes" not in configuration.render(state())[OUTPUT], "not before they were tried"
    configuration.included = configuration.added()
    included = parse_document(configuration.render(state())[OUTPUT], OUTPUT).data["includes"]
    assert included == [str(folder / "a.yml"), str(folder / "b.yaml")]
    (folder / "a.yml").unlink()
    assert "a.yml" not in configuration.render(state())[OUTPUT], "its absence would stop the next start"
    after = configuration.fingerprint()
    assert before != after
    (folder / "b.yaml").write_text("pipeline: {outputs: []}")
    assert configuration.fingerprint() != after


def test_a_folder_that_cannot_be_written_is_named(settings: Make, tmp_path: Path) -> None:
    """Which one, and which setting."""
    (tmp_path / "run_dir").write_text("a file")
    with pytest.raises(ConfigError, match=r"run-dir: cannot write to .*run_dir"):
        Configuration(settings()).write(state())
