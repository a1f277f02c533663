"""`forwarder init`: the files to start with, written once: settings with a comment on every line, rules, keys.

On a terminal it asks; elsewhere, or with --yes, it takes options and defaults. A file that is there stays as it is
unless --force says otherwise, and keys stay even then: `forwarder keys rotate` replaces those. With --kubernetes it writes
an overlay instead (init_kubernetes.py).
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from forwarder.cli import console
from forwarder.cli.console import out, say, stop
from forwarder.cli.environment import LOCAL_BACKEND
from forwarder.cli.init_files import Answers, backend_yaml, env_example, forwarder_yaml, systemd_units
from forwarder.cli.init_kubernetes import Distribution, Overlay, read_image, write_overlay
from forwarder.cli.init_webhook import DEFAULT_URL, KUBECONFIG, TOKEN, make_certificates, read_url, write_kubeconfig
from forwarder.cli.keys import ENV_FILE, KEY_NAMES, make_key, read_env_file, write_env_file
from forwarder.cli.up import KNOWN_AUDIT_LOGS
from forwarder.errors import ConfigError
from forwarder.settings import parse_address, shipped

_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def init(
    folder: Annotated[Path, typer.Option("--dir", "-d", help="Where the files go.")] = Path(),
    cluster: Annotated[str, typer.Option(help="The cluster's name in every event.")] = "",
    audit_log: Annotated[str, typer.Option(help="Audit log to tail on this machine; `none` for none.")] = "",
    forward_listen: Annotated[str, typer.Option(help="Where Fluent Bit connects; `none` for nowhere.")] = "",
    backend_url: Annotated[str, typer.Option(help=f"The backend to report to; {LOCAL_BACKEND}.")] = "",
    data_dir: Annotated[str, typer.Option(help="Where outbox and database live; /var/lib/forwarder.")] = "",
    webhook: Annotated[
        bool, typer.Option("--webhook", help="Take kube-apiserver's audit webhook; write its kubeconfig.")
    ] = False,
    webhook_url: Annotated[str, typer.Option(help=f"With --webhook: where kube-apiserver posts; {DEFAULT_URL}.")] = "",
    systemd: Annotated[bool, typer.Option("--systemd", help="Write systemd units too.")] = False,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Write an overlay for `kubectl apply -k` instead.")
    ] = False,
    distribution: Annotated[
        Distribution, typer.Option(help="With --kubernetes: whose paths the audit log has.")
    ] = Distribution.kubeadm,
    image: Annotated[str, typer.Option(help="With --kubernetes: the image to run.")] = "friction-forwarder",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there; keys stay.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take options and defaults.")] = False,
) -> None:
    """Write settings, rules and keys to start with; asks on a terminal."""
    if kubernetes:
        given_too = {"--audit-log": audit_log, "--forward-listen": forward_listen, "--backend-url": backend_url}
        given_too |= {"--data-dir": data_dir, "--systemd": "yes" if systemd else "", "--webhook-url": webhook_url}
        given_too |= {"--webhook": "yes" if webhook else ""}
        if wrong := [name for name, value in given_too.items() if value]:
            raise ConfigError("the overlay has its own; change it there", where=", ".join(wrong))
        name = cluster or "default"
        if not _CLUSTER.fullmatch(name):
            raise ConfigError(f"{name!r}: up to 100 letters, digits, `.`, `_` and `-`", where="--cluster")
        write_overlay(folder, Overlay(cluster=name, distribution=distribution, image=read_image(image)), force=force)
        return
    if webhook_url and not webhook:
        raise ConfigError("it needs --webhook beside it", where="--webhook-url")
    given = Answers(
        cluster=cluster,
        audit_log=audit_log,
        forward_listen=forward_listen,
        backend_url=backend_url,
        data_dir=data_dir,
        webhook=read_url(webhook_url or DEFAULT_URL) if webhook else None,
    )
    asking = not yes and console.is_terminal(sys.stdin) and console.is_terminal(sys.stderr)
    answers = _checked(_complete(given, asking=asking))
    files = {
        "forwarder.yaml": forwarder_yaml(answers),
        "backend.yaml": backend_yaml(answers),
        ".env.example": env_example(),
        "rules/friction.yaml": shipped("rules/friction.yaml").read_text("utf-8"),
    }
    if systemd:
        if re.search(r"\s", str(folder.absolute())):
            raise ConfigError("systemd needs a path without spaces", where="--dir")
        files |= {f"systemd/{name}": text for name, text in systemd_units(folder.absolute(), answers).items()}
    if given.webhook:
        files[KUBECONFIG] = ""  # written with its token, below
    there = [name for name in files if (folder / name).exists()]
    if there and not force:
        stop(f"already there: {', '.join(there)}; nothing was written; --force replaces them", console.USAGE)
    files.pop(KUBECONFIG, None)
    for name, text in files.items():
        _write(folder / name, text)
        out(str(folder / name))
    env_file = folder / ENV_FILE
    present = read_env_file(env_file) if env_file.exists() else {}
    names = (*KEY_NAMES, *([TOKEN] if given.webhook else []))
    missing = [name for name in names if not present.get(name)]
    if missing:
        write_env_file(env_file, {name: make_key() for name in missing})
    out(f"{env_file}  (0600: {'new keys' if missing else 'keys kept'})")
    if given.webhook:
        for path in make_certificates(folder, given.webhook) if given.webhook.tls else []:
            out(str(path))
        out(f"{write_kubeconfig(folder, given.webhook, read_env_file(env_file)[TOKEN])}  (0600)")
    _what_next(folder, answers, systemd=systemd)


def _complete(given: Answers, *, asking: bool) -> Answers:
    """`given`, with what is missing asked for or set to its default."""
    found = next((path for path in KNOWN_AUDIT_LOGS if os.path.exists(path)), "")
    questions = (
        ("cluster", "Name of the cluster", "default"),
        ("audit_log", "Audit log on this machine (`none`: Fluent Bit sends it)", found or "none"),
        ("forward_listen", "Where Fluent Bit connects (`none`: nowhere)", "127.0.0.1:24224"),
        ("backend_url", "Backend to report to", LOCAL_BACKEND),
        ("data_dir", "Folder for outbox and database", "/var/lib/forwarder"),
    )
    answers = {}
    for name, question, default in questions:
        value = getattr(given, name)
        if not value:
            value = typer.prompt(question, default=default, err=True) if asking else default
        answers[name] = value
    return Answers(**answers, webhook=given.webhook)


def _checked(answers: Answers) -> Answers:
    """`none` becomes empty; everything goes into YAML as it is, so it must be what it claims to be."""
    none_is_empty = {
        name: "" if getattr(answers, name) == "none" else getattr(answers, name)
        for name in ("audit_log", "forward_listen")
    }
    answers = msgspec.structs.replace(answers, **none_is_empty)
    if not _CLUSTER.fullmatch(answers.cluster):
        raise ConfigError(f"{answers.cluster!r}: up to 100 letters, digits, `.`, `_` and `-`", where="--cluster")
    if not re.fullmatch(r"https?://[^\s'\"@{}]+", answers.backend_url):
        raise ConfigError(f"{answers.backend_url!r}: write http://HOST:PORT, without a password", where="--backend-url")
    if answers.forward_listen:
        parse_address(answers.forward_listen, where="--forward-listen")
    for name, path in (("--audit-log", answers.audit_log), ("--data-dir", answers.data_dir)):
        if path and (not path.startswith("/") or not path.isprintable() or '"' in path or "\\" in path):
            raise ConfigError(f"{path!r} must be an absolute path without quotes", where=name)
    if not answers.audit_log and not answers.forward_listen and not answers.webhook:
        raise ConfigError("both are `none`, so no audit event could come in", where="--audit-log, --forward-listen")
    return answers


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror}", where=str(path)) from None


def _what_next(folder: Path, answers: Answers, *, systemd: bool) -> None:
    config = folder / "forwarder.yaml"
    say("")
    say("next:")
    if systemd:
        say(f"  sudo cp {folder / 'systemd'}/*.service /etc/systemd/system/ && sudo systemctl daemon-reload")
        say("  sudo systemctl enable --now forwarder-backend forwarder-receive")
    else:
        say(f"  forwarder backend --config {folder / 'backend.yaml'}")
        say(f"  forwarder receive --config {config}")
    say(f"  forwarder doctor --config {config} --send")
    if answers.forward_listen:
        say(f"  Fluent Bit needs FORWARD_SHARED_KEY of {folder / '.env'} as the shared_key of its forward output")
    if answers.webhook:
        say(f"  kube-apiserver gets --audit-webhook-config-file={folder / KUBECONFIG}, see docs/webhook.md")
