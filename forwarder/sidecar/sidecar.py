"""The sidecar as a whole: discovery tells, certificates are put in place, Fluent Bit reads them, then the relay opens.

That order is the one rule here. The relay is closed while there is no Service or no certificate that Fluent Bit has loaded, so
lines wait on disk and nothing is ever sent in the clear or to the wrong place. Everything that discovery finds goes through
one queue and is handled by one task, in order.

Stopping: Fluent Bit first, while the relay still carries its last lines; then the relay, the watches, the telemetry port.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from forwarder import __version__
from forwarder.errors import ConfigError
from forwarder.settings import Address, parse_address, read_secret
from forwarder.sidecar.certificates import Certificates, Folder, Names
from forwarder.sidecar.configuration import Configuration, State
from forwarder.sidecar.discovery import Discovery
from forwarder.sidecar.lag import log_lag, log_trouble
from forwarder.sidecar.metrics import SIDECAR_METRICS, Agent
from forwarder.sidecar.relay import Relay
from forwarder.sidecar.settings import SidecarSettings
from forwarder.sidecar.supervisor import Supervisor
from forwarder.sidecar.tunnel import Direct, Target, TlsProxy, UnixProxy, Way
from forwarder.tasks import cancel, spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.complaints import Complaints
from forwarder.wire.http import TelemetryServer

log = logging.getLogger(__name__)

LOOK_S = 2.0  # between two looks at the further outputs, and at Fluent Bit's own state
TRIAL_S = 10.0  # Fluent Bit checks a configuration within a tenth of a second
SETTLE_S = 1.0  # a ConfigMap's files are replaced together; a file being copied by hand is not read half
REACHED_S = 60.0  # one connection in this time: a hot reload has somewhere to deliver to

Found = Target | Certificates | None


def way_of(settings: SidecarSettings) -> Way:
    """How the receiver is reached."""
    if settings.konnectivity_uds_socket:
        return UnixProxy(settings.konnectivity_uds_socket)
    if settings.proxy_host:
        return TlsProxy(
            settings.proxy_host,
            settings.proxy_port,
            settings.proxy_ca_file,
            settings.proxy_client_crt_file,
            settings.proxy_client_key_file,
        )
    return Direct()


class Sidecar:
    """`run` may be called once. Constructing it opens nothing."""

    def __init__(self, settings: SidecarSettings) -> None:
        """Raises ConfigError for a telemetry address that must not be listened on."""
        self.settings = settings
        self.telemetry = Telemetry(SIDECAR_METRICS)
        self.telemetry_address: Address | None = None
        self.agent = Agent(0)
        self.relay = Relay(way_of(settings), self.telemetry, port=settings.relay_port)
        self.configuration = Configuration(settings)
        names = Names(settings.tls_ca_file, settings.tls_crt_file, settings.tls_key_file)
        self.folder = Folder(settings.tls_basedir, names)
        self.supervisor = Supervisor(self._command, self.agent, self.telemetry, longest_pause_s=settings.backoff_s)
        self._found: asyncio.Queue[Found] = asyncio.Queue()
        self._target: Target | None = None
        self._discovery: Discovery | None = None
        self._complaints = Complaints(log, time.monotonic)
        self._log_trouble = ""
        self._http = self._telemetry_server()
        self.telemetry["forwarder_info"].labels(__version__).set(1)

    def prepare(self) -> None:
        """Check and make everything that must be there before anything runs. Raises ConfigError that says what to do."""
        settings = self.settings
        if not shutil.which(settings.fluent_bit):
            message = (
                f"{settings.fluent_bit} is not there; install Fluent Bit 5.1 (docs.fluentbit.io) or set --fluent-bit"
            )
            raise ConfigError(message, where="fluent-bit")
        log_folder = Path(settings.audit_log_path).parent
        if "*" not in settings.audit_log_path and not log_folder.is_dir():
            message = f"{log_folder} is not there; mount the folder that kube-apiserver writes its audit log to"
            raise ConfigError(message, where="audit-log-path")
        _writable(Path(settings.run_dir), "run-dir", "an emptyDir with medium: Memory")
        _writable(Path(settings.state_dir), "state-dir", "a volume that outlives the container")
        if settings.secret_name:
            self.folder.prepare()
        self.configuration.included = self.configuration.added()

    async def run(self, stopping: asyncio.Event, started: Callable[[], None]) -> None:
        """Until `stopping` is set and Fluent Bit has ended. `started` is called once everything is under way."""
        self.prepare()
        loop = asyncio.get_running_loop()

        def tell(found: Found) -> None:
            loop.call_soon_threadsafe(self._found.put_nowait, found)

        self._discovery = Discovery(self.settings, self.telemetry, target=tell, certificates=tell)
        self.telemetry["forwarder_certificate_known"].set(int(not self.settings.secret_name or self.folder.complete()))
        if self._http:
            self.telemetry_address = self._http.start()
        tasks: list[asyncio.Task[None]] = []
        try:
            self.relay.start()
            if self.configuration.included:
                await self._try_added()
            self._discovery.start()
            supervising = spawn(self.supervisor.run(stopping), name="supervisor", failed=_raised_by_await)
            tasks = [
                spawn(self._handle_found(), name="what was found"),
                spawn(self._follow_added(), name="further outputs"),
                spawn(self._gauges(), name="gauges"),
            ]
            loop.add_signal_handler(
                signal.SIGCONT, self.supervisor.pass_on, signal.SIGCONT
            )  # Fluent Bit prints its state
            started()
            await supervising
        finally:
            loop.remove_signal_handler(signal.SIGCONT)
            await cancel(*tasks)
            await self.relay.stop()
            await asyncio.to_thread(self._discovery.stop)
            if self._http:
                await asyncio.to_thread(self._http.stop)

    def reload(self) -> None:
        """SIGHUP: read the kubeconfig again, and have Fluent Bit read its configuration again."""
        if self._discovery:
            self._discovery.reload()
        spawn(self._reload_agent(), name="reload")

    # --- what discovery finds ----------------------------------------------------------------------------------------

    async def _handle_found(self) -> None:
        while True:
            found = await self._found.get()
            try:
                if isinstance(found, Certificates):
                    await self._rotate(found)
                else:
                    self._target = found
                    self.telemetry["forwarder_target_known"].set(int(found is not None))
                    log.info("the receiver is at %s" if found else "the receiver's Service is gone%s", found or "")
                await self._open_or_close()
            except (ConfigError, OSError) as error:
                log.error("%s", error)

    async def _rotate(self, certificates: Certificates) -> None:
        changed = await asyncio.to_thread(self.folder.write, certificates, time.time())
        self.telemetry["forwarder_certificate_expires_seconds"].set(certificates.expires)
        if changed:
            self.telemetry["forwarder_certificate_rotations"].inc()
            log.info("new certificates are in place", extra={"digest": certificates.digest})
            await self._reload_agent()
        self.telemetry["forwarder_certificate_known"].set(1)

    async def _open_or_close(self) -> None:
        usable = not self.settings.secret_name or self.folder.complete()
        await self.relay.set_target(self._target if usable else None)

    async def _reload_agent(self) -> None:
        """Write the configuration, and have it read: gently where lines flow, by a new start where they cannot."""
        self._write()
        reached = self.relay.reached
        recently = reached is not None and time.monotonic() - reached < REACHED_S
        await self.supervisor.reload(gently=recently or self.relay.busy)

    async def _follow_added(self) -> None:
        """Further outputs are loaded when they change; what cannot be loaded leaves those in force that are."""
        seen = self.configuration.fingerprint()
        while True:
            await asyncio.sleep(LOOK_S)
            now = self.configuration.fingerprint()
            if now == seen:
                continue
            await asyncio.sleep(SETTLE_S)
            seen = self.configuration.fingerprint()
            try:
                await self._try_added()
                await self._reload_agent()
            except (ConfigError, OSError) as error:
                log.error("the further outputs stay as they were: %s", error)

    async def _try_added(self) -> None:
        """Take the further outputs, if another Fluent Bit has nothing against them: a reload of a bad configuration would end
        with none running. Raises ConfigError, and then those of before stay in force.
        """
        before = self.configuration.included
        try:
            self.configuration.included = self.configuration.added()
            await self._trial(self.configuration.write(self._state(), folder="trial"))
        except ConfigError:
            self.configuration.included = before
            raise

    async def _trial(self, main: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            self.settings.fluent_bit,
            "--dry-run",
            "-c",
            str(main),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            code = await asyncio.wait_for(process.wait(), TRIAL_S)
        except TimeoutError:
            process.kill()
            code = await process.wait()
        if code != 0:
            folder = self.settings.additional_dir
            raise ConfigError("Fluent Bit does not take them; what is wrong it says above", where=folder)

    # --- Fluent Bit --------------------------------------------------------------------------------------------------

    def _command(self) -> list[str]:
        """Written anew before each start, with a port that is free now. What cannot be written leaves what is there in force."""
        before, self.agent.port = self.agent.port, _free_port(self.agent.port)
        try:
            self._write()
        except ConfigError as error:
            self.agent.port = before
            if not before:
                raise
            log.error("%s", error)
        return [self.settings.fluent_bit, "-c", str(self.configuration.main)]

    def _write(self) -> None:
        self.configuration.write(self._state())

    def _state(self) -> State:
        return State(relay_port=self.relay.port, http_port=self.agent.port, certificates=self.folder.complete())

    async def _gauges(self) -> None:
        database = Path(self.settings.state_dir) / "tail.db"
        while True:
            chunks = await asyncio.to_thread(self.agent.chunks)
            for where, number in (chunks or {}).items():
                self.telemetry["forwarder_agent_chunks"].labels(where).set(number)
            lag = await asyncio.to_thread(log_lag, database, self.settings.log_paths)
            if lag is not None:
                self.telemetry["forwarder_agent_log_lag_bytes"].set(lag)
            if "*" not in self.settings.audit_log_path:
                self._look_at_log(Path(self.settings.audit_log_path))
            await asyncio.sleep(LOOK_S)

    def _look_at_log(self, path: Path) -> None:
        """Not at the first sight: between rename and new file of a rotation there is no log for a moment."""
        trouble = log_trouble(path)
        if trouble and self._log_trouble:
            self._complaints.say("audit-log-path", "unreadable", trouble)
        self._log_trouble = trouble

    def _telemetry_server(self) -> TelemetryServer | None:
        settings = self.settings
        if not settings.telemetry_listen:
            return None
        token = settings.telemetry_token_file
        address = parse_address(settings.telemetry_listen, where="telemetry-listen")
        if not (address.local or token or settings.telemetry_allow_anonymous):
            message = (
                f"{address} can be reached from other machines; set --telemetry-token-file, or listen on 127.0.0.1"
            )
            raise ConfigError(message, where="telemetry-listen")
        return TelemetryServer(
            address,
            metrics=lambda: self.telemetry.exposition() + self.agent.metrics(),
            ready=lambda: self.supervisor.healthy,
            token=read_secret(token, where="telemetry-token-file") if token else "",
            allow_anonymous=settings.telemetry_allow_anonymous,
        )


def _writable(folder: Path, where: str, mount: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; mount {mount}", where=where) from None


def _free_port(last: int) -> int:
    """`last` if it is free, else another one."""
    for port in (last, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return last


def _raised_by_await(_: BaseException) -> None:
    """`run` raises it."""
