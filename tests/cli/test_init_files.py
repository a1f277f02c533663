"""The texts of `init`."""

from forwarder.cli.environment import VARIABLES
from forwarder.cli.init_files import Answers, env_example, forwarder_yaml
from forwarder.settings import parse_document

ANSWERS = Answers(cluster="c", backend_url="http://b:1", data_dir="/d")


def test_only_the_sources_that_were_asked_for() -> None:
    """No audit log, no file source; no listener, no forward source."""
    for audit_log, listen, sources in (("/a.log", "", ["file"]), ("", "127.0.0.1:1", ["forward"])):
        text = forwarder_yaml(
            Answers(cluster="c", backend_url="http://b:1", data_dir="/d", audit_log=audit_log, forward_listen=listen)
        )
        assert list(parse_document(text, "x").data["sources"]) == sources


def test_every_setting_has_a_comment() -> None:
    """Each line with a value says what it is for, or stands in a block that does."""
    text = forwarder_yaml(
        Answers(cluster="c", backend_url="http://b:1", data_dir="/d", audit_log="/a", forward_listen="h:1")
    )
    values = [
        line
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith("#") and not line.endswith(":")
    ]
    assert len([line for line in values if "#" in line]) >= len(values) - 4


def test_the_example_sets_nothing() -> None:
    """.env.example names every variable and sets none."""
    lines = env_example().splitlines()
    assert all(line.startswith("#") for line in lines if line)
    assert all(f"#{variable.name}=" in lines for variable in VARIABLES)
