"""`forwarder sidecar`: keeps Fluent Bit running beside an apiserver outside its cluster, and carries its lines inside."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from forwarder import logs
from forwarder.cli import console

log = logging.getLogger("forwarder")

Text = str | None
FILE = Path("/etc/audit-forwarder/config.yaml")


def _option(help_: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=help_, rich_help_panel=panel, show_default=False)


CLUSTER, FILES, THROUGH, OTHER = "Cluster", "Files", "Way to the receiver", "Other"


def sidecar(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help=f"Settings file; {FILE} where that exists.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and end.")] = False,
    kubecfg: Annotated[Text, _option("Kubeconfig of the receiver's cluster.", CLUSTER, "--kubecfg", "-k")] = None,
    namespace: Annotated[Text, _option("Namespace of Service and Secret.", CLUSTER)] = None,
    service_name: Annotated[Text, _option("The receiver's Service.", CLUSTER)] = None,
    service_port: Annotated[Text, _option("Name or number of its port, where it has several.", CLUSTER)] = None,
    secret_name: Annotated[Text, _option('Secret with the certificates; "" sends in the clear.', CLUSTER)] = None,
    audit_log_path: Annotated[Text, _option("The audit log.", FILES)] = None,
    state_dir: Annotated[Text, _option("Positions and waiting lines; a volume.", FILES)] = None,
    run_dir: Annotated[Text, _option("Fluent Bit's configuration; a tmpfs.", FILES)] = None,
    additional_dir: Annotated[Text, _option("Further outputs, `*.yaml`.", FILES)] = None,
    tls_basedir: Annotated[Text, _option("Where the certificates are written to; a tmpfs.", FILES)] = None,
    tls_ca_file: Annotated[Text, _option("CA: key in the Secret, file in the folder.", FILES)] = None,
    tls_crt_file: Annotated[Text, _option("Client certificate, likewise.", FILES)] = None,
    tls_key_file: Annotated[Text, _option("Its key, likewise.", FILES)] = None,
    shared_key_file: Annotated[Text, _option("The receiver's shared key, where it asks for one.", FILES)] = None,
    tls_vhost: Annotated[Text, _option("Name in the receiver's certificate.", THROUGH)] = None,
    konnectivity_uds_socket: Annotated[Text, _option("Unix socket of konnectivity.", THROUGH)] = None,
    proxy_host: Annotated[Text, _option("Or: host of a CONNECT proxy behind mutual TLS.", THROUGH)] = None,
    proxy_port: Annotated[int | None, _option("Its port.", THROUGH)] = None,
    proxy_ca_file: Annotated[Text, _option("CA of the proxy's certificate.", THROUGH)] = None,
    proxy_client_crt_file: Annotated[Text, _option("Client certificate for the proxy.", THROUGH)] = None,
    proxy_client_key_file: Annotated[Text, _option("Its key.", THROUGH)] = None,
    relay_port: Annotated[int | None, _option("Loopback port of the relay; 0 is any.", THROUGH)] = None,
    mem_buf_limit: Annotated[Text, _option("How much is held beside the log; 200M.", OTHER)] = None,
    backoff_timer: Annotated[Text, _option("Longest pause before a new try; 10s.", OTHER)] = None,
    check_schedule: Annotated[Text, _option("No meaning any more.", OTHER)] = None,
    fluent_bit: Annotated[Text, _option("The program.", OTHER)] = None,
    fluent_log_level: Annotated[Text, _option("Of Fluent Bit: off, error, warn, info, debug, trace.", OTHER)] = None,
    log_level: Annotated[Text, _option("debug, info, warning or error.", OTHER)] = None,
    log_format: Annotated[Text, _option("text or json.", OTHER)] = None,
    telemetry_listen: Annotated[Text, _option('/metrics, /healthz, /readyz; "" is nowhere.', OTHER)] = None,
    telemetry_token_file: Annotated[Text, _option("Bearer token for /metrics.", OTHER)] = None,
    telemetry_allow_anonymous: Annotated[
        bool | None,
        typer.Option(
            "--telemetry-allow-anonymous", help="/metrics for everybody who reaches it.", rich_help_panel=OTHER
        ),
    ] = None,
) -> None:
    """Run Fluent Bit beside an apiserver outside its cluster and carry the audit log to the receiver inside.

    Each option is also an AUDIT_… variable (AUDIT_TLS_VHOST) and a key of the settings file (tls-vhost).
    """
    given = {name.replace("_", "-"): value for name, value in locals().items() if name not in ("config", "dry_run")}
    from forwarder.settings import read_document
    from forwarder.sidecar.settings import load_settings

    path = config or (FILE if FILE.exists() else None)
    settings, notices = load_settings(given, os.environ, read_document(path) if path else None)
    logs.configure(settings.log_level, settings.log_format)
    for notice in notices:
        log.warning("%s", notice)

    from forwarder.sidecar.sidecar import Sidecar

    service = Sidecar(settings)
    if dry_run:
        _print(service)
        return

    from forwarder.cli.signals import run_service

    if not settings.secret_name:
        log.warning("without a Secret the audit log travels in the clear")

    def started() -> None:
        log.info(
            "running Fluent Bit; the receiver is looked for in the cluster",
            extra={"service": f"{settings.namespace}/{settings.service_name}", "telemetry": service.telemetry_address},
        )

    run_service(lambda stopping: service.run(stopping, started), reload=service.reload)
    log.info("stopped")


def _print(service: Any) -> None:
    """The command, the way and Fluent Bit's configuration; nothing secret. Ports that are chosen at the start are 0."""
    from forwarder.sidecar.configuration import State
    from forwarder.sidecar.sidecar import way_of

    settings = service.settings
    certificates = service.folder.complete()
    state = State(relay_port=settings.relay_port, http_port=0, certificates=certificates)
    console.out(f"# run: {settings.fluent_bit} -c {service.configuration.main}")
    console.out(f"# watch: Service {settings.namespace}/{settings.service_name} with {settings.kubecfg}")
    if settings.secret_name:
        now = "in place" if certificates else "not there yet"
        console.out(
            f"# certificates: Secret {settings.namespace}/{settings.secret_name} -> {settings.tls_basedir} ({now})"
        )
    console.out(f"# reach the receiver {way_of(settings)}")
    service.configuration.included = service.configuration.added()
    for name, text in service.configuration.render(state, show_secrets=False).items():
        console.out(f"# --- {service.configuration.main.with_name(name)}\n{text}")
