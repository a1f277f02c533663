"""Which names belong to one log."""

import os

import pytest

from forwarder.errors import ConfigError
from forwarder.logfile.names import MAX_FILES, LogFiles

OURS = [
    "audit-2026-01-31T09-15-00.123.log",
    "audit.log.1",
    "audit.log-20260131",
    "audit.log.20260131-11",
    "audit-2026-01-31T09-15-00.124.log.gz",
    "audit.log.3.gz",
]
NOT_OURS = [
    "audit.log.gz",
    "audit.log.1.zst",
    "audit-policy.log",
    "audit-2.log",
    "audit.log.bak",
    "audit.logs",
    "other.log",
    "audit-2026-01-31T09-15-00.125.txt",
]


def _make(folder, *names):
    for index, name in enumerate(names):
        path = folder / name
        path.write_bytes(b"x")
        os.utime(path, ns=(index * 10**9, index * 10**9))


def test_a_path_finds_its_rotated_siblings_and_nothing_else(tmp_path):
    """The names of kube-apiserver and logrotate count, `.gz` included; strangers do not; the present one is last."""
    _make(tmp_path, "audit.log", *OURS, *NOT_OURS)
    (tmp_path / "audit.log.2").mkdir()
    found = LogFiles(str(tmp_path / "audit.log")).listing()
    assert [os.path.basename(item.name) for item in found] == [*OURS, "audit.log"]
    assert [item.present for item in found] == [False] * len(OURS) + [True]
    assert [item.compressed for item in found] == [name.endswith(".gz") for name in (*OURS, "audit.log")]


def test_a_glob_finds_what_it_names(tmp_path):
    """A glob gives all its files in the order in which they were last written; none is the present one by name."""
    _make(tmp_path, "k3s-audit.log", "k3s-audit-1.log", "k3s-audit-2.log.gz", "k3s-audit-3.log.zst", "other.log")
    found = LogFiles(str(tmp_path / "k3s-audit*")).listing()
    assert [(os.path.basename(item.name), item.present) for item in found] == [
        ("k3s-audit.log", False),
        ("k3s-audit-1.log", False),
        ("k3s-audit-2.log.gz", False),
    ]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    """`audit[1].log` can be named although it holds brackets."""
    _make(tmp_path, "audit[1].log", "audit1.log")
    found = LogFiles(str(tmp_path / "audit[1].log")).listing()
    assert [os.path.basename(item.name) for item in found] == ["audit[1].log"]


def test_behind_a_link_rotation_is_looked_for_where_it_happens(tmp_path):
    """A link to the log finds the siblings in the log's own folder, and the log only once."""
    (tmp_path / "data").mkdir()
    _make(tmp_path / "data", "audit.log", "audit.log.1")
    (tmp_path / "link.log").symlink_to(tmp_path / "data" / "audit.log")
    found = LogFiles(str(tmp_path / "link.log")).listing()
    assert [item.name for item in found] == [
        str(tmp_path / "data" / "audit.log.1"),
        str(tmp_path / "data" / "audit.log"),
    ]


def test_what_is_not_there_yet_is_an_empty_log(tmp_path):
    """Neither a missing file nor a missing folder is an error: both may come."""
    assert LogFiles(str(tmp_path / "none" / "audit.log")).listing() == []
    LogFiles(str(tmp_path / "none" / "audit.log")).check()


def test_no_more_files_than_the_cap(tmp_path):
    """Of too many files the newest are followed: the cap bounds the descriptors and the checkpoint."""
    names = [f"audit.log.{number}" for number in range(MAX_FILES + 5)]
    _make(tmp_path, *names, "audit.log")
    found = LogFiles(str(tmp_path / "audit.log")).listing()
    assert len(found) == MAX_FILES
    assert os.path.basename(found[0].name) == "audit.log.6"
    assert found[-1].present


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "it is a folder; name the log file itself"),
        ("pipe", "no regular file"),
        ("a.log.zst", "decompress it"),
    ],
)
def test_what_can_never_be_followed_is_refused(tmp_path, name, words):
    """A folder, a pipe (which would block the reader) and a compressed file are refused with what to do instead."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.log.zst").write_bytes(b"x")
    with pytest.raises(ConfigError, match=words):
        LogFiles(str(tmp_path / name)).check()


def test_a_log_for_root_only_is_refused_with_the_commands_that_help(tmp_path, monkeypatch):
    """kube-apiserver's 0600 is the first thing that goes wrong: the message names chown and chmod and the file."""
    path = tmp_path / "audit.log"
    path.write_bytes(b"x")
    real = os.open

    def refuse(name, flags, *rest):
        if name == str(path):
            raise PermissionError(13, "Permission denied")
        return real(name, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)  # tests may run as root, whom no mode keeps out
    with pytest.raises(ConfigError, match=f"no permission.*chown root:forwarder {path} && chmod 640 {path}"):
        LogFiles(str(path)).check()
