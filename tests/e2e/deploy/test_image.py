"""The Dockerfile, read: what the final images are made of, and that everything it names is there and pinned."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from forwarder import __version__

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
FINAL = ["receiver", "sidecar"]
EXTRAS = {"receiver": {"fast", "certs", "feed", "kafka", "notify", "postgres"}, "sidecar": {"fast", "sidecar"}}


def instructions():
    """(word, rest) of each instruction, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text())
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, re.sub(r"\s+", " ", rest)


def stages():
    """name -> (what it starts from, its instructions)."""
    found = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        elif name:
            found[name][1].append((word, rest))
    return found


def arguments():
    """The global build arguments with their defaults."""
    found = {}
    for word, rest in instructions():
        if word == "FROM":
            return found
        if word == "ARG":
            name, _, default = rest.partition("=")
            found[name] = default
    return found


def test_every_base_is_an_argument_with_a_version():
    """So that each can be given with a digest; none is `latest`."""
    for base, _ in stages().values():
        argument = re.fullmatch(r"\$\{([A-Z_]+)\}", base)
        if argument:
            _, _, tag = arguments()[argument.group(1)].rpartition(":")
            assert tag
            assert tag != "latest"
        else:
            assert base in stages()


@pytest.mark.parametrize("name", FINAL)
def test_final_stages_run_nothing(name):
    """They start from images without shell or package manager and only copy: a RUN could not work there."""
    base, steps = stages()[name]
    assert base in ("${RUNTIME_IMAGE}", "${FLUENT_BIT_IMAGE}")
    assert "distroless" in arguments()["RUNTIME_IMAGE"]
    words = {word for word, _ in steps}
    assert words == {"ARG", "LABEL", "COPY", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"} | (
        {"EXPOSE"} if name == "receiver" else set()
    )
    assert [rest for word, rest in steps if word == "USER"] == ["65532:65532"]
    assert [rest for word, rest in steps if word == "ENTRYPOINT"] == ['["/python/bin/forwarder"]']
    assert [rest for word, rest in steps if word == "COPY"] == [f"--from={name}-python /python /python"]
    (path,) = [re.search(r"PATH=(\S+)", rest).group(1).split(":") for word, rest in steps if word == "ENV"]
    assert path == ["/python/bin"] + (["/fluent-bit/bin"] if name == "sidecar" else [])


@pytest.mark.parametrize("name", FINAL)
def test_labels(name):
    """The standard ones; the version is the program's."""
    _, steps = stages()[name]
    (labels,) = [rest for word, rest in steps if word == "LABEL"]
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels
    assert ("ARG", f"VERSION={__version__}") in steps


def test_the_package_manager_stays_behind():
    """pip comes with Python, and is removed where Python is prepared."""
    _, steps = stages()["python"]
    (run,) = [rest for word, rest in steps if word == "RUN"]
    assert "/python/lib/python3*/site-packages/pip*" in run
    assert "/python/bin/pip*" in run


def test_what_is_copied_is_there_and_reaches_the_builder():
    """Sources exist and .dockerignore lets them through; keys and environments are left out."""
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"*", "**/.env", "**/secrets", "**/certs"} <= set(allowed)
    for _, steps in stages().values():
        for word, rest in steps:
            if word == "COPY" and "--from" not in rest:
                for source in rest.split()[:-1]:
                    assert (ROOT / source).exists(), source
                    assert f"!{source.split('/')[0]}" in allowed


def test_copied_stages_are_stages():
    """`COPY --from` names a stage above."""
    for _, steps in stages().values():
        for word, rest in steps:
            if word == "COPY" and "--from=" in rest:
                assert re.search(r"--from=(\S+)", rest).group(1) in stages()


@pytest.mark.parametrize("name", FINAL)
def test_every_dependency_is_pinned_with_hashes(name):
    """What pyproject.toml asks for, in a version that it allows; `make image-lock` renews the files."""
    text = (ROOT / "image" / f"{name}.txt").read_text()
    pinned = dict(re.findall(r"(?m)^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)", text))
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]
    assert len(entries) == len(pinned)
    assert all("--hash=sha256:" in entry for entry in entries)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in EXTRAS[name]:
        wanted += project["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        version = pinned.get(re.sub(r"[-_.]+", "-", requirement.name).lower())
        assert version, f"{requirement.name}: run `make image-lock`"
        assert Version(version) in requirement.specifier, f"{requirement.name}: run `make image-lock`"
