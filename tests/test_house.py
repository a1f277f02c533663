"""The house in order: tests mirror modules, nothing heavy is imported by `receive`, layers hold, docs name what is there."""

import subprocess
import sys
from pathlib import Path

import pytest

MODULES = {
    path.relative_to("forwarder")
    for path in Path("forwarder").rglob("*.py")
    if "migrations" not in path.parts and path.name not in ("__init__.py", "__main__.py")
}
TESTS = {
    path.relative_to("tests")
    for path in Path("tests").rglob("test_*.py")
    if path.relative_to("tests").parts[0] not in ("e2e", "bench", "golden")
}
NO_TEST_OF_THEIR_OWN = {
    "backend/schema.py": "test_database.py compares it with the migrations",
    "backend/server.py": "tests/e2e/test_backend_server.py runs it",
    "backend/store/rebuild.py": "tests/backend/store/test_rolling.py compares what it makes with what writing keeps",
    "backend/store/rows.py": "tests/backend/store/test_rolling.py moves rows through every sum",
    "backend/store/search.py": "tests/backend/store/test_people.py searches across everything",
    "backend/store/state.py": "one row, read and written by every test of the store",
    "backend/store/store.py": "the rooms in one place; each has tests of its own",
    "backend/store/views.py": "tests/backend/store/test_rolling.py compares every view with the events",
    "contracts.py": "protocols and structs only",
    "errors.py": "classes without behaviour",
    "detection/rules.py": "test_loader.py and test_matcher.py read every field",
    "feed/client.py": "tests/e2e/feed/test_client.py: it is connections through and through",
    "sidecar/cluster.py": "tests/e2e/sidecar/test_discovery.py runs it over HTTP",
    "sidecar/leash.py": "tests/e2e/sidecar/test_sidecar.py kills its parent",
    "sidecar/relay.py": "tests/e2e/sidecar/test_relay.py: it is sockets through and through",
    "sidecar/sidecar.py": "tests/e2e/sidecar/test_sidecar.py runs it",
    "sidecar/supervisor.py": "tests/e2e/sidecar/test_sidecar.py kills and reloads what it keeps",
    "sidecar/tunnel.py": "tests/e2e/sidecar/test_tunnel.py: it is sockets through and through",
    "wire/forward_sender.py": "tests/e2e/sinks/test_forward.py: it is sockets through and through",
    "wire/http_server.py": "tests/e2e/test_webhook.py: it is sockets through and through",
    "workers/door.py": "tests/e2e/test_workers.py: it is processes through and through",
    "workers/worker.py": "tests/e2e/test_workers.py kills it",
    "up.py": "tests/e2e/test_cli.py runs it",
}


@pytest.mark.parametrize("module", sorted(map(str, MODULES)))
def test_a_module_has_tests_where_one_looks_for_them(module: str) -> None:
    """forwarder/a/b.py ↔ tests/a/test_b.py (or test_b_*.py); exceptions carry their reason."""
    path = Path(module)
    folder = Path("tests") / path.parent
    found = [*folder.glob(f"test_{path.stem}.py"), *folder.glob(f"test_{path.stem}_*.py")]
    assert found or module in NO_TEST_OF_THEIR_OWN


@pytest.mark.parametrize("test", sorted(map(str, TESTS)))
def test_a_test_has_its_module(test: str) -> None:
    """What a test is about still exists."""
    path = Path(test)
    if test == "test_house.py" or path.stem == "test_docs":
        return
    stems = [path.stem.removeprefix("test_")]
    while "_" in stems[-1]:
        stems.append(stems[-1].rpartition("_")[0])
    modules = Path("forwarder") / path.parent
    assert any((modules / f"{stem}.py").exists() or (modules / stem).is_dir() for stem in stems) or stems[0] == "main"


def test_receive_carries_no_web_framework_no_orm_and_no_grpc() -> None:
    """A receiver is small; its backend may be anywhere."""
    program = (
        "import json, sys\n"
        "from forwarder.registry import load_config\n"
        "from forwarder.settings import parse_document\n"
        "from forwarder.up import Receiver\n"
        "settings = {'sources': {'forward': {}, 'file': {'path': '/x'}}, 'sinks': {'backend': {}}, 'outbox': {'path': '/tmp/x.db'}}\n"
        "Receiver(load_config(parse_document(json.dumps(settings), 'f.yaml'), {}))\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert {"msgpack", "msgspec", "requests"} <= loaded
    assert not loaded & {
        "fastapi",
        "h11",
        "confluent_kafka",
        "starlette",
        "uvicorn",
        "sqlalchemy",
        "alembic",
        "jinja2",
        "grpc",
        "typer",
    }


def test_the_readme_names_the_commands_and_where_to_start_reading() -> None:
    """And every file that it names exists."""
    text = Path("README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
    for word in text.replace("(", " ").replace(")", " ").replace("`", " ").split():
        if word.startswith(("docs/", "forwarder/", "rules/", "fluent-bit/", "tests/")) and "*" not in word:
            assert Path(word.rstrip(".,:;")).exists(), word
