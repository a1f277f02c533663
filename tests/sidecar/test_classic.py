"""Classic files: refused, with the YAML that says the same."""

from pathlib import Path

import pytest
import yaml

from forwarder.errors import ConfigError
from forwarder.sidecar.classic import refuse_classic, to_yaml

SPLUNK = """
# extra
[FILTER]
    Name          rewrite_tag
    Match         audit
    Rule          $kind ^Event$ splunk true
    Rule          $x y z false
[OUTPUT]
    Name          splunk
    Match         splunk
    Host          splunk.example
    Port          8088
    Splunk_Token  hunter2
    TLS           On
    Event_Host    it's ${HOSTNAME}
"""


def test_sections_and_keys_translate_one_to_one() -> None:
    """Filters before outputs, a repeated key as a list, a secret as a variable."""
    assert yaml.safe_load(to_yaml(SPLUNK)) == {
        "pipeline": {
            "filters": [
                {"name": "rewrite_tag", "match": "audit", "rule": ["$kind ^Event$ splunk true", "$x y z false"]}
            ],
            "outputs": [
                {
                    "name": "splunk", "match": "splunk", "host": "splunk.example", "port": 8088,
                    "splunk_token": "${SPLUNK_TOKEN}", "tls": True, "event_host": "it's ${HOSTNAME}",
                }
            ],
        }
    }  # fmt: skip


def test_parsers_stand_beside_the_pipeline() -> None:
    """What a file with raw lines needs before `$kind` can be asked for."""
    assert yaml.safe_load(to_yaml("[PARSER]\n  Name j\n  Format json\n")) == {
        "parsers": [{"name": "j", "format": "json"}]
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@INCLUDE other.conf", "line 1: `@INCLUDE` has no counterpart"),
        ("[SERVICE]\n  Flush 1", r"line 1: a \[SERVICE\] section"),
        ("Name x", "line 1: neither a section"),
        ("", "no section"),
    ],
)
def test_what_cannot_be_said_names_its_line(text: str, said: str) -> None:
    """A person translates it."""
    with pytest.raises(ValueError, match=said):
        to_yaml(text)


def test_a_classic_file_in_the_folder_is_refused_with_its_translation(tmp_path: Path) -> None:
    """The message holds what to write and where, but no secret."""
    (tmp_path / "splunk.conf").write_text(SPLUNK)
    with pytest.raises(ConfigError, match=r"splunk\.conf.*write it as splunk\.yaml") as refused:
        refuse_classic(tmp_path)
    assert "  outputs:\n    - name: splunk" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    (tmp_path / "splunk.conf").write_text("@SET a=b")
    with pytest.raises(ConfigError, match="by hand: line 1"):
        refuse_classic(tmp_path)


def test_yaml_files_and_an_absent_folder_are_fine(tmp_path: Path) -> None:
    """Nothing is refused that is not classic."""
    (tmp_path / "splunk.yaml").write_text("pipeline: {}")
    refuse_classic(tmp_path)
    refuse_classic(tmp_path / "absent")
