"""Where the receiver is and which certificates it takes, watched in the cluster.

One thread for the Service and one for the Secret: list, then watch from that version; go on from the last version seen
when a watch ends (bookmarks keep it fresh); list again when it is too old (410 Gone). Failures wait with growing, jittered
pauses up to `backoff-timer` and change nothing: what was found last stays. The kubeconfig is looked at every other second;
a changed one that can be used replaces the connection, one that cannot is reported and the old one goes on.
"""

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from forwarder.errors import ConfigError
from forwarder.sidecar.certificates import Certificates, Names, from_secret
from forwarder.sidecar.cluster import Cluster, ClusterError, Kind, Object
from forwarder.sidecar.settings import SidecarSettings
from forwarder.sidecar.tunnel import Target
from forwarder.telemetry import Telemetry
from forwarder.wire.complaints import Complaints

log = logging.getLogger(__name__)

LOOK_S = 2.0  # between two looks at the kubeconfig
FIRST_PAUSE_S = 0.2
MAX_KUBECONFIG_BYTES = 4 << 20

Connect = Callable[[], Cluster]


def target_of(service: Object | None, settings: SidecarSettings) -> Target | None:
    """Where the Service is to be dialled; None while there is none. Raises ConfigError for one that cannot be used."""
    if service is None or (service.get("metadata") or {}).get("deletionTimestamp"):
        return None
    where = f"Service {settings.namespace}/{settings.service_name}"
    spec = service.get("spec") or {}
    ports = [port for port in spec.get("ports") or [] if port.get("protocol", "TCP") == "TCP"]
    known = ", ".join(str(port.get("name") or port.get("port")) for port in ports) or "none"
    wanted = settings.service_port
    if wanted:
        ports = [port for port in ports if wanted in (port.get("name"), str(port.get("port")))]
        if not ports:
            raise ConfigError(f"it has no TCP port `{wanted}` (it has: {known}); set --service-port", where=where)
    if len(ports) != 1:
        fault = "it has several ports" if ports else "it has no TCP port"
        raise ConfigError(f"{fault} ({known}); name one with --service-port", where=where)
    host = str(spec.get("clusterIP") or "")
    if spec.get("type") == "ExternalName":
        host = str(spec.get("externalName") or "")
    elif host in ("", "None"):  # headless: the name is resolved at the end of the way
        host = f"{settings.service_name}.{settings.namespace}.svc"
    return Target(host, int(ports[0]["port"]))


class Discovery:
    """Calls `target` and `certificates` from threads of its own, once for each change. `start` opens, `stop` ends it.

    target: a Target, or None once the Service is gone. certificates: a set that is whole; whether it fits is not checked yet.
    """

    def __init__(
        self,
        settings: SidecarSettings,
        telemetry: Telemetry,
        *,
        target: Callable[[Target | None], None],
        certificates: Callable[[Certificates], None],
        connect: Connect | None = None,
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._target = target
        self._certificates = certificates
        self._connect = connect or self._connect_by_kubeconfig
        self._complaints = Complaints(log, time.monotonic)
        self._stopping = threading.Event()
        self._changed = threading.Event()
        self._cluster: Cluster | None = None
        self._lock = threading.Lock()
        self._seen = b""
        self._last: dict[Kind, object] = {}
        kinds: list[tuple[Kind, str]] = [("Service", settings.service_name)]
        if settings.secret_name:
            kinds.append(("Secret", settings.secret_name))
        self._threads = [
            threading.Thread(target=self._follow, args=item, name=f"watch {item[0]}", daemon=True) for item in kinds
        ]
        self._threads.append(threading.Thread(target=self._look, name="watch kubeconfig", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, deadline_s: float = 2.0) -> None:
        """End all requests and threads; what still hangs in the client's own code is left to die with the process."""
        self._stopping.set()
        self._changed.set()
        if self._cluster:
            self._cluster.close()
        for thread in self._threads:
            if thread.ident is not None:  # one that was started
                thread.join(deadline_s)

    def reload(self) -> None:
        """Read the kubeconfig again, even if it looks the same: a token may have been revoked."""
        self._seen = b""
        self._changed.set()

    # --- kubeconfig --------------------------------------------------------------------------------------------------

    def _connect_by_kubeconfig(self) -> Cluster:
        return Cluster(str(Path(self._settings.kubecfg).expanduser()), self._settings.run_dir)

    def _look(self) -> None:
        while not self._stopping.is_set():
            seen = self._fingerprint()
            if seen != self._seen and self._renew(first=not self._seen):
                self._seen = seen
            self._changed.wait(LOOK_S if self._cluster else FIRST_PAUSE_S * 2)
            self._changed.clear()

    def _fingerprint(self) -> bytes:
        """Of what stands in it, because a mounted Secret changes by a link, and an editor by a new file."""
        try:
            with open(Path(self._settings.kubecfg).expanduser(), "rb") as file:
                return hashlib.sha256(file.read(MAX_KUBECONFIG_BYTES)).digest()
        except OSError as error:
            return f"unreadable {error.errno}".encode()

    def _renew(self, *, first: bool) -> bool:
        try:
            cluster = self._connect()
        except ConfigError as error:
            self._fail("kubeconfig", "kubeconfig", str(error), level=logging.ERROR)
            return False
        with self._lock:
            old, self._cluster = self._cluster, cluster
        if old:
            old.close()
        log.info(
            "watching the cluster" if first else "watching the cluster with the new kubeconfig",
            extra={"server": cluster.server},
        )
        return True

    # --- one object --------------------------------------------------------------------------------------------------

    def _follow(self, kind: Kind, name: str) -> None:
        version, failures, used = "", 0, None
        connected = self._telemetry["forwarder_watch_connected"].labels(kind)
        while not self._stopping.is_set():
            with self._lock:
                cluster = self._cluster
            if cluster is None:
                self._stopping.wait(FIRST_PAUSE_S / 4)
                continue
            if cluster is not used:
                version, used = "", cluster  # another cluster counts its versions otherwise
            try:
                if not version:
                    found, version = cluster.read(kind, self._settings.namespace, name)
                    failures = 0
                    self._found(kind, found)
                connected.set(1)
                for event, changed in cluster.watch(kind, self._settings.namespace, name, version):
                    failures = 0
                    version = str((changed.get("metadata") or {}).get("resourceVersion") or version)
                    if event in ("ADDED", "MODIFIED"):
                        self._found(kind, changed)
                    elif event == "DELETED":
                        self._found(kind, None)
                pause_s = (
                    FIRST_PAUSE_S  # the apiserver ends a watch after a while; one that does at once is not hammered
                )
            except ClusterError as error:
                connected.set(0)
                if self._stopping.is_set() or cluster is not self._cluster:
                    continue  # ended by us
                if error.cause == "gone":
                    version = ""
                failures += 1
                quiet = failures == 1 and error.cause in ("gone", "disconnected")  # taken up at once
                self._fail(kind, error.cause, str(error), level=logging.INFO if quiet else logging.WARNING)
                longest = min(self._settings.backoff_s, FIRST_PAUSE_S * 2.0 ** min(failures, 16))
                pause_s = FIRST_PAUSE_S if quiet else longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
                self._wait(pause_s, cluster)
                if error.cause == "unauthorized":
                    self.reload()
            else:
                self._wait(FIRST_PAUSE_S, cluster)  # the apiserver ends a watch after a while; not hammered if at once
        connected.set(0)

    def _wait(self, pause_s: float, cluster: Cluster) -> None:
        """A pause that ends early when the connection was replaced."""
        end = time.monotonic() + pause_s
        while (left := end - time.monotonic()) > 0 and cluster is self._cluster:
            if self._stopping.wait(min(left, FIRST_PAUSE_S)):
                return

    def _found(self, kind: Kind, found: Object | None) -> None:
        """Tell what is new; complain about what cannot be used, and then keep what was."""
        try:
            if kind == "Service":
                target = target_of(found, self._settings)
                if kind not in self._last or self._last[kind] != target:
                    self._last[kind] = target
                    self._target(target)
            elif found is None:
                name = f"{self._settings.namespace}/{self._settings.secret_name}"
                self._fail(kind, "missing", f"there is no Secret {name} yet; create it, or set --secret-name")
            else:
                certificates = self._read(found)
                if self._last.get(kind) != certificates:
                    self._last[kind] = certificates
                    self._certificates(certificates)
        except ConfigError as error:
            self._fail(kind, "unusable", str(error), level=logging.ERROR)

    def _read(self, secret: Object) -> Certificates:
        settings = self._settings
        names = Names(settings.tls_ca_file, settings.tls_crt_file, settings.tls_key_file)
        return from_secret(secret.get("data") or {}, names, f"Secret {settings.namespace}/{settings.secret_name}")

    def _fail(self, kind: str, cause: str, text: str, *, level: int = logging.WARNING) -> None:
        self._telemetry["forwarder_watch_failures"].labels(kind, cause).inc()
        self._complaints.say(kind, f"{cause} {text}", text, level=level)
