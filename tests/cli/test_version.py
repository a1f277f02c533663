"""`forwarder version`."""

from collections.abc import Callable

from typer.testing import Result

from forwarder import __version__


def test_it_names_version_and_licence(run: Callable[..., Result]) -> None:
    """A bug report and a lawyer find what they need."""
    result = run("version")
    assert result.exit_code == 0
    assert f"friction-forwarder {__version__}" in result.stdout
    assert "Apache-2.0" in result.stdout
