"""The command line as real processes: start, look, stop; exit codes; what is imported; pipes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import forwarder
from tests.ports import free_port

pytestmark = pytest.mark.e2e

ROOT = Path(forwarder.__file__).parents[1]
DEADLINE_S = 60.0
WEB = ("fastapi", "uvicorn", "starlette", "sqlalchemy", "alembic", "jinja2", "grpc")

Done = subprocess.CompletedProcess[str]
Forwarder = Callable[..., Done]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Nothing of ours from outside; the tests' own forwarder."""
    ours = ("FORWARD", "HEALERT", "SCORE_", "AUDIT_LOG", "RULES_PATH", "K8S_", "ENTITY_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return clean | {"PYTHONPATH": str(ROOT), "HOME": str(folder), "NO_COLOR": "1"} | more


@pytest.fixture
def cli(tmp_path: Path) -> Forwarder:
    """`cli("status", "--json", HEALERT_API_KEY="…")` runs the program to its end."""

    def run(*arguments: object, **environ: str) -> Done:
        return subprocess.run(
            [sys.executable, "-P", "-m", "forwarder", *map(str, arguments)],
            env=environment(tmp_path, **environ),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    return run


@pytest.fixture
def ports() -> dict[str, str]:
    """Options of `up` for addresses that nobody else uses."""
    return {f"--{name}-listen": f"127.0.0.1:{free_port()}" for name in ("backend", "forward", "telemetry")}


@pytest.fixture
def up(cli: Forwarder, tmp_path: Path, ports: dict[str, str]) -> Iterator[Callable[..., Path]]:
    """`up(…)` starts it in the background; its data folder. What was started is stopped."""
    folder = tmp_path / "data"

    def start(*arguments: object, **environ: str) -> Path:
        options = [word for pair in ports.items() for word in pair]
        started = cli("up", "--detach", "--data-dir", folder, *options, *arguments, **environ)
        assert started.returncode == 0, started.stderr
        return folder

    yield start
    cli("down", "--data-dir", folder)


def exec_line(number: int = 1) -> str:
    event = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": f"a-{number}",
        "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/shop/pods/web-0/exec?command=sh", "verb": "get",
        "user": {"username": "alice"}, "responseStatus": {"code": 101},
        "objectRef": {"resource": "pods", "namespace": "shop", "name": "web-0", "subresource": "exec"},
        "requestReceivedTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
        "stageTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
    }  # fmt: skip
    return json.dumps(event) + "\n"


def status(cli: Forwarder, folder: Path) -> dict[str, Any]:
    done = cli("status", "--json", "--data-dir", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S / 2
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        pytest.param({}, "no key asked for", id="without-keys"),
        pytest.param(
            {"FORWARD_SHARED_KEY": "f0rward$k3y", "HEALERT_API_KEY": "hea1ert-k3y"}, "the shared key", id="with-keys"
        ),
    ],
)
def test_up_in_the_background(
    cli: Forwarder, up: Callable[..., Path], tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    """Two commands and a line in the log: the event is found, delivered and scored; doctor follows one of its own;
    the ledger balances while it runs and after it ended; ending it twice is no error."""
    log = tmp_path / "audit.log"
    log.touch()
    folder = up("--audit-log", log, **environ)
    again = cli("up", "--detach", "--data-dir", folder, **environ)
    assert "already running" in again.stderr
    with log.open("a") as file:
        file.write(exec_line())
    wait_for(lambda: status(cli, folder)["ledger"]["sinks"][0]["delivered"] == 1)
    doctor = cli("doctor", "--send", "--data-dir", folder, **environ)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert said in doctor.stdout
    assert "not scored" in doctor.stdout
    assert status(cli, folder)["receiver"] == "ready"
    logged = cli("logs", "--data-dir", folder).stdout
    assert f"{log} from its end" in logged
    assert not any(key in logged for key in environ.values())
    assert cli("down", "--data-dir", folder).returncode == 0
    ended = status(cli, folder)
    assert (ended["receiver"], ended["balanced"], ended["ledger"]["new"]) == ("down", True, 2)
    assert "not running" in cli("down", "--data-dir", folder).stdout


def test_a_wrong_key_is_found(cli: Forwarder, up: Callable[..., Path]) -> None:
    """doctor with other keys than the process: both hops are bad, and say which key to look at."""
    folder = up("--audit-log", "none", FORWARD_SHARED_KEY="right", HEALERT_API_KEY="right")
    doctor = cli("doctor", "--send", "--data-dir", folder, FORWARD_SHARED_KEY="wrong", HEALERT_API_KEY="wrong")
    assert doctor.returncode == 1
    assert "KEY REFUSED" in doctor.stdout
    assert "FORWARD_SHARED_KEY" in doctor.stdout


def test_a_port_in_use_exits_2_and_names_it(cli: Forwarder, tmp_path: Path) -> None:
    """In the foreground and in the background, with the address and no stack trace."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for more in ([], ["--detach"]):
            done = cli("up", "--audit-log", "none", "--data-dir", tmp_path / "d", "--backend-listen", address, *more)
            assert done.returncode == 2
            assert address in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["receive", "backend"])
def test_a_signal_ends_a_service_cleanly(tmp_path: Path, command: str, number: int) -> None:
    """SIGTERM and Ctrl-C drain and exit 0."""
    (tmp_path / "backend.yaml").write_text(f"backend: {{listen: '127.0.0.1:0', database: {tmp_path}/b.db}}\n")
    (tmp_path / "receive.yaml").write_text(
        "sources: {forward: {listen: '127.0.0.1:0'}}\nsinks: {backend: {url: 'http://127.0.0.1:1'}}\n"
        f"outbox: {{path: {tmp_path}/o.db}}\ntelemetry: {{listen: '127.0.0.1:0'}}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "forwarder", command, "--config", str(tmp_path / f"{command}.yaml")],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if "http://127.0.0.1" in line:
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(DEADLINE_S) == 0
    assert "stopping" in rest
    assert "Traceback" not in rest


def test_replay_into_a_pipe_that_closes(tmp_path: Path) -> None:
    """`forwarder replay … | head -1` says nothing about the pipe."""
    log = tmp_path / "audit.log"
    log.write_text("".join(exec_line(number) for number in range(5000)))
    program = f"{sys.executable} -P -m forwarder replay {log} --output ndjson | head -1"
    done = subprocess.run(
        program, shell=True, env=environment(tmp_path), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["receive", "--help"], ["receive", "--check", "--config", "f.yaml"]], ids=" ".join
)
def test_no_web_framework_where_none_is_needed(tmp_path: Path, arguments: list[str]) -> None:
    """Help, and a receiver, load neither web framework nor SQLAlchemy; help loads no event loop either."""
    (tmp_path / "f.yaml").write_text("sources: {forward: {}}\nsinks: {backend: {}}\n")
    program = (
        "import sys\nfrom forwarder.cli import main\n"
        f"sys.argv = ['forwarder', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True,
        timeout=DEADLINE_S, check=True,
    )  # fmt: skip
    loaded = set(done.stderr.rpartition("LOADED")[2].split())
    assert "forwarder.cli" in loaded
    assert loaded.isdisjoint(WEB)
    assert "--help" not in arguments or loaded.isdisjoint({"asyncio", "requests", "prometheus_client"})


@pytest.mark.parametrize("fluent_bit", [True, False], ids=["fluent-bit", "file-source"])
def test_the_demo(cli: Forwarder, tmp_path: Path, fluent_bit: bool) -> None:
    """Everything that was planted is found, each once; the ledger balances; nothing is left running."""
    if fluent_bit and shutil.which("fluent-bit") is None:
        pytest.skip("fluent-bit is not on PATH")
    done = cli("demo", "--seconds", "2", "--dir", tmp_path / "demo", *([] if fluent_bit else ["--no-fluent-bit"]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("Fluent Bit →" in done.stderr) is fluent_bit
    assert "✗" not in done.stdout
    assert "each once" in done.stdout
    assert "component:" in done.stdout
    assert not (tmp_path / "demo" / "data" / "up.json").exists()
