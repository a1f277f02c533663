"""`forwarder up`: receiver, backend and its page in one process, on embedded defaults.

Everything it keeps is in one folder: outbox.db, backend.db, the checkpoint of the audit log, its log and its run file.
A file `.env` there is read as if it stood in the environment, which wins.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from forwarder import logs
from forwarder.cli import console
from forwarder.cli.background import (
    NotStartedError,
    Running,
    find_running,
    make_data_dir,
    process_began,
    remove_run_file,
    start_detached,
    write_run_file,
)
from forwarder.cli.environment import (
    DEFAULT_FORWARD_LISTEN,
    Environment,
    backend_document,
    data_dir,
    run_settings,
)
from forwarder.settings import Address, Document

if TYPE_CHECKING:
    import asyncio

    from forwarder.backend.settings import BackendSettings
    from forwarder.registry import Loaded
    from forwarder.up import Up

log = logging.getLogger("forwarder")

NO_LOG = "none"
KNOWN_AUDIT_LOGS = (
    "/var/log/kubernetes/audit/audit.log",  # kubeadm
    "/var/log/k3s-audit.log",
    "/var/lib/rancher/rke2/server/logs/audit.log",
    "/var/log/audit/audit.log",  # last: on a host with auditd this is another kind of log
)


class Plan(msgspec.Struct, kw_only=True):
    """What the command line and the environment ask for, the command line first."""

    folder: Path
    rules: list[str] = []
    audit_log: str = ""
    from_start: bool = False
    backend_listen: str = ""
    forward_listen: str = ""
    telemetry_listen: str = ""
    feed_listen: str = ""
    cluster: str = ""


def up(
    folder: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder for all it keeps; default ~/.local/state/forwarder.")
    ] = None,
    rules: Annotated[list[Path] | None, typer.Option(help="Rule file or folder; may be given again.")] = None,
    audit_log: Annotated[
        str, typer.Option(help="Audit log or glob to tail; `none` for none; else the usual places are looked at.")
    ] = "",
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Read the log's past too, where it was not read before.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; `forwarder down` ends it.")
    ] = False,
    backend_listen: Annotated[str, typer.Option(help="Backend and its page; default 127.0.0.1:8000.")] = "",
    forward_listen: Annotated[
        str, typer.Option(help=f"Where Fluent Bit connects; default {DEFAULT_FORWARD_LISTEN}.")
    ] = "",
    telemetry_listen: Annotated[str, typer.Option(help="Metrics and probes; default 127.0.0.1:9000.")] = "",
    feed_listen: Annotated[str, typer.Option(help="Live feed for `forwarder watch`; none without it.")] = "",
    cluster: Annotated[str, typer.Option(help="The cluster's name in every event.")] = "",
) -> None:
    """Run receiver, backend and its page in one process, with nothing to set up."""
    plan = Plan(
        folder=data_dir(os.environ, folder),
        rules=[str(path.absolute()) for path in rules or ()],
        audit_log=audit_log if audit_log in ("", NO_LOG) else str(Path(audit_log).expanduser().absolute()),
        from_start=from_start,
        backend_listen=backend_listen,
        forward_listen=forward_listen,
        telemetry_listen=telemetry_listen,
        feed_listen=feed_listen,
        cluster=cluster,
    )
    running = find_running(plan.folder)
    if running:
        console.say(f"already running as process {running.pid}; `forwarder down` ends it")
        _where_to_look(running)
        return
    if detach:
        try:
            running = start_detached(_arguments(plan), plan.folder)
        except NotStartedError as error:
            console.say(error.words)
            raise typer.Exit(error.code) from None
        console.out(f"running in the background as process {running.pid}")
        _where_to_look(running)
        console.say("`forwarder status` shows the ledger, `forwarder logs -f` its log, `forwarder down` ends it")
        return
    _run(plan)


def _run(plan: Plan) -> None:
    from forwarder.cli.configuration import environment_in

    environ = environment_in(plan.folder)
    env = Environment("up", environ)
    settings = run_settings(env, plan.folder)
    document, _ = backend_document(environ, "up")
    chosen = settings.get("log", {})
    log_format = chosen.get("format", "text")
    logs.configure(chosen.get("level", "info"), log_format)
    for notice in env.notices:
        log.warning("%s", notice)
    make_data_dir(plan.folder)
    audit_log = plan.audit_log or env.path("FORWARDER_AUDIT_LOG") or _usual_audit_log()
    if audit_log == NO_LOG:
        audit_log = ""

    from forwarder.cli.rule_cards import rule_book
    from forwarder.cli.signals import run_service
    from forwarder.up import Up

    process = Up(
        _backend(plan, document),
        lambda address: _receiver(plan, env, settings, audit_log, address),
        rule_book(plan.rules or settings["detection"]["rules"]),
    )

    async def service(stopping: "asyncio.Event") -> None:
        await _serve(process, plan, audit_log, log_format, stopping)

    run_service(service, reload=process.reload)
    log.info("stopped")


async def _serve(process: "Up", plan: Plan, audit_log: str, log_format: str, stopping: "asyncio.Event") -> None:
    import asyncio

    from forwarder.cli.report import receiver_report, show
    from forwarder.tasks import cancel, spawn

    ready = asyncio.Event()

    async def tell() -> None:
        await ready.wait()
        receiver = process.receiver
        assert receiver is not None  # it has just called `ready.set`
        running = Running(
            pid=os.getpid(),
            began=process_began(os.getpid()),
            backend=str(process.backend.address),
            forward=",".join(map(str, getattr(receiver.pipeline.sources["forward"], "addresses", []))),
            telemetry=str(receiver.telemetry_address or ""),
            feed=str(receiver.pipeline.feed_address or ""),
            audit_log=audit_log,
            outbox=str(receiver.loaded.outbox_path),
            cluster=receiver.loaded.config.cluster,
            rules=tuple(str(path) for path in receiver.loaded.rules),
        )
        report = await asyncio.to_thread(
            receiver_report, receiver.loaded, receiver.pipeline, receiver.telemetry_address
        )
        report.add("data", str(plan.folder))
        if not audit_log:
            report.warnings.append("no audit log is tailed; give --audit-log PATH, or let Fluent Bit send one")
        show(report, log_format, [f"look at http://{running.backend} · `forwarder status` · Ctrl-C ends it"])
        write_run_file(plan.folder, running)

    telling = spawn(tell(), name="start-up report")
    try:
        await process.run(stopping, ready.set)
    finally:
        await cancel(telling)
        remove_run_file(plan.folder, os.getpid())


def _receiver(plan: Plan, env: Environment, settings: dict[str, Any], audit_log: str, backend: Address) -> "Loaded":
    """The receiver's settings, now that the backend's address is known."""
    from forwarder.cli.configuration import from_environment

    forward: dict[str, Any] = {
        "listen": plan.forward_listen or env.text("FORWARDER_FORWARD_LISTEN") or DEFAULT_FORWARD_LISTEN
    }
    if key := env.text("FORWARD_SHARED_KEY"):
        forward["shared_key"] = key
    sources: dict[str, Any] = {"forward": forward}
    if audit_log:
        start = "beginning" if plan.from_start else "end"
        sources["file"] = {"path": audit_log, "start": start, "checkpoint": str(plan.folder / "file.json")}
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(backend.host, backend.host)  # noqa: S104 - where to connect
    sink: dict[str, Any] = {"url": f"http://{Address(host=host, port=backend.port)}"}
    if api_key := env.text("HEALERT_API_KEY"):
        sink["api_key"] = api_key
    data = settings | {"sources": sources, "sinks": {"backend": sink}}
    if plan.rules:
        data["detection"] = settings["detection"] | {"rules": plan.rules}
    if plan.telemetry_listen:
        data["telemetry"] = settings["telemetry"] | {"listen": plan.telemetry_listen}
    if plan.feed_listen:
        data["feed"] = {"listen": plan.feed_listen}
    if plan.cluster:
        data["cluster"] = plan.cluster
    return from_environment(Document("forwarder up", data, {}))


def _backend(plan: Plan, document: Document) -> "BackendSettings":
    from forwarder.cli.configuration import backend_settings

    data = {"database": str(plan.folder / "backend.db")} | document.data["backend"]
    if plan.backend_listen:
        data["listen"] = plan.backend_listen
    return backend_settings(msgspec.structs.replace(document, data=document.data | {"backend": data}))[0]


def _usual_audit_log() -> str:
    for path in KNOWN_AUDIT_LOGS:
        if os.path.exists(path):
            if os.access(path, os.R_OK):
                return path
            console.warn(
                f"{path} is there, but this user may not read it; give the log a group (chmod 640) or run as root"
            )
    return ""


def _arguments(plan: Plan) -> list[str]:
    """The command line that means this plan, for the process in the background."""
    arguments = ["up", "--data-dir", str(plan.folder)]
    for path in plan.rules:
        arguments += ["--rules", path]
    for option, value in (
        ("--audit-log", plan.audit_log),
        ("--backend-listen", plan.backend_listen),
        ("--forward-listen", plan.forward_listen),
        ("--telemetry-listen", plan.telemetry_listen),
        ("--feed-listen", plan.feed_listen),
        ("--cluster", plan.cluster),
    ):
        if value:
            arguments += [option, value]
    return [*arguments, *(["--from-start"] if plan.from_start else [])]


def _where_to_look(running: Running) -> None:
    console.out(f"look at       http://{running.backend}")
    if running.forward:
        console.out(f"send to       {running.forward} (Fluent Bit's forward output)")
    if running.audit_log:
        console.out(f"tailing       {running.audit_log}")
    if running.feed:
        console.out(f"watch         forwarder watch {running.feed}")
    if running.telemetry:
        console.out(f"metrics       http://{running.telemetry}/metrics")
    sys.stdout.flush()
