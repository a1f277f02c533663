"""Log lines: their two forms, and what never gets into them."""

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from forwarder import logs
from forwarder.errors import ConfigError


@pytest.fixture
def written() -> Iterator[Callable[..., str]]:
    """Configure logging to a buffer, log through `say`, give what was written; the root logger is restored."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def write(action: Callable[[logging.Logger], None], *, level: str = "info", form: str = "text") -> str:
        stream = io.StringIO()
        logs.configure(level, form, stream)
        action(logging.getLogger("forwarder.test"))
        return stream.getvalue()

    yield write
    root.handlers[:], _ = before
    root.setLevel(before[1])
    logging.captureWarnings(capture=False)


def test_a_text_line_has_time_level_logger_message_and_fields(written: Callable[..., str]) -> None:
    """A text line reads: time, level, logger, message, then the fields of `extra`."""
    line = written(lambda log: log.info("rules reloaded", extra={"rules": 20, "file": "a b"}))
    assert line.endswith('Z INFO    forwarder.test  rules reloaded rules=20 file="a b"\n')


def test_a_json_line_is_one_object(written: Callable[..., str]) -> None:
    """With format json each line is one object; `extra` becomes keys of their own type."""
    data = json.loads(written(lambda log: log.warning("full", extra={"waiting": 3}), form="json"))
    assert (data["level"], data["logger"], data["message"], data["waiting"]) == ("warning", "forwarder.test", "full", 3)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("\x1b[2J", id="terminal-escape"),
        pytest.param("\n2026 ERROR forged", id="second-line"),
        pytest.param("\u202e", id="bidirectional"),
        pytest.param("\ud800", id="lone-surrogate"),
        pytest.param("\x9b31m", id="c1"),
    ],
)
def test_control_characters_are_stripped(written: Callable[..., str], form: str, bad: str) -> None:
    """What a peer names itself can neither forge a line nor move the cursor, in the message or in a field."""
    text = written(lambda log: log.info("from %s", bad, extra={"peer": bad}), form=form)
    assert text.count("\n") == 1
    assert all(char.isprintable() for char in text.rstrip("\n"))
    assert text.encode()


def test_the_level_holds(written: Callable[..., str]) -> None:
    """Below the chosen level nothing is written; `warn` is another name of `warning`."""
    assert written(lambda log: log.info("hidden"), level="warn") == ""


def test_a_fault_of_a_type_that_may_quote_data_is_logged_without_its_text(written: Callable[..., str]) -> None:
    """`KeyError: 'hunter2'` would carry a secret: such a text stays out, the frames stay in."""

    def fail(log: logging.Logger) -> None:
        try:
            {}["hunter2"]
        except KeyError:
            log.exception("failed")

    text = written(fail)
    assert "hunter2" not in text
    assert "KeyError" in text
    assert "test_logs.py" in text


def test_the_text_of_our_own_errors_is_logged(written: Callable[..., str]) -> None:
    """Errors of this package and of the system name causes and files, so their text is kept, causes first."""

    def fail(log: logging.Logger) -> None:
        try:
            try:
                raise OSError(28, "No space left on device")
            except OSError as error:
                raise ConfigError("cannot write", where="outbox.path") from error
        except ConfigError:
            log.exception("failed")

    text = written(fail)
    assert text.index("No space left on device") < text.index("ConfigError: outbox.path: cannot write")


def test_a_long_message_is_cut(written: Callable[..., str]) -> None:
    """No line is longer than its limit and the header."""
    assert len(written(lambda log: log.info("x" * 100_000))) < logs.MAX_MESSAGE_CHARACTERS + 100


def test_a_broken_stream_ends_nothing() -> None:
    """A full disk behind stderr neither raises nor prints the arguments of the line."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    root = logging.getLogger()
    before = root.handlers[:]
    try:
        logs.configure("info", "text", Broken())
        logging.getLogger("forwarder.test").error("lost %s", "secret")
    finally:
        root.handlers[:] = before
        logging.captureWarnings(capture=False)


@pytest.mark.parametrize(("level", "form", "named"), [("loud", "text", "log.level"), ("info", "xml", "log.format")])
def test_an_unknown_choice_is_refused_with_the_valid_ones(level: str, form: str, named: str) -> None:
    """A misspelt level or format names the setting and the valid words."""
    with pytest.raises(ConfigError, match=rf"{named}.*valid:"):
        logs.configure(level, form, io.StringIO())
