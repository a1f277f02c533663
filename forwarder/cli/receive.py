"""`forwarder receive`: sources, detection, outbox and sinks, as a settings file or the environment says."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from forwarder import logs
from forwarder.cli import console
from forwarder.cli.environment import receive_document

log = logging.getLogger("forwarder")


def receive(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="Settings file; without one the environment says it all.", envvar="FORWARDER_CONFIG"
        ),
    ] = None,
    log_level: Annotated[
        str, typer.Option(help="debug, info, warning or error; the settings file says otherwise.")
    ] = "",
    log_format: Annotated[str, typer.Option(help="text or json; the settings file says otherwise.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Read settings and rules, then end: 0 good, 2 bad.")] = False,
) -> None:
    """Receive audit events, find friction in them and deliver it, until SIGTERM or Ctrl-C."""
    from forwarder.cli.configuration import from_environment, read_config

    notices: list[str] = []
    if config is not None:
        loaded = read_config(config)
    else:
        document, notices = receive_document(os.environ)
        loaded = from_environment(document)
    format_ = log_format or loaded.config.log.format
    logs.configure(log_level or loaded.config.log.level, format_)
    for notice in notices:
        log.warning("%s", notice)

    from forwarder.up import Receiver

    receiver = Receiver(loaded)
    if check:
        console.out("good")
        return

    import asyncio

    from forwarder.cli.report import receiver_report, show
    from forwarder.cli.signals import run_service
    from forwarder.tasks import cancel, settle, spawn

    async def service(stopping: asyncio.Event) -> None:
        tell = asyncio.Event()

        async def tell_when_started() -> None:
            await tell.wait()
            report = await asyncio.to_thread(receiver_report, loaded, receiver.pipeline, receiver.telemetry_address)
            show(report, format_, [f"receiving; see `forwarder status{f' --config {config}' if config else ''}`"])

        def opened() -> None:
            settle()
            tell.set()

        telling = spawn(tell_when_started(), name="start-up report")
        try:
            await receiver.run(stopping, opened)
        finally:
            await cancel(telling)

    run_service(service, reload=receiver.pipeline.reload)
    log.info("stopped")
