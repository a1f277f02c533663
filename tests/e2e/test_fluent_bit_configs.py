"""The configurations in fluent-bit/, run by the real Fluent Bit against a server that is not ours: nothing is lost."""

import ssl
import time

import pytest
import trustme

from forwarder.cli.demo_log import LogWriter
from forwarder.events.sample import SampleLog
from forwarder.settings import shipped

pytestmark = pytest.mark.e2e

KEY = "a shared key"
LONGEST = 9_000_000  # buffer_max_size


@pytest.fixture(params=["laptop", "node"])
def setting(request, tmp_path, ack_server):
    """The name of a configuration, the environment that it is given, a log, and the server that it sends to."""
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "audit.log"
    if request.param == "laptop":
        server = ack_server()
        environment = {"AUDIT_LOG_PATH": str(folder / "audit*.log"), "FORWARDER_PORT": str(server.port)}
        return "laptop", environment, log, server
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("friction-forwarder").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    server = ack_server(shared_key=KEY, context=context)
    environment = {
        "AUDIT_LOG_PATH": str(folder / "audit*.log"),
        "FORWARDER_HOST": "127.0.0.1",
        "FORWARDER_PORT": str(server.port),
        "FORWARDER_CA_FILE": str(tmp_path / "ca.crt"),
        "FORWARD_SHARED_KEY": KEY,
        "FLUENT_BIT_FLUSH": "0.2",
        "NODE_NAME": "node-7.example",
    }
    return "node", environment, log, server


def _start(fluent_bit, setting):
    name, environment, _, _ = setting
    return fluent_bit(shipped(f"fluent-bit/{name}.yaml"), environment)


def test_a_line_above_the_limit_arrives_as_its_head_and_the_file_goes_on(setting, fluent_bit, wait_until):
    """Lines that stood there before the start arrive as they are; of one that is too long, all that fits."""
    name, _, log, server = setting
    lines = list(SampleLog(1, start_time=time.time()).lines(50))
    medium = b'{"kind":"Event","filler":"' + b"m" * 600_000 + b'"}'
    long = b'{"kind":"Event","filler":"' + b"x" * LONGEST + b'"}'
    log.write_bytes(b"".join(line + b"\n" for line in [*lines[:25], medium, long, *lines[25:]]))
    _start(fluent_bit, setting)
    wait_until(lambda: len(server.lines) >= len(lines) + 2, "every line")
    assert [line for line in lines if line not in server.lines] == []
    assert medium in server.lines
    (head,) = [line for line in server.lines if len(line) > len(medium)]
    assert long.startswith(head)
    assert len(head) >= LONGEST - 1
    assert server.tags == {"audit" if name == "laptop" else "audit.node-7.example"}
    assert server.client_names == (set() if name == "laptop" else {"node-7.example"})


def test_rotation_and_kills_lose_no_line(setting, fluent_bit, wait_until):
    """The log is rotated by rename while it is read, the agent killed with -9 and the receiver cut off, in turns."""
    _, _, log, server = setting
    sample = SampleLog(2, start_time=time.time())
    writer = LogWriter(str(log))
    lines = []

    def write_and_rotate():
        """A rotation in the middle of 1000 lines."""
        for number in range(1000):
            if number == 500:
                writer.rotate()
            lines.append(sample.line())
            writer.write(lines[-1])

    def all_arrived():
        return not set(lines) - set(server.lines)

    agent = _start(fluent_bit, setting)
    lines.append(sample.line())
    writer.write(lines[0])
    wait_until(all_arrived, "the first line")
    for _ in range(3):
        server.silent = True  # what is read now is acknowledged by nobody
        write_and_rotate()
        agent.kill()
        server.disconnect()
        server.silent = False
        agent.start()
        wait_until(all_arrived, "the lines that were written before the kill")
        write_and_rotate()
        server.disconnect()
        wait_until(all_arrived, "the lines that were written before the receiver was cut off")
    writer.close()
    assert set(server.lines) == set(lines), "nothing but the lines that were written"


def test_what_was_rotated_away_while_the_agent_was_down_is_found_by_the_glob(setting, fluent_bit, wait_until):
    """The reason for the glob: files that were renamed during a restart of the agent are read all the same."""
    _, _, log, server = setting
    lines = list(SampleLog(3, start_time=time.time()).lines(600))
    writer = LogWriter(str(log))
    agent = _start(fluent_bit, setting)
    for line in lines[:200]:
        writer.write(line)
    wait_until(lambda: lines[199] in server.lines, "the lines before the stop")
    agent.stop()
    for line in lines[200:400]:
        writer.write(line)
    writer.rotate()
    for line in lines[400:]:
        writer.write(line)
    writer.close()
    agent.start()
    wait_until(lambda: not set(lines) - set(server.lines), "every line")
