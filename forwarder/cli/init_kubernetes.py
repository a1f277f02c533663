"""What `forwarder init --kubernetes` writes: an overlay that `kubectl apply -k` takes as it is, with keys of its own.

    kustomization.yaml   which parts, image, cluster name; the Secrets are generated from the two folders below
    base/                the shipped manifests, rules and Fluent Bit configuration, unchanged
    secrets/, certs/     0700; neither belongs into a repository, and a .gitignore in each says so

Keys and certificates that are there stay, also with --force: running agents know them. To replace one, remove its file
and run this again; `forwarder certs --dir DIR/certs --force` renews certificates under the same authority.
"""

import re
import shutil
from enum import StrEnum
from pathlib import Path

import msgspec

from forwarder import __version__
from forwarder.cli import console
from forwarder.cli.authority import issue
from forwarder.cli.certs import NAMESPACE, SERVICE, authority_in, service_names, write_pair
from forwarder.cli.console import out, say, stop
from forwarder.cli.keys import make_key
from forwarder.cli.private_files import write_private
from forwarder.errors import ConfigError
from forwarder.settings import shipped

NODES = f"{NAMESPACE}-nodes"
PARTS = ("deploy", "rules", "fluent-bit")  # side by side: the manifests name the other two
KEYS = ("shared-key", "api-key", "telemetry-token")
LEAVES = {"server": (SERVICE, service_names(SERVICE, NAMESPACE)), "client": ("friction-agent", ["friction-agent"])}

_IMAGE = re.compile(r"([a-z0-9][a-z0-9._/:-]*?)(?::([A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?")


class Distribution(StrEnum):
    """Where the control plane keeps its audit log: the folders of deploy/node/."""

    kubeadm = "kubeadm"
    k3s = "k3s"
    rke2 = "rke2"
    plain = "plain"


class Overlay(msgspec.Struct, frozen=True, kw_only=True):
    """Every value was checked. image: name, tag and digest."""

    cluster: str
    distribution: Distribution
    image: tuple[str, str, str]


def write_overlay(folder: Path, overlay: Overlay, *, force: bool) -> None:
    """Write it all, or nothing where a kustomization is there and `force` is not. Raises ConfigError."""
    there = [name for name in ("kustomization.yaml", "base") if (folder / name).exists()]
    if there and not force:
        stop(
            f"already there: {', '.join(str(folder / name) for name in there)}; nothing was written; "
            "--force replaces it, keys stay",
            console.USAGE,
        )
    _copy_base(folder / "base")
    kept = _write_keys(folder / "secrets") + _write_certificates(folder / "certs")
    for name in ("secrets", "certs"):
        _write(folder / name / ".gitignore", "# keys: for the cluster, not for a repository\n*\n")
    _write(folder / "kustomization.yaml", kustomization(overlay))
    for name in ("kustomization.yaml", "base", "secrets", "certs"):
        out(str(folder / name))
    if kept:
        say(f"kept as they were: {', '.join(kept)}")
    say("")
    say("next:")
    name, tag, digest = overlay.image
    if "/" not in name:
        say(
            f"  bring the image {name}:{tag or digest} to the nodes, or name one in a registry with --image (docs/kubernetes.md)"
        )
    say(f"  kubectl apply -k {folder}")
    say(f"  kubectl -n {NAMESPACE} rollout status statefulset/{SERVICE}")
    say(f"  kubectl -n {NAMESPACE} port-forward service/friction-backend 8000    # then http://127.0.0.1:8000")
    say(f"keep {folder / 'certs' / 'ca.key'} and remove it from here; it signs the next certificates")


def read_image(text: str) -> tuple[str, str, str]:
    """`registry:5000/name:tag@sha256:…` as name, tag, digest; the tag is this version where there is none. Raises ConfigError."""
    match = _IMAGE.fullmatch(text)
    if not match or (match.group(1).endswith("/")):
        raise ConfigError(f"{text!r} is no image; write NAME, NAME:TAG or NAME@sha256:…", where="--image")
    name, tag, digest = match.group(1), match.group(2) or "", match.group(3) or ""
    if ":" in name and "/" not in name.partition(":")[2]:
        raise ConfigError(f"{text!r} has two tags; write NAME:TAG", where="--image")
    return name, tag or ("" if digest else __version__), digest


def kustomization(overlay: Overlay) -> str:
    """The overlay's own file."""
    name, tag, digest = overlay.image
    pinned = "".join(
        f"\n    {key}: {value}" for key, value in (("newTag", f'"{tag}"'), ("digest", digest)) if value.strip('"')
    )
    return f"""# Everything on one cluster: kubectl apply -k .
# The Secrets are generated from secrets/ and certs/; their names carry a hash, so that a changed key restarts who reads it.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - base/deploy/namespaces
  - base/deploy/receiver
  - base/deploy/backend
  - base/deploy/node/{overlay.distribution} # or kubeadm, k3s, rke2, plain: where the audit log is
# components:
#   - base/deploy/components/servicemonitor # for the Prometheus operator
#   - base/deploy/components/postgresql # needs a Secret friction-backend-database; see there
#   - base/deploy/components/notify # sinks of the backend; needs a Secret friction-backend-sinks, below
images:
  - name: friction-forwarder
    newName: {name}{pinned}
configMapGenerator:
  - name: friction-forwarder-environment
    namespace: {NAMESPACE}
    behavior: merge
    literals:
      - FORWARDER_CLUSTER={overlay.cluster}
# Rules of your own: they are loaded beside the shipped ones, without a restart.
#   - name: friction-forwarder-rules
#     namespace: {NAMESPACE}
#     behavior: merge
#     files: [my-rules.yaml]
#     options: {{disableNameSuffixHash: true}}
# Settings of your own, sinks that tell people for instance: cp base/deploy/backend/backend.yaml . and change it.
#   - name: friction-backend
#     namespace: {NAMESPACE}
#     behavior: merge
#     files: [backend.yaml]
secretGenerator:
  - name: friction-forwarder-receiver
    namespace: {NAMESPACE}
    files: [secrets/shared-key, secrets/api-key, secrets/telemetry-token]
  - name: friction-forwarder-receiver-tls
    namespace: {NAMESPACE}
    type: kubernetes.io/tls
    files: [tls.crt=certs/server.crt, tls.key=certs/server.key, ca.crt=certs/ca.crt]
  - name: friction-backend
    namespace: {NAMESPACE}
    files: [secrets/api-key, secrets/telemetry-token]
#   - name: friction-backend-sinks
#     namespace: {NAMESPACE}
#     files: [secrets/slack-token]
  - name: friction-agent
    namespace: {NODES}
    files: [secrets/shared-key]
  - name: friction-agent-tls
    namespace: {NODES}
    type: kubernetes.io/tls
    files: [tls.crt=certs/client.crt, tls.key=certs/client.key, ca.crt=certs/ca.crt]
"""


# --- private ---------------------------------------------------------------------------------------------------------


def _copy_base(base: Path) -> None:
    """The shipped parts, made anew: what was changed in them belongs into the overlay. What else is in `base` stays."""
    try:
        for part in PARTS:
            if (base / part).exists():
                shutil.rmtree(base / part)
            shutil.copytree(shipped(part), base / part)
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror}", where=str(error.filename or base)) from None


def _write_keys(folder: Path) -> list[str]:
    """The keys that are not there yet; the names of the others. No newline at the end: it would become part of the key."""
    kept = [name for name in KEYS if (folder / name).exists()]
    for name in KEYS:
        if name not in kept:
            write_private(folder / name, make_key().encode())
    return [f"secrets/{name}" for name in kept]


def _write_certificates(folder: Path) -> list[str]:
    """The pairs that are not there yet; the names of the others. The authority's key may be gone while nothing is missing."""
    kept = [name for name in LEAVES if (folder / f"{name}.crt").exists() and (folder / f"{name}.key").exists()]
    if len(kept) < len(LEAVES) or not (folder / "ca.crt").exists():
        ca, made = authority_in(folder)
        if made and kept:
            raise ConfigError(
                f"is missing, but {', '.join(kept)} are there; put it back or remove them", where=str(folder / "ca.crt")
            )
        if made:
            write_pair(folder, "ca", ca)
        for name, (common_name, known_as) in LEAVES.items():
            if name not in kept:
                write_pair(folder, name, issue(ca, common_name, known_as, server=name == "server"))
    return [f"certs/{name}" for name in kept]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror}", where=str(path)) from None
