"""Reading audit logs once: lines, their numbers, limits, gzip, damage, and which files a name means."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.cli import audit_logs
from forwarder.cli.audit_logs import CutShortError, find_logs, read_blocks
from forwarder.errors import ConfigError


def read(path: Path) -> list[tuple[int, bytes]]:
    """Line numbers and lines."""
    found = []
    for block in read_blocks(str(path)):
        for index, (start, end) in enumerate(block.spans):
            found.append((block.first_line + index, block.buffer[start:end]))
    return found


@pytest.fixture(params=[1, 2, 3, 7, 1 << 20])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Every way to cut the file into blocks."""
    monkeypatch.setattr(audit_logs, "BLOCK_BYTES", request.param)
    return request.param


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        pytest.param(b"", [], id="empty"),
        pytest.param(b"a\nbb\n", [(1, b"a"), (2, b"bb")], id="whole"),
        pytest.param(b"a\nbb", [(1, b"a"), (2, b"bb")], id="unfinished-last"),
        pytest.param(b"a\r\n\r\nb\r\n", [(1, b"a"), (2, b""), (3, b"b")], id="crlf"),
        pytest.param(b"\n\na\n", [(1, b""), (2, b""), (3, b"a")], id="empty-lines"),
    ],
)
def test_lines(tmp_path: Path, content: bytes, lines: list[tuple[int, bytes]]) -> None:
    """Lines come whole and numbered, wherever a block ends."""
    (tmp_path / "a.log").write_bytes(content)
    # a CR whose LF is in the next block is cut off with it
    assert [(number, line) for number, line in read(tmp_path / "a.log")] == lines


@pytest.mark.usefixtures("block_bytes")
def test_a_line_over_the_limit_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no memory beyond the limit, and the lines behind it keep their numbers."""
    monkeypatch.setattr(audit_logs, "MAX_LINE_BYTES", 10)
    (tmp_path / "a.log").write_bytes(b"a\n" + b"x" * (3 << 20) + b"\nb\n")
    blocks = list(read_blocks(str(tmp_path / "a.log"))) if audit_logs.BLOCK_BYTES > 7 else None
    if blocks is None:
        (tmp_path / "a.log").write_bytes(b"a\n" + b"x" * 40 + b"\nb\n")
        blocks = list(read_blocks(str(tmp_path / "a.log")))
    assert [number for block in blocks for number in block.overlong] == [2]
    assert read(tmp_path / "a.log") == [(1, b"a"), (3, b"b")]


@pytest.mark.parametrize("name", ["a.log.gz", "a.log"])
def test_gzip_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    """Several members are one log, whatever the file is called."""
    (tmp_path / name).write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert read(tmp_path / name) == [(1, b"a"), (2, b"b")]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_gzip_gives_what_stands_before_the_damage(tmp_path: Path, damage: str) -> None:
    """Whole lines before the damage are read, then CutShortError says that there was more."""
    lines = b"".join(
        b"%032x\n" % (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)) for number in range(200_000)
    )
    packed = bytearray(gzip.compress(lines, 1))
    if damage == "cut":
        del packed[len(packed) * 3 // 4 :]
    else:
        packed[len(packed) * 3 // 4 : len(packed) * 3 // 4 + 64] = bytes(64)
    (tmp_path / "a.log.gz").write_bytes(packed)
    blocks = read_blocks(str(tmp_path / "a.log.gz"))
    assert len(next(blocks).spans) > 0
    with pytest.raises(CutShortError):
        list(blocks)


def test_a_folder_gives_its_logs_oldest_first(tmp_path: Path) -> None:
    """kube-apiserver's rotated names, plain and packed, are found; other files are not."""
    names = ["audit-2026-03-01T10-00-00.000.log", "audit-2026-03-02T10-00-00.000.log.gz", "audit.log", "audit.log.1"]
    for age, name in enumerate(reversed(names)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    for other in ("policy.yaml", "audit.log.swp", "notes.txt"):
        (tmp_path / other).touch()
    assert [Path(file).name for file in find_logs([str(tmp_path)])] == names


def test_a_glob_and_a_name_twice(tmp_path: Path) -> None:
    """A glob that no shell expanded works, and a file that is named twice is read once."""
    (tmp_path / "a.log").touch()
    (tmp_path / "b.log").touch()
    assert len(find_logs([str(tmp_path / "*.log"), str(tmp_path / "a.log")])) == 2


def test_files_older_than_asked_for_are_left_out(tmp_path: Path) -> None:
    """What was last written before the bound holds no later line."""
    for name, written in (("old.log", 1000), ("new.log", 2000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (written, written))
    assert [Path(file).name for file in find_logs([str(tmp_path)], not_before_s=1500)] == ["new.log"]


@pytest.mark.parametrize(
    ("name", "why"), [("none.log", "no such file"), ("*.log", "no such file"), ("", "without audit logs")]
)
def test_a_name_without_a_log_is_refused(tmp_path: Path, name: str, why: str) -> None:
    """The message carries the name."""
    with pytest.raises(ConfigError, match=why):
        find_logs([str(tmp_path / name)])
