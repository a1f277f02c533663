"""CA, client certificate and key, from the Secret to the folder that Fluent Bit reads: checked, whole, and only when changed.

The three files are one unit. They are written to a folder of their own (`..<digest>`), and a link (`..data`) that all
three names go through is replaced by rename, as the kubelet does it for mounted Secrets: nobody ever sees a new
certificate beside an old key. Files are 0600, folders 0700. What does not fit is refused and the files in place stay.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import shutil
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from forwarder.errors import ConfigError

MAX_FILE_BYTES = 1 << 20  # a Secret as a whole has at most 1 MiB
CURRENT = "..data"


class Names(msgspec.Struct, frozen=True):
    """What the three are called, in the Secret and in the folder."""

    ca: str
    crt: str
    key: str


class Certificates(msgspec.Struct, frozen=True):
    """PEM texts that belong together. expires: when the client certificate does, Unix seconds."""

    ca: bytes
    crt: bytes
    key: bytes
    expires: float

    def __repr__(self) -> str:
        return f"<Certificates {self.digest}>"

    @property
    def digest(self) -> str:
        """Tells two sets apart; says nothing about the key."""
        whole = hashlib.sha256()
        for part in (self.ca, self.crt, self.key):
            whole.update(len(part).to_bytes(8, "big") + part)
        return whole.hexdigest()[:16]


def from_secret(data: Mapping[str, str], names: Names, where: str) -> Certificates:
    """What a Secret's `data` holds, checked for presence; `where` names the Secret in errors. Raises ConfigError."""
    parts: list[bytes] = []
    for option, name in (("tls-ca-file", names.ca), ("tls-crt-file", names.crt), ("tls-key-file", names.key)):
        if not data.get(name):
            there = ", ".join(sorted(data)) or "none"
            raise ConfigError(f"it has no key `{name}` (it has: {there}); add it, or set --{option}", where=where)
        try:
            part = base64.b64decode(data[name], validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError(f"its key `{name}` is no base64", where=where) from None
        if len(part) > MAX_FILE_BYTES:
            raise ConfigError(f"its key `{name}` is larger than {MAX_FILE_BYTES >> 20} MiB", where=where)
        parts.append(part)
    ca, crt, key = parts
    return Certificates(ca, crt, key, expires=_expiry(crt, f"{where}, key `{names.crt}`"))


def _expiry(crt: bytes, where: str) -> float:
    from cryptography import x509  # noqa: PLC0415 - the extra `sidecar`; no other command needs it

    try:
        leaf = x509.load_pem_x509_certificates(crt)[0]
    except ValueError:
        raise ConfigError("no PEM certificate in it", where=where) from None
    return leaf.not_valid_after_utc.timestamp()


class Folder:
    """The folder that Fluent Bit reads them from. Opens nothing until `prepare`."""

    def __init__(self, path: str | Path, names: Names) -> None:
        self.path = Path(path)
        self.names = names

    def prepare(self) -> None:
        """Make it, and see that we may write to it. Raises ConfigError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = self.path / f"..probe-{os.getpid()}"
            probe.mkdir(mode=0o700)
            probe.rmdir()
        except OSError as error:
            message = f"cannot write to {self.path}: {error.strerror}; mount a writable folder (an emptyDir with medium: Memory)"
            raise ConfigError(message, where="tls-basedir") from None

    def current(self) -> str:
        """The digest of what is in place; "" where nothing is."""
        try:
            return os.readlink(self.path / CURRENT).removeprefix("..")
        except OSError:
            return ""

    def complete(self) -> bool:
        """Whether all three files are there."""
        return all((self.path / name).is_file() for name in (self.names.ca, self.names.crt, self.names.key))

    def write(self, certificates: Certificates, now_s: float) -> bool:
        """Put them in place; False where they already are. Raises ConfigError, and then nothing has changed."""
        if certificates.expires <= now_s:
            when = datetime.fromtimestamp(certificates.expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
            message = (
                f"the client certificate expired at {when}; renew it in the Secret (lines wait on disk until then)"
            )
            raise ConfigError(message, where=self.names.crt)
        if certificates.digest == self.current() and self.complete():
            return False
        generation = f"..{certificates.digest}"
        try:
            self._write_generation(self.path / generation, certificates)
            self._check(self.path / generation)
            self._switch(generation)
        except OSError as error:
            raise ConfigError(f"cannot write to {self.path}: {error.strerror}", where="tls-basedir") from None
        self._tidy(keep=generation)
        return True

    def _write_generation(self, folder: Path, certificates: Certificates) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # of a write that was cut short
        folder.mkdir(mode=0o700)
        parts = (certificates.ca, certificates.crt, certificates.key)
        for name, part in zip((self.names.ca, self.names.crt, self.names.key), parts, strict=True):
            opened = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(opened, "wb") as file:
                file.write(part)
                file.flush()
                os.fsync(opened)

    def _check(self, folder: Path) -> None:
        """OpenSSL takes all three, and the key is the certificate's; Fluent Bit would not start otherwise."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(folder / self.names.ca)
        except ssl.SSLError:
            self._refuse(folder, "no PEM certificate in it", self.names.ca)
        try:
            context.load_cert_chain(folder / self.names.crt, folder / self.names.key, password=lambda: "")
        except ssl.SSLError as error:
            fault = "it is no PEM key without a passphrase"
            if error.reason == "KEY_VALUES_MISMATCH":
                fault = f"it does not belong to the certificate `{self.names.crt}`; renew both together"
            self._refuse(folder, fault, self.names.key)

    def _refuse(self, folder: Path, message: str, where: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(message, where=where) from None

    def _switch(self, generation: str) -> None:
        _link(self.path / CURRENT, generation)
        for name in (self.names.ca, self.names.crt, self.names.key):
            target = f"{CURRENT}/{name}"
            with contextlib.suppress(OSError):
                if os.readlink(self.path / name) == target:
                    continue
            _link(self.path / name, target)

    def _tidy(self, keep: str) -> None:
        """Old generations go: their keys have no business here any more."""
        for entry in os.scandir(self.path):
            if (
                entry.name.startswith("..")
                and entry.name not in (keep, CURRENT)
                and entry.is_dir(follow_symlinks=False)
            ):
                shutil.rmtree(entry.path, ignore_errors=True)


def _link(path: Path, target: str) -> None:
    """Replace whatever is at `path` by a link, in one step."""
    temporary = path.with_name(f"{path.name}.new-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(path)
