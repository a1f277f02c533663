"""Records what a real Fluent Bit sends, so that the decoder's tests do not depend on bytes typed by hand.

    python tests/golden/capture.py        # needs fluent-bit on PATH; rewrites tests/golden/*.hex

Each case starts Fluent Bit with the options below against a server on loopback that acknowledges the first message and
keeps every byte it received. A .hex file begins with `#` lines that say version and options. What changes from run to
run (times, chunk ids, salts) is in the bytes; the tests read it from there.
"""

import asyncio
import pathlib
import subprocess
import sys
import tempfile
import textwrap

from forwarder.wire.fluent_forward import NEED_DATA, ForwardReceiver, MessageEnd, ack
from forwarder.wire.forward_handshake import ServerHandshake, Verdict

HERE = pathlib.Path(__file__).parent
SHARED_KEY = "golden-key"
NONCE = bytes(range(16))
TIMEOUT_S = 20

# Two audit events (the second with characters that JSON, msgpack and UTF-8 treat specially), and a line that is neither
# JSON nor UTF-8: Fluent Bit passes it on as it is, and its JSON parser leaves it under `log`.
_EXEC = (
    b'{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"7e0cbccf-8f4a-4d2c-9a7e-1a2b3c4d5e6f",'
    b'"stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/pods/cart-0/exec?command=sh","verb":"get",'
    b'"user":{"username":"jane","groups":["dev","system:authenticated"]},"sourceIPs":["10.0.0.9"],'
    b'"objectRef":{"resource":"pods","namespace":"shop","name":"cart-0","apiVersion":"v1","subresource":"exec"},'
    b'"responseStatus":{"metadata":{},"code":101},"requestReceivedTimestamp":"2026-08-01T10:00:00.123456Z",'
    b'"stageTimestamp":"2026-08-01T10:00:01.000000Z","annotations":{"authorization.k8s.io/decision":"allow"}}'
)
_PATCH = (
    '{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"b","stage":"ResponseComplete",'
    '"verb":"patch","user":{"username":"J\u00fcrgen \\u0026 \\"S\u00f6hne\\""},"requestObject":{"n":-1.5e3,"big":'
    '18446744073709551615,"none":null,"yes":true,"emoji":"\U0001f680"}}'
)
LINES = (_EXEC, _PATCH.encode(), b"not json \xff\xfe\x00 at all")

FORWARD = ("-o", "forward", "-p", "host=127.0.0.1", "-p", "port={port}", "-m", "*")
ACK = ("-p", "require_ack_response=on")
CASES: dict[str, tuple[str, ...]] = {
    "forward": (*FORWARD, *ACK),
    "forward-no-ack": FORWARD,
    "forward-no-metadata": (*FORWARD, *ACK, "-p", "retain_metadata_in_forward_mode=false"),
    "forward-integer-time": (*FORWARD, *ACK, "-p", "time_as_integer=true"),
    "forward-two-keys": ("-F", "modify", "-p", "add=node n1", "-m", "*", *FORWARD, *ACK),
    "gzip": (*FORWARD, *ACK, "-p", "compress=gzip"),
    "parsed": (*FORWARD, *ACK),
    "message": ("-F", "modify", "-p", "add=node n1", "-m", "*", *FORWARD, *ACK, "-p", "tag=$node"),
    "upstream": ("-o", "forward", "-p", "upstream={upstream}", "-m", "*"),
    "handshake": (*FORWARD, *ACK, "-p", f"shared_key={SHARED_KEY}"),
    "handshake-user": (
        *(*FORWARD, *ACK, "-p", f"shared_key={SHARED_KEY}"),
        *("-p", "username=node", "-p", "password=node-password"),
    ),
}

UPSTREAM = """
    [UPSTREAM]
        name golden
    [NODE]
        name only
        host 127.0.0.1
        port {port}
        require_ack_response on
"""
PARSERS = """
    [PARSER]
        name golden
        format json
"""


class Recorder:
    """Takes one connection's bytes until the message in it is complete, and acknowledges it."""

    def __init__(self, handshake: ServerHandshake | None) -> None:
        self.bytes = b""
        self.complete = asyncio.Event()
        self._handshake = handshake

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver, received = ForwardReceiver(handshake=self._handshake), b""
        if self._handshake:
            writer.write(self._handshake.hello())
        while data := await reader.read(65536):
            received += data
            receiver.receive_data(data)
            while (event := receiver.next_event()) is not NEED_DATA:
                if isinstance(event, Verdict):
                    writer.write(event.reply)
                if isinstance(event, MessageEnd):
                    self.bytes = self.bytes or received
                    if event.chunk:
                        writer.write(ack(event.chunk))
                    self.complete.set()
        writer.close()


async def record(name: str, options: tuple[str, ...], folder: pathlib.Path) -> tuple[str, bytes]:
    """What Fluent Bit sends with `options`, and these as they were given."""
    users = {"node": "node-password"} if name == "handshake-user" else {}
    handshake = ServerHandshake(SHARED_KEY, users, nonce=NONCE, auth=NONCE) if "handshake" in name else None
    recorder = Recorder(handshake)
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (folder / "lines.log").write_bytes(b"".join(line + b"\n" for line in LINES))
    (folder / "upstream.conf").write_text(textwrap.dedent(UPSTREAM).format(port=port))
    (folder / "parsers.conf").write_text(textwrap.dedent(PARSERS))
    tail = ["-i", "tail", "-p", f"path={folder}/lines.log", "-p", "read_from_head=on", "-p", "tag=audit"]
    if name == "parsed":
        tail += ["-p", "parser=golden"]
    given = [option.format(port=port, upstream=folder / "upstream.conf") for option in options]
    command = ["fluent-bit", "-q", "-f", "0.2", "-R", f"{folder}/parsers.conf", *tail, *given]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await asyncio.wait_for(recorder.complete.wait(), TIMEOUT_S)
    finally:
        process.terminate()
        await process.wait()
        server.close()
    return " ".join(["-f 0.2", *tail[6:], *options]), recorder.bytes


async def main(version: str) -> None:
    for name, options in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            given, data = await record(name, options, pathlib.Path(folder))
        lines = [f"# {version}", f"# options: {given}", "# input: LINES of tests/golden/capture.py, by `in_tail`"]
        lines.append(
            "# made by: python tests/golden/capture.py; all bytes of the connection up to the first message's end"
        )
        lines += textwrap.wrap(data.hex(), 120)
        (HERE / f"{name}.hex").write_text("\n".join(lines) + "\n")
        print(f"{name}: {len(data)} bytes", file=sys.stderr)


if __name__ == "__main__":
    shown = subprocess.run(["fluent-bit", "--version"], capture_output=True, text=True, check=True).stdout
    asyncio.run(main(shown.splitlines()[0]))
